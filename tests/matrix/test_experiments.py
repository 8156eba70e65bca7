"""Commands that fail say why in one line, and logs tell which stages ran."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.matrix.experiments import (
    JOBS,
    WORKERS,
    Job,
    _reason,
    _runs,
    jobs_beside,
    run_command,
    stages_run,
    worker_pids,
)

FAILING = """
import sys
print("working")
print("ERROR: failed to fetch data", file=sys.stderr)
print("Having any troubles? Ask for help", file=sys.stderr)
sys.exit(3)
"""


def test_a_command_returns_what_it_printed_on_standard_output() -> None:
    code = "import sys; print('one'); print('two'); print('three', file=sys.stderr)"
    assert run_command(sys.executable, "-c", code) == "one\ntwo\n"


def test_a_command_reads_nothing_from_the_terminal() -> None:
    assert run_command(sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))") == "''\n"


def test_a_failed_command_is_refused_with_its_last_error() -> None:
    with pytest.raises(StudyError) as caught:
        run_command(sys.executable, "-c", FAILING)
    message = str(caught.value)
    assert message.startswith(f"{sys.executable}: ")
    assert message.endswith("ended with status 3: ERROR: failed to fetch data")
    assert "\n" not in message


def test_the_refusal_names_the_work() -> None:
    with pytest.raises(StudyError, match=r"^cell 1000-dense: git no-such-thing ended with status 1"):
        run_command("git", "no-such-thing", where="cell 1000-dense")


def test_a_missing_program_is_refused() -> None:
    with pytest.raises(StudyError, match=r"^no-such-program: is not installed; activate"):
        run_command("no-such-program", "--version")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no message"),
        (" \n\n", "no message"),
        ("one\n  two  \n\n", "two"),
        ("ERROR: first\nERROR: second\nadvice\n", "ERROR: second"),
        ("fatal: not a git repository\nhint: make one\n", "fatal: not a git repository"),
        ("error: params.yaml: no such file\nmore\n", "error: params.yaml: no such file"),
    ],
)
def test_the_reason_is_the_last_error_or_else_the_last_line(text: str, reason: str) -> None:
    assert _reason(text) == reason


def test_the_stages_of_a_log_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "job.out"
    log.write_text(
        "Stage 'base' didn't change, skipping\n"
        "Running stage 'overlap@3000-dense':\n> env PYTHONPATH=src python -m stages.overlap\n"
        "the words Running stage 'base': within a line\n"
        "Running stage 'train':\n"
        "Running stage 'evaluate':\n",
        encoding="utf-8",
    )
    assert stages_run(log) == ["overlap@3000-dense", "train", "evaluate"]


def test_a_log_that_is_not_there_has_no_stages(tmp_path: Path) -> None:
    assert stages_run(tmp_path / "job.out") == []


def test_a_process_is_known_by_its_number_and_its_command_line(tmp_path: Path) -> None:
    own = psutil.Process().cmdline()[0]
    assert _runs(os.getpid(), own)
    assert not _runs(os.getpid(), "exec-run")
    assert not Job("1000-dense", tmp_path / "job.out", os.getpid(), None).is_alive


def test_files_that_are_being_written_do_not_count_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    WORKERS.mkdir(parents=True)
    (WORKERS / "dvc-exp-worker-1.json").write_text('{"pid": ')
    (WORKERS / "dvc-exp-worker-2.json").touch()
    folder = JOBS / "one"
    folder.mkdir(parents=True)
    (folder / "one.run").write_text('{"name": "1000-dense"}')
    (folder / "one.json").write_text("")
    assert worker_pids() == []
    assert jobs_beside(set()) == {}

    (folder / "one.json").write_text('{"pid": 1, "returncode": 0}')
    assert jobs_beside(set()) == {"1000-dense": Job("1000-dense", folder / "one.out", 1, 0)}
    assert jobs_beside({"one"}) == {}
