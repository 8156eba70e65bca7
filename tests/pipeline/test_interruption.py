"""Training that is killed goes on from its last checkpoint, to the same result."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from study_copy import StudyCopy, module

pytestmark = pytest.mark.slow

BUNDLE = "models/refined/model.safetensors"
CURVES = "metrics/refined"
EPOCHS = 3
DEADLINE_S = 60.0
RESUMED = re.compile(rf"resumed from the checkpoint of epoch (\d+)/{EPOCHS}")
COMMANDS = {
    "stage": ["env", "PYTHONPATH=src", *module("train"), "--method", "refined"],
    "dvc": ["dvc", "repro", "train@refined"],
}


@pytest.fixture
def study(study: StudyCopy) -> StudyCopy:
    """Return a study whose epochs take long enough to be interrupted."""
    study.change_params(methods__refined__epochs=EPOCHS, methods__refined__steps_per_epoch=60)
    study.dvc("repro", "check")
    return study


def kill_when(line: list[str], study: StudyCopy, ready: Callable[[], bool]) -> None:
    """Start a command in a process group of its own and kill the group once ``ready``."""
    process = subprocess.Popen(
        line,
        cwd=study.root,
        env=study.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + DEADLINE_S
    try:
        while not ready():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline, "it wrote no checkpoint"
            time.sleep(0.005)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL


def results(study: StudyCopy) -> dict[str, bytes]:
    """Return model and curves."""
    files: list[Path] = [study.root / BUNDLE, *(study.root / CURVES).rglob("*.*")]
    return {str(path.relative_to(study.root)): path.read_bytes() for path in files if path.is_file()}


@pytest.mark.parametrize("line", COMMANDS.values(), ids=COMMANDS)
def test_killed_training_resumes_to_the_same_bytes(study: StudyCopy, line: list[str]) -> None:
    checkpoints = study.root / ".dvc/tmp/checkpoints"
    old = (study.root / BUNDLE).read_bytes()
    kill_when(line, study, lambda: any(checkpoints.glob("*/last.pt")))
    assert any(checkpoints.glob("*/last.pt"))
    assert not (study.root / BUNDLE).exists() or (study.root / BUNDLE).read_bytes() == old

    again = study.run(*line)
    told = RESUMED.search(again.stderr + again.stdout)
    assert told, "nothing says that training was resumed"
    assert int(told[1]) in range(1, EPOCHS)
    assert not list(checkpoints.glob("*/*.pt"))
    resumed = results(study)

    assert "resumed" not in study.stage("train", "--method", "refined").stderr
    assert results(study) == resumed
    assert resumed[BUNDLE] != old
