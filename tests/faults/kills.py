"""SIGKILL at random moments: of single stages, of `dvc repro`, `dvc exp run` and the queue."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Generator, Sequence
from contextlib import suppress

import psutil

from faults.command import Lost, Running, Tally, mend_lock, require_soon
from faults.outcome import Outcome
from faults.victim import (
    CACHE,
    EPOCHS,
    VIEW,
    Stage,
    fresh_victim,
    kind_of,
    outputs_of,
    remove_outputs,
    require_none_partial,
    require_same,
    require_unbroken_curve,
    require_whole_objects,
    stages,
    victim,
)
from fly64_dose_overlap.progress import say, track
from matrix_study import experiments, kill, kill_all, processes
from study_copy import StudyCopy, matrix_line

SEED = 20260
KILLS_OF_STAGE = {
    "check": 4,
    "base": 8,
    "reference": 4,
    "expose": 6,
    "overlap": 8,
    "limit": 6,
    "diagnose": 4,
    "train": 7,
    "infer": 2,
    "reconstruct": 2,
    "halves": 4,
    "evaluate": 6,
}
QUICK_STAGES = ("base", "train@refined")
LONGEST_PART = 0.3
"""Of the undisturbed duration, between two kills of one command."""
START = ["dvc", "queue", "start", "--jobs", "2"]
CHANGE = ("-S", "seed=43", "-S", "stops.seed=43")
RESUMED = re.compile(rf"resumed from the checkpoint of epoch (\d+)/{EPOCHS}")
FINISHED = re.compile(rf" epoch (\d+)/{EPOCHS}: train/loss")


def run(*, quick: bool) -> Generator[Outcome]:
    """Kill everything that runs for long; about 105 kills, a dozen in the quick form."""
    rng = random.Random(SEED)
    say(f"kills: seed {SEED}")
    for stage in stages():
        kind = kind_of(stage)
        if not quick or stage.name in QUICK_STAGES:
            yield killed_stage(stage, 2 if quick else KILLS_OF_STAGE[kind], rng)
    yield killed_repro(rng, chains=1 if quick else 2, kills=2 if quick else 7)
    if quick:
        return
    yield killed_experiment(rng, kills=8)
    yield killed_workers(rng, rounds=4, kills=2)
    yield killed_queue(rng, kills=4)
    yield killed_matrix(rng, kills=6)


def killed_stage(stage: Stage, kills: int, rng: random.Random) -> Outcome:
    """Kill one stage ``kills`` times, at moments spread over its duration, and repeat it each time.

    The moments lie denser towards the end, where files are written.
    """
    tally = Tally(f"SIGKILL of stage {_shown(stage)}")
    with victim() as study:
        remove_outputs(study, stage.outputs)
        duration_s = tally.succeed(stage.line, study).seconds
        moments = [((number + rng.random()) / kills) ** 0.5 * duration_s for number in range(kills)]
        for moment_s in track(moments, total=kills, label=tally.kind, unit="kill"):
            remove_outputs(study, stage.outputs)
            running = Running(stage.line, study)
            if not running.runs_until(moment_s) or running.kill().returncode >= 0:
                continue  # it was faster this time: no fault was injected
            with tally.trial(f"after {moment_s:.1f} s"):
                require_none_partial(study, stage.outputs)
                before = running.printed
                again = tally.succeed(stage.line, study)
                require_same(study, stage.outputs)
                if kind_of(stage) == "train":
                    require_resumed(before, again.printed)
                    require_unbroken_curve(study, f"metrics/{stage.name.partition('@')[2]}")
    return tally.outcome()


def _shown(stage: Stage) -> str:
    """Return a stage's name without dose and view, which are the same for all."""
    by_method = kind_of(stage) in ("train", "infer", "reconstruct", "halves")
    return stage.name.replace("@", " of ") if by_method else kind_of(stage)


def require_resumed(before: str, after: str) -> None:
    """Require that training went on after the last epoch that it had reported, or the next."""
    told = FINISHED.findall(before)
    resumed = RESUMED.search(after)
    done = int(told[-1]) if told else 0
    reached = int(resumed[1]) if resumed else 0
    # Killed between the checkpoint and the message, or between the model and its manifest.
    if reached not in (done, done + 1) and not (done == EPOCHS and reached == 0):
        raise Lost(f"{done} epochs were reported, but it went on after epoch {reached}")


def killed_repro(rng: random.Random, *, chains: int, kills: int) -> Outcome:
    """Kill `dvc repro` again and again from an empty repository, until it has been let through."""
    tally = Tally("SIGKILL of dvc repro")
    outputs = [path for stage in stages() for path in stage.outputs]
    line = ["dvc", "repro", "evaluate"]
    with fresh_victim() as study:
        duration_s = Tally("").succeed(line, study).seconds
    for chain in range(chains):
        with fresh_victim() as study:
            _kill_again_and_again(line, study, rng, kills, duration_s, tally)
            with tally.trial(f"chain {chain + 1}, repeated", 0):
                tally.succeed(line, study)
                require_same(study, outputs)
                require_whole_objects(study.root / CACHE)
                require_nothing_left(study, line)
    return tally.outcome()


