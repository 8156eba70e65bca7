"""What `dose-overlap` says of itself."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from factories import study_params
from fly64_dose_overlap.pipeline import cli
from fly64_dose_overlap.pipeline.jobs import plan_jobs

GROUPS = {"Run": ["repro", "matrix", "slurm", "dask"], "Look": ["report", "inspect"], "Keep": ["verify"]}


def test_the_help_groups_commands_as_a_user_thinks() -> None:
    state = random.getstate()
    found = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(cli.app, ["--help"]).stdout
    # The formatting of the help draws random numbers.
    random.setstate(state)
    words = [line.strip("│╭─╮ ").split() for line in found.splitlines() if line.strip("│╭─╮╰╯ ")]
    firsts = [word[0] for word in words]
    places = [firsts.index(name) for group, names in GROUPS.items() for name in (group, *names)]
    assert places == sorted(places)


@pytest.mark.parametrize("command", ["report", "verify", "matrix"])
def test_outside_of_a_study_a_command_says_where_to_run_it(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(cli.app, [command])
    message = "error: params.yaml: no such file; run from the repository's root\n"
    assert (found.exit_code, found.stderr) == (1, message)


def test_a_gpu_that_is_named_twice_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Matrix:
        def __init__(self, *arguments: Any) -> None: ...

        def run_on_cluster(self, run: Any, *arguments: Any) -> None:
            seen.append(run.keywords["gpus"])

    monkeypatch.setattr(cli, "_Matrix", Matrix)
    line = ["dask", "--scratch", "scratch", "--gpu", "0", "--gpu", "1", "--gpu", "0"]
    assert CliRunner().invoke(cli.app, line).exit_code == 0
    assert seen == [["0", "1"]]


def test_a_method_that_is_named_twice_gets_one_job_in_a_folder(tmp_path: Path) -> None:
    named: dict[str, Any] = {"dose": [1000, 1000], "view": ["dense", "dense"], "split": ["test", "test"]}
    named |= {"methods": ["ml", "ml"]}
    plan = plan_jobs(study_params(), "reconstruct", root=tmp_path, allow_missing=True, **named)
    assert (len(plan.jobs) + len(plan.missing), plan.total) == (1, 18)
