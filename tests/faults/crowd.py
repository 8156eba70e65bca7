"""Many short experiments and four workers on one repository: none lost, none doubled, none mixed up."""

from __future__ import annotations

import json
import time
from collections.abc import Generator

import yaml

from faults.command import LIMIT_S, Lost, Tally
from faults.outcome import Outcome
from faults.victim import CACHE, require_whole_objects, victim
from fly64_dose_overlap.pipeline.cells import BASE_FILE
from fly64_dose_overlap.progress import say
from matrix_study import JOBS, experiments, processes
from study_copy import StudyCopy

WORKERS = 4
EXPERIMENTS = 30
TARGET = "base"
"""The shortest stage, so that workers meet at DVC's locks and not at the processor."""
FIRST_SEED = 1000
STARTS = 3
"""On a busy machine a worker can end while experiments are queued (docs/remotes.md); starting goes on."""


def run(*, quick: bool) -> Generator[Outcome]:
    """Queue experiments that each draw other positions, and let four workers at them."""
    tally = Tally("short experiments, four queue workers at once")
    with victim() as study:
        found: dict[str, str] = {}
        seeds = range(FIRST_SEED, FIRST_SEED + (4 if quick else EXPERIMENTS))
        for seed in seeds:
            change = ("-S", f"base.seed={seed}")
            tally.succeed(["dvc", "exp", "run", "--queue", "--name", f"s{seed}", *change, TARGET], study)
        for _ in range(STARTS):
            tally.succeed(["dvc", "queue", "start", "--jobs", str(WORKERS)], study)
            _wait_for_workers(study)
            found = experiments(study)
            if len(found) >= len(seeds):
                break
            say(f"crowd: workers ended with {len(found)} of {len(seeds)} experiments done")
        digests: dict[str, str] = {}
        for seed in seeds:
            with tally.trial(f"s{seed}"):
                _require_own_result(study, found, seed, digests)
        with tally.trial("all", 0):
            _require_each_once(study, found, len(seeds))
            require_whole_objects(study.root / CACHE)
    yield tally.outcome()


def _wait_for_workers(study: StudyCopy) -> None:
    """Wait until all workers have ended, which they do soon after the queue is empty."""
    limit = time.monotonic() + LIMIT_S
    while processes(study) and time.monotonic() < limit:
        say(f"crowd: {len(experiments(study))} experiments")
        time.sleep(10)


def _require_own_result(study: StudyCopy, found: dict[str, str], seed: int, digests: dict[str, str]) -> None:
    name = f"s{seed}"
    if name not in found:
        raise Lost("there is no such experiment")
    params = yaml.safe_load(study.git("show", f"{found[name]}:params.yaml"))
    if params["base"]["seed"] != seed:
        raise Lost(f"it has the seed {params['base']['seed']}")
    lock = yaml.safe_load(study.git("show", f"{found[name]}:dvc.lock"))["stages"][TARGET]
    if lock["params"]["params.yaml"]["base"]["seed"] != seed:
        raise Lost("its data were made with another seed")
    (digest,) = [out["md5"] for out in lock["outs"] if out["path"] == str(BASE_FILE)]
    if digest in digests.values():
        raise Lost("another experiment has the same data")
    digests[name] = digest
    if not (study.root / CACHE / digest[:2] / digest[2:]).is_file():
        raise Lost("its data are not in the cache")


def _require_each_once(study: StudyCopy, found: dict[str, str], count: int) -> None:
    if len(found) != count:
        raise Lost(f"{len(found)} experiments, expected {count}")
    jobs = [json.loads(path.read_text()) for path in study.root.glob(f"{JOBS}/*/*.run")]
    names = [job["name"] for job in jobs if job["name"] in found]
    if len(names) != len(set(names)):
        raise Lost(f"{len(names)} jobs ran for {count} experiments")
