"""Commands that fail say why in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fly64_dose_overlap import commands
from fly64_dose_overlap.commands import become_command, reason_in, run_command
from fly64_dose_overlap.errors import StudyError

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


def test_a_missing_program_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudyError, match=r"^no-such-program: is not installed; install it$"):
        run_command("no-such-program", "--version")
    monkeypatch.setattr(commands, "activated", lambda: {"PATH": ""})
    with pytest.raises(StudyError, match=r"^dvc: is not installed; activate the project's environment$"):
        run_command("dvc", "--version")


def test_text_in_another_encoding_is_told_byte_by_byte() -> None:
    code = r"import sys; sys.stdout.buffer.write(b'caf\xe9, caf\xc3\xa9')"
    assert run_command(sys.executable, "-c", code) == r"caf\xe9, café"


def test_the_variables_of_a_hook_lead_into_no_other_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("study", "other"):
        run_command("git", "init", "--quiet", str(tmp_path / name))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    found = run_command("git", "rev-parse", "--absolute-git-dir", root=tmp_path / "study")
    assert Path(found.strip()) == tmp_path.resolve() / "study/.git"


def test_a_command_may_take_over_the_process() -> None:
    code = "from fly64_dose_overlap.commands import become_command; become_command('git', '--version')"
    assert run_command(sys.executable, "-c", code).startswith("git version")
    with pytest.raises(StudyError, match=r"^no-such-program: is not installed; install it$"):
        become_command("no-such-program")


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
    assert reason_in(text) == reason