def _kill_again_and_again(
    line: Sequence[str], study: StudyCopy, rng: random.Random, kills: int, duration_s: float, tally: Tally
) -> None:
    """Kill a command up to ``kills`` times, unless it comes through before."""
    for number in range(kills):
        running = Running(line, study)
        moment_s = rng.uniform(0.02, LONGEST_PART) * duration_s
        if not running.runs_until(moment_s):
            if mend_lock(running.end(), study):
                continue
            return
        running.kill()
        with tally.trial(f"kill {number + 1} after {moment_s:.1f} s"):
            require_whole_objects(study.root / CACHE)
        say(f"{tally.kind}: {number + 1}/{kills} after {moment_s:.1f} s")


def require_nothing_left(study: StudyCopy, line: Sequence[str]) -> None:
    """Require that the command, once more, runs no stage."""
    again = Running(line, study).end()
    if "Running stage" in again.printed or again.returncode:
        raise Lost(f"{' '.join(line)} once more does not find all done: {again.last_line}")


def killed_experiment(rng: random.Random, kills: int) -> Outcome:
    """Kill `dvc exp run` again and again; compare its results with those of an undisturbed one."""
    tally = Tally("SIGKILL of dvc exp run")
    line = ["dvc", "exp", "run", "--name", "trial", *CHANGE, "evaluate"]
    with victim() as undisturbed:
        duration_s = tally.succeed(line, undisturbed).seconds
        expected = outputs_of(undisturbed, experiments(undisturbed)["trial"])
    with victim() as study:
        _kill_again_and_again(line, study, rng, kills, duration_s, tally)
        with tally.trial("repeated", 0):
            if "trial" not in experiments(study):  # one that a kill left is whole, or this is a loss
                tally.succeed(line, study)
            _require_experiments(study, {"trial": expected})
    return tally.outcome()


def _require_experiments(study: StudyCopy, expected: dict[str, dict[str, str]]) -> None:
    found = experiments(study)
    if sorted(found) != sorted(expected):
        raise Lost(f"experiments are {sorted(found)}, expected {sorted(expected)}")
    for name, outputs in expected.items():
        own = outputs_of(study, found[name])
        differing = sorted(path for path in outputs if own.get(path) != outputs[path])
        if differing:
            raise Lost(f"{name}: not the results of the undisturbed run: {', '.join(differing)}")
    require_whole_objects(study.root / CACHE)


def killed_workers(rng: random.Random, *, rounds: int, kills: int) -> Outcome:
    """Kill the queue's workers with their jobs, under a matrix that goes on: it starts others."""
    tally = Tally("SIGKILL of the queue's workers, under the matrix")
    with victim() as study:
        for number in range(rounds):
            # Only the evaluation differs, so that a job is short.
            line = matrix_line("--view", VIEW, "-S", f"evaluate.registration_upsampling={11 + number}")
            running = Running(line, study)
            killed = 0
            while killed < kills and running.runs_when(lambda: bool(_workers(study))):
                if not running.runs_until(running.seconds + rng.uniform(0.5, 8.0)):
                    break
                workers = _workers(study)
                kill([member for worker in workers for member in (*worker.children(recursive=True), worker)])
                killed += bool(workers)
            with tally.trial(f"round {number + 1} of {killed} kills", killed):
                ended = tally.measure(running.end())
                found = experiments(study)
                if ended.returncode or len(found) != number + 1:
                    raise Lost(f"status {ended.returncode}, experiments {sorted(found)}: {ended.last_line}")
                require_whole_objects(study.root / CACHE)
    return tally.outcome()


def _workers(study: StudyCopy) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in processes(study):
        with suppress(psutil.NoSuchProcess):  # it may just end
            if "queue-worker" in process.cmdline():
                found.append(process)
    return found


def killed_matrix(rng: random.Random, kills: int) -> Outcome:
    """Kill `dose-overlap matrix` with its workers and jobs again and again, as reboots do."""
    tally = Tally("SIGKILL of dose-overlap matrix with its workers")
    line = matrix_line("--view", VIEW, *CHANGE)
    with victim() as undisturbed:
        duration_s = tally.succeed(line, undisturbed).seconds
        ((name, reference),) = experiments(undisturbed).items()
        expected = outputs_of(undisturbed, reference)
    with victim() as study:
        _kill_again_and_again(line, study, rng, kills, duration_s, tally)
        with tally.trial("repeated", 0):
            tally.succeed(line, study)
            _require_experiments(study, {name: expected})
    return tally.outcome()


def killed_queue(rng: random.Random, kills: int) -> Outcome:
    """Kill DVC's own queue as a reboot does; what ran is queued again, and what waited goes on.

    DVC takes a killed job for one that runs. `dvc queue kill --force` and `dvc queue remove`
    take it out, as docs/reliability.md says.
    """
    tally = Tally("SIGKILL of dvc queue start with its jobs")
    with victim() as study:
        for number in range(kills):
            name = f"short-{number}"
            change = f"evaluate.registration_upsampling={11 + number}"
            queue = ["dvc", "exp", "run", "--queue", "--name", name, "-S", change, "evaluate"]
            with tally.trial(name):
                tally.succeed(queue, study)
                tally.succeed(START, study)
                require_soon(lambda: _workers(study), "worker")
                time.sleep(rng.uniform(0.0, 10.0))
                kill_all(study)
                require_whole_objects(study.root / CACHE)
                if name not in experiments(study):
                    study.dvc("queue", "kill", "--force", name, check=False)
                    study.dvc("queue", "remove", name, check=False)
                    tally.succeed(queue, study)
                tally.succeed(START, study)
                require_soon(lambda name=name: name in experiments(study), "experiment")
    return tally.outcome()
