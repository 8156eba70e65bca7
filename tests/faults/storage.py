"""Remote storage that goes away, and bytes that rot in it, in the cache and in checkpoints."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from faults.command import Lost, Running, Tally
from faults.outcome import Outcome
from faults.victim import (
    CACHE,
    EPOCHS,
    finished,
    remove_outputs,
    require_same,
    require_unbroken_curve,
    require_whole_objects,
    stages,
    victim,
)
from fly64_dose_overlap.progress import say
from matrix_study import kill_all
from study_copy import PACKAGE, StudyCopy

SEED = 20263
OBJECTS = "files/md5"
DATA = ("data", "models", "reconstructions", "reports")
VERIFY = ["env", "PYTHONPATH=src", "python", "-m", f"{PACKAGE}.cli", "verify"]
FORGET = ["python", "-c", "from dvc.repo import Repo; Repo().drop_data_index()"]
"""A killed transfer can leave an index with some of its files only; see docs/reliability.md."""
CHECKPOINTS = ".dvc/tmp/checkpoints"
TIMES = 6


def run(*, quick: bool) -> Generator[Outcome]:
    """Kill transfers, take the remote away in the middle, and damage what is stored."""
    rng = random.Random(SEED)
    say(f"storage: seed {SEED}")
    times = 1 if quick else TIMES
    for command in ("pull", "push"):
        yield broken_transfer(command, rng, times, away=False)
        yield broken_transfer(command, rng, times, away=True)
    yield rotten_remote(rng, times)
    yield rotten_cache(rng, times)
    yield rotten_checkpoint(rng, 1 if quick else 4)


@contextmanager
def stored() -> Generator[Path]:
    """Lend a folder remote that holds the data of the finished study."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        study = finished().copy_to(Path(folder))
        _use(study, Path(folder) / "remote")
        study.dvc("push")
        shutil.rmtree(study.root)
        yield Path(folder) / "remote"


def _use(study: StudyCopy, folder: Path) -> None:
    """Name a folder as the remote, with the commands of `make remote`."""
    study.run("mkdir", "-p", str(folder))
    study.dvc("remote", "add", "--local", "--force", "--default", "storage", str(folder))
    study.dvc("remote", "modify", "--local", "storage", "verify", "true")


