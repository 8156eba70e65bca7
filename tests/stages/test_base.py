"""Stage base, and what the command lines of all stages have in common."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import fly64_dose_overlap as fdo
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import read_json, sha256_of
from fly64_dose_overlap.files.dataset import read_base
from fly64_dose_overlap.pipeline.cells import BASE_FILE, BASE_METRICS
from fly64_dose_overlap.pipeline.stages import base
from fly64_dose_overlap.pipeline.stages._cli import command, require_listed
from tiny_study import ROOT, write_params


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_stage(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    line = [sys.executable, "-m", f"fly64_dose_overlap.pipeline.stages.{name}", *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


def exit_code_of(main: Callable[..., None]) -> int:
    """Run a stage's main as a command line without arguments."""
    with pytest.raises(SystemExit) as ended:
        command(main)([])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def write_user_base(path: Path) -> None:
    rng = np.random.default_rng(2)
    np.savez(
        path,
        objectGuess=np.exp(1j * rng.uniform(-1, 1, (40, 40))).astype(np.complex64),
        probeGuess=np.ones((16, 16), np.complex64),
        xcoords=rng.uniform(10, 30, 9),
        ycoords=rng.uniform(10, 30, 9),
    )


def test_the_synthetic_set_is_written_twice_with_the_same_bytes(tmp_path: Path) -> None:
    base.main(write_params(tmp_path))
    first = BASE_FILE.read_bytes()
    base.main(tmp_path / "params.yaml")
    assert BASE_FILE.read_bytes() == first
    written = read_base(BASE_FILE)
    assert written.probe.shape == (1, 32, 32)
    assert len(written.positions_px) == 13 * 13


def test_a_users_file_is_imported_and_said_to_be_unwatched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_user_base(tmp_path / "mine.npz")
    base.main(write_params(tmp_path, base={"source": "mine.npz"}))
    assert len(read_base(BASE_FILE).positions_px) == 9
    digest = sha256_of(tmp_path / "mine.npz")
    assert read_json(BASE_METRICS) == {"source": "mine.npz", "sha256": digest}
    said = capsys.readouterr().err
    assert "DVC does not watch mine.npz; when its content changes, run: dvc repro -f base" in said
    lacking = (
        "base: reconstructions get no product for ptychodus: mine.npz: the provenance has no object_pixel_m"
    )
    assert said.count(lacking) == 1


def test_what_speaks_against_a_users_file_is_warned_of(tmp_path: Path) -> None:
    scan, truth = fdo.simulate(
        1e5, seed=1, object_kind="texture", field_px=30, frame_side_px=32, defocus_um=200
    )
    y, x = scan.positions_px.T
    good = {"objectGuess": truth / np.abs(truth).max(), "probeGuess": scan.probe, "xcoords": x, "ycoords": y}
    frames = {"counts": scan.counts}
    shifted = np.fft.fftshift(scan.probe, axes=(1, 2))
    cases: dict[str, dict[str, Any]] = {
        "": {**good, **frames, "probeGuess": 1e-3 * scan.probe},
        "mine.npz: its own object explains the frames better with base.mend.turn: [swap_positions]": {
            **good,
            **frames,
            "xcoords": y,
            "ycoords": x,
        },
        "mine.npz: the probe's power lies at the edge": {**good, "probeGuess": shifted},
        "mine.npz: the object's modulus reaches 2.99": {**good, "objectGuess": 3 * good["objectGuess"]},
    }
    params = write_params(tmp_path, base={"source": "mine.npz"})
    for wanted, arrays in cases.items():
        np.savez(tmp_path / "mine.npz", **arrays)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            base.main(params)
        said = [str(each.message) for each in found]
        assert any(each.startswith(wanted) for each in said) if wanted else said == [], (wanted, said)


@pytest.mark.parametrize("source", ["synthetic", "star-bench"])
def test_a_set_of_our_own_has_all_that_a_product_for_ptychodus_needs(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base.main(write_params(tmp_path, base={"source": source}))
    assert "ptychodus" not in capsys.readouterr().err


def test_a_missing_file_is_one_line_and_status_1(tmp_path: Path) -> None:
    write_params(tmp_path, base={"source": "no/such.npz"})
    result = run_stage("base")
    assert result.returncode == 1
    assert result.stderr.startswith("error: Base dataset not found: no/such.npz; ")
    assert result.stderr.count("\n") == 1
    assert not BASE_FILE.exists()


def test_a_usage_error_is_status_2() -> None:
    result = CliRunner().invoke(command(base.main), ["--no-such-option"])
    assert result.exit_code == 2
    assert "No such option" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_refusal_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise StudyError("here", "a rule\nis broken", "mend it")

    assert exit_code_of(main) == 1
    assert capsys.readouterr().err == "error: here: a rule is broken; mend it\n"


def test_an_interrupt_says_that_the_command_can_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    assert exit_code_of(main) == 130
    error = capsys.readouterr().err
    assert "the same command can be repeated" in error
    assert error.count("\n") == 1


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise OSError(28, "No space left on device")

    assert exit_code_of(main) == 1
    assert capsys.readouterr().err.startswith("error: disk: No space left on device; free some space")


@pytest.mark.parametrize("bug", [KeyError("x"), ValueError("x"), OSError(2, "no such file")])
def test_a_bug_keeps_its_traceback(bug: Exception) -> None:
    def main() -> None:
        raise bug

    with pytest.raises(type(bug)) as raised:
        command(main)([])
    assert raised.value is bug


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        warnings.warn("fewer groups\nthan wanted", stacklevel=1)

    assert exit_code_of(main) == 0
    assert capsys.readouterr().err == "warning: fewer groups than wanted\n"


def test_code_of_another_checkout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "src" / "fly64_dose_overlap").mkdir(parents=True)
    assert exit_code_of(lambda: None) == 1
    error = capsys.readouterr().err
    assert "src/fly64_dose_overlap: is not the code that would run" in error
    assert "repeat with: env PYTHONPATH=src" in error


@pytest.mark.parametrize(("limit_mib", "status"), [(512, 1), (1024, 0)])
def test_an_address_space_in_which_libraries_hang_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], limit_mib: int, status: int
) -> None:
    limits = (limit_mib * 2**20, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)  # pyright: ignore[reportUnknownLambdaType]
    assert exit_code_of(lambda: None) == status
    refused = "error: memory: the address space is limited to 512 MiB, 1024 are needed; raise the limit"
    assert capsys.readouterr().err.startswith(refused if status else "")


def test_a_dose_must_be_listed() -> None:
    require_listed(1000, [1000, 10000])
    with pytest.raises(
        StudyError, match=r"--dose: 3000 is not among doses \[1000, 10000\] of the parameters"
    ):
        require_listed(3000, [1000, 10000])


def test_help_needs_neither_torch_nor_scipy() -> None:
    code = (
        "import importlib, sys\n"
        "for stage in ('base', 'expose', 'overlap'):\n"
        "    sys.argv = [stage, '--help']\n"
        "    module = importlib.import_module(f'fly64_dose_overlap.pipeline.stages.{stage}')\n"
        "    try: module.run(module.main)\n"
        "    except SystemExit as end: assert not end.code\n"
        "    print(stage, 'imports', sorted({'torch', 'scipy'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("--params FILE") == 3
    for stage in ("base", "expose", "overlap"):
        assert f"{stage} imports []" in result.stdout
