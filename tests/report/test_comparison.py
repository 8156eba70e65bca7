"""The files and the table of one evaluated cell."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import factories
import tiny_scan
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.report import comparison
from fly64_dose_overlap.report.comparison import print_table, write_report
from fly64_dose_overlap.scores.catalogue import (
    AMPLITUDE_PSNR,
    COMPLEX_NRMSE,
    DOSE_EFFICIENCY,
    FRC50,
    PHASE_PSNR,
    PHASE_SSIM,
)
from fly64_dose_overlap.scores.evaluation import Evaluation, evaluate
from made_reconstructions import DOSE, NAMES, limit_of, reconstructions

TITLE = "10000 photons per frame, view dense"
FLAT = NAMES["flat_object"]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    params = factories.study_params().evaluate
    return evaluate(
        tiny_scan.scan(), tiny_scan.truth(), reconstructions(), params, limit=limit_of(), dose=DOSE
    )


@pytest.fixture(scope="module")
def folder(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    picture = write_report(
        evaluation,
        tiny_scan.truth(),
        limit_of(),
        DOSE,
        TITLE,
        metrics_dir=root / "metrics",
        reports_dir=root / "reports",
    )
    assert picture == root / "reports/comparison.png"
    return root


def test_all_files_are_there(folder: Path) -> None:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "metrics/evaluation.json",
        "metrics/frc.csv",
        "reports/comparison.png",
        "reports/frc.png",
        "reports/reconstruction.npz",
    }
    for name in ("comparison", "frc"):
        assert (folder / f"reports/{name}.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_scores_are_those_of_the_evaluation(folder: Path, evaluation: Evaluation) -> None:
    text = (folder / "metrics/evaluation.json").read_text()
    assert json.loads(text) == evaluation.metrics
    assert "NaN" not in text
    assert "Infinity" not in text


def test_curves_have_a_column_for_each_method(folder: Path, evaluation: Evaluation) -> None:
    with (folder / "metrics/frc.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["nyquist_fraction", "half_bit", "limit", *NAMES]
    curve = evaluation.curves["lsqml_held_out"]
    assert len(rows) == len(curve.frc)
    np.testing.assert_allclose([float(row["lsqml_held_out"]) for row in rows], curve.frc, atol=1e-6)
    np.testing.assert_allclose([float(row["limit"]) for row in rows], limit_of().frc(DOSE), atol=1e-6)
    np.testing.assert_allclose(
        [float(row["nyquist_fraction"]) for row in rows], curve.nyquist_fraction, atol=1e-6
    )


def test_reconstructions_are_kept_as_aligned(folder: Path, evaluation: Evaluation) -> None:
    with NpzReader(folder / "reports/reconstruction.npz") as reader:
        aligned = [f"{name}_aligned" for name in NAMES]
        maps = [f"{name}_{part}" for name in NAMES for part in ("by_frame", "by_pixel")]
        others = ["_metadata", "frames", "objectGuess", "positions_px", "region"]
        assert sorted(reader) == sorted([*others, *aligned, *maps])
        for key in NAMES:
            expected = evaluation.aligned[key][:].astype(np.complex64)
            assert np.array_equal(reader.load(f"{key}_aligned"), expected)
        assert np.array_equal(reader.load("region"), evaluation.region.mask)


def test_a_pipe_is_as_wide_as_the_table_where_colours_are_forced(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_table(evaluation.metrics, TITLE)
    printed = capsys.readouterr().out
    assert "…" not in printed


def test_the_table_fits_a_narrow_terminal(evaluation: Evaluation, capsys: pytest.CaptureFixture[str]) -> None:
    of_halves = {name: {**each, "halves": {}} for name, each in evaluation.metrics["methods"].items()}
    conventions = {**evaluation.metrics["conventions"], "frames": "measured"}
    measured = {**evaluation.metrics, "methods": of_halves, "conventions": conventions}
    for metrics, most in ((evaluation.metrics, 80), (measured, 100)):
        print_table(metrics, TITLE)
        printed = capsys.readouterr().out
        table = printed[: printed.index("All frames")].splitlines()
        assert len(table) > len(NAMES)
        assert max(map(len, table)) <= most
        for word in ("amplitude", "(Nyquist)", *NAMES.values()):
            assert word in printed


def test_rows_are_in_the_order_of_the_report(
    evaluation: Evaluation,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    methods = evaluation.metrics["methods"]
    order = sorted(methods, key=lambda name: -methods[name]["phase"]["psnr_db"])
    print_table(evaluation.metrics, TITLE)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("│")[0].strip() for line in lines if "│" in line][: len(order)] == order
    drawn: list[str] = []
    monkeypatch.setattr(comparison, "comparison_picture", lambda *a, **k: drawn.extend([*a[2], k["title"]]))
    where = {"metrics_dir": tmp_path, "reports_dir": tmp_path}
    write_report(evaluation, tiny_scan.truth(), limit_of(), DOSE, TITLE, **where)
    *rows, title = drawn
    assert rows == [name for name in order if name in rows]
    assert title == f"{TITLE}\nbelow each name: phase PSNR, and complex NRMSE"


def test_table_has_all_methods_and_columns(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table(evaluation.metrics, TITLE)
    printed = capsys.readouterr().out
    assert TITLE in printed
    for name in (*NAMES.values(), "limit", "limit with prior"):
        assert name in printed
    shown = (PHASE_PSNR, AMPLITUDE_PSNR, PHASE_SSIM, COMPLEX_NRMSE, FRC50, DOSE_EFFICIENCY)
    for word in " ".join(score.name for score in shown).split():
        assert word in printed
    flat = evaluation.metrics["methods"][FLAT]
    assert f"{flat['phase']['psnr_db']:.2f}" in printed
    assert f"{flat['complex_nrmse']:.4f}" in printed
    assert (
        f"All frames, which networks were trained on too. Region: {evaluation.region.pixels:,} pixels"
        in printed
    )
    assert "the truth's own range" in printed


def test_a_score_that_does_not_exist_is_a_dash(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = evaluation.metrics["methods"][FLAT]
    without = {**flat, "phase": dict.fromkeys(flat["phase"])}
    metrics = {**evaluation.metrics, "methods": {FLAT: without}}
    print_table(metrics, TITLE)
    row = next(line for line in capsys.readouterr().out.splitlines() if FLAT in line)
    assert row.replace("│", " ").split().count("-") == 2