@contextmanager
def clone() -> Generator[StudyCopy]:
    """Lend a clone of the finished study with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        study = finished().clone_to(Path(folder))
        try:
            yield study
        finally:
            kill_all(study)


def broken_transfer(command: str, rng: random.Random, times: int, *, away: bool) -> Outcome:
    """Kill `dvc pull` or `dvc push`, or rename the remote under it, and repeat it afterwards."""
    fault = "remote away in" if away else "SIGKILL of"
    tally = Tally(f"{fault} dvc {command}")
    pull = command == "pull"
    with stored() as full:
        duration_s = 0.0
        for number in range(-1, times):
            remote = full if pull else full.with_name("other")
            shutil.rmtree(full.with_name("other"), ignore_errors=True)
            with clone() if pull else victim() as study:
                _use(study, remote)
                line = ["dvc", command]
                running = Running(line, study)
                if number < 0:
                    duration_s = tally.measure(running.end()).seconds
                    continue
                # The first half goes into starting DVC.
                moment_s = (0.4 + 0.6 * (number + rng.random()) / times) * duration_s
                if not running.runs_until(moment_s):
                    continue
                with tally.trial(f"after {moment_s:.1f} s"):
                    if away:
                        hidden = remote.rename(remote.with_name("hidden"))
                        ended = tally.measure(running.end())
                        shutil.rmtree(remote, ignore_errors=True)
                        hidden.rename(remote)
                        if "Traceback" in ended.printed:
                            raise Lost(f"a traceback: {ended.last_line}")
                    else:
                        running.kill()
                    require_whole_objects(remote / OBJECTS)
                    require_whole_objects(study.root / CACHE)
                    _repeat(line, study, tally, None if pull else remote)
                    require_whole_objects(remote / OBJECTS)
                    require_same(study, DATA)
                    if not pull and (missing := _not_pushed(study, remote)):
                        raise Lost(f"{len(missing)} objects were not pushed, such as {missing[0]}")
    return tally.outcome()


def _repeat(line: list[str], study: StudyCopy, tally: Tally, pushed_to: Path | None) -> None:
    """Repeat a transfer; where DVC then misses files, have it forget what it collected, as documented."""
    ended = tally.run(line, study)
    if ended.returncode or (pushed_to and _not_pushed(study, pushed_to)):
        say(f"storage: {' '.join(line)} had to forget its index")
        tally.succeed(FORGET, study)
        tally.succeed(line, study)


def _not_pushed(study: StudyCopy, remote: Path) -> list[str]:
    names = {path.relative_to(study.root / CACHE) for path in (study.root / CACHE).glob("*/*")}
    there = {path.relative_to(remote / OBJECTS) for path in (remote / OBJECTS).glob("*/*")}
    needed = {Path(value[:2]) / value[2:] for value in _recorded(study)}
    return sorted(map(str, needed & names - there))


def _recorded(study: StudyCopy) -> set[str]:
    outs = (out for stage in study.lock().values() for out in stage["outs"])
    return {out["md5"] for out in outs if out["path"].startswith(DATA)}


def damage(path: Path, rng: random.Random) -> str:
    """Flip a bit, cut a file short or empty it, with its times as they were; return what was done."""
    content = bytearray(path.read_bytes())
    times = path.stat()
    way = rng.choice(["bit flipped", "cut short", "emptied"])
    if way == "bit flipped":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
        del content[rng.randrange(len(content)) if way == "cut short" else 0 :]
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    path.chmod(times.st_mode & 0o777)
    return way


def rotten_remote(rng: random.Random, times: int) -> Outcome:
    """Damage an object of the remote: a pull must refuse it, and come through once it is mended."""
    tally = Tally("rot in remote storage, dvc pull")
    with stored() as remote:
        for _ in range(times):
            path = rng.choice(sorted((remote / OBJECTS).glob("*/*")))
            good = path.read_bytes()
            way = damage(path, rng)
            with clone() as study, tally.trial(f"{path.parent.name}/{path.name} {way}"):
                _use(study, remote)
                ended = tally.run(["dvc", "pull"], study)
                path.chmod(0o644)
                path.write_bytes(good)
                require_whole_objects(study.root / CACHE)
                if ended.returncode == 0:
                    raise Lost("the pull was called a success")
                tally.succeed(["dvc", "pull"], study)
                require_same(study, DATA)
    return tally.outcome()


def rotten_cache(rng: random.Random, times: int) -> Outcome:
    """Damage an object of the cache: `dose-overlap verify` must find it, and a pull bring it back."""
    tally = Tally("rot in the cache, dose-overlap verify")
    with stored() as remote:
        for _ in range(times):
            with victim() as study:
                _use(study, remote)
                path = rng.choice(sorted((study.root / CACHE).glob("*/*")))
                digest = path.parent.name + path.name
                way = damage(path, rng)
                with tally.trial(f"{path.parent.name}/{path.name} {way}"):
                    ended = tally.run(VERIFY, study)
                    if ended.returncode != 1 or digest not in ended.printed.replace("/", ""):
                        raise Lost(f"not found: status {ended.returncode}, {ended.last_line}")
                    tally.run([*VERIFY, "--remove"], study)
                    tally.succeed(["dvc", "fetch"], study)
                    tally.succeed(["dvc", "checkout"], study)
                    tally.succeed(VERIFY, study)
                    require_whole_objects(study.root / CACHE)
                    require_same(study, DATA)
    return tally.outcome()


def rotten_checkpoint(rng: random.Random, times: int) -> Outcome:
    """Kill training, damage its newest checkpoint: it must say so, and go on from the one before."""
    tally = Tally("newest checkpoint damaged")
    (stage,) = [stage for stage in stages() if stage.name == "train@refined"]
    with victim() as study:
        for number in range(times):
            epoch = 2 + number % (EPOCHS - 2)
            remove_outputs(study, stage.outputs)
            running = Running(stage.line, study)
            word = f" epoch {epoch}/{EPOCHS}: train/loss"
            if not running.runs_when(lambda running=running, word=word: word in running.printed):
                continue
            running.kill()
            newest = max(study.root.glob(f"{CHECKPOINTS}/*/*"), key=lambda path: path.stat().st_mtime_ns)
            way = damage(newest, rng)
            with tally.trial(f"{newest.name} of epoch {epoch} {way}"):
                again = tally.succeed(stage.line, study)
                if "damaged" not in again.printed or "resumed from the checkpoint" not in again.printed:
                    raise Lost("it does not say that a checkpoint was damaged and which it went on from")
                require_same(study, stage.outputs)
                require_unbroken_curve(study, "metrics/refined")
    return tally.outcome()
