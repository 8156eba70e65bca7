"""Pictures: the right panels, one scale per column, the same bytes each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from fly64_dose_overlap.arrays import spool
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.report import picture
from fly64_dose_overlap.report.picture import comparison_picture, frc_picture
from fly64_dose_overlap.scores.frc import FrcCurve, fourier_ring_correlation
from fly64_dose_overlap.scores.region import Region, scan_region

Complex = NDArray[np.complex128]


@pytest.fixture(scope="module")
def truth() -> Complex:
    y, x = np.mgrid[:40, :60]
    return (0.8 + 0.2 * np.sin(x / 3)) * np.exp(0.5j * np.cos(y / 4))


@pytest.fixture(scope="module")
def region() -> Region:
    illumination = np.ones((40, 60))
    illumination[20:24, 30:36] = 0
    return scan_region(illumination, np.array([[4.0, 6.0], [35.0, 55.0]]), 0.1)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the figures that are saved."""
    figures: list[Any] = []
    original = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        original(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def _is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_comparison_has_truth_first_and_one_scale_per_column(
    truth: Complex, region: Region, tmp_path: Path, drawn: list[Any]
) -> None:
    path = tmp_path / "new" / "comparison.png"
    methods = {"network": 0.9 * truth * np.exp(0.1j), "flat": np.ones_like(truth)}
    comparison_picture(path, truth, methods, region, title="cell", captions={"network": "21.0 dB"})
    assert _is_png(path)
    assert [p.name for p in path.parent.iterdir()] == ["comparison.png"]
    axes = np.reshape([a for a in drawn[0].axes if a.images], (3, 3))
    assert [a.get_ylabel() for a in axes[:, 0]] == ["truth", "network\n21.0 dB", "flat"]
    amplitude = np.abs(truth[region.mask])
    for column, expected in zip(
        axes.T, [(amplitude.min(), amplitude.max()), (None, None), (-0.5, 0.5)], strict=True
    ):
        limits = {a.images[0].get_clim() for a in column}
        assert len(limits) == 1
        if expected[0] is not None:
            assert limits.pop() == pytest.approx(expected, abs=5e-3)
    shown = axes[1, 2].images[0].get_array()
    assert shown.shape == region.shape
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), ~region.mask[region.rectangle])
    np.testing.assert_allclose(shown.compressed(), 0.1)


@pytest.mark.parametrize("count", [1, 6, 13])
@pytest.mark.parametrize("shape", [(24, 96), (30, 90), (60, 60), (90, 30)])
def test_nothing_is_cut_off_or_drawn_over(
    count: int, shape: tuple[int, int], tmp_path: Path, drawn: list[Any]
) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]]
    truth = (0.8 + 0.2 * np.sin(x / 3)) * np.exp(0.5j * np.cos(y / 4))
    region = scan_region(np.ones(shape), np.array([[1.0, 1.0], [shape[0] - 2.0, shape[1] - 2.0]]), 0.1)
    methods = {f"a method of a long name {i}": truth for i in range(count)}
    notes = dict.fromkeys(methods, "28.79 dB\nNRMSE 0.0367")
    title = "10000 photons per frame, view dense\nbelow each name: phase PSNR"
    comparison_picture(tmp_path / "a.png", truth, methods, region, title=title, captions=notes, pixel_nm=57.2)
    (figure,) = drawn
    images = [axis for axis in figure.axes if axis.images]
    bars = [axis for axis in figure.axes if not axis.images]
    texts = [*figure.texts, *(axis.yaxis.label for axis in images[::3]), *(axis.xaxis.label for axis in bars)]
    for axis in bars:
        low, high = axis.get_xlim()
        ticks = zip(axis.get_xticks(), axis.get_xticklabels(), strict=True)
        texts += [label for x, label in ticks if low <= x <= high]
    texts.append(images[2].artists[0].txt_label)
    boxes = [text.get_window_extent() for text in texts if text.get_visible()]
    inside = figure.bbox
    for number, box in enumerate(boxes):
        assert (box.x0, box.y0) >= (0, 0), texts[number]
        assert box.x1 <= inside.x1, texts[number]
        assert box.y1 <= inside.y1, texts[number]
        assert box.count_overlaps([*boxes[:number], *boxes[number + 1 :]]) == 0, texts[number]
        assert box.count_overlaps([axis.get_window_extent() for axis in (*images[:2], *images[3:])]) == 0
    lowest, below = images[-1].get_window_extent(), bars[0].get_window_extent()
    assert 0 < lowest.y0 - below.y1 < 60, "no band without anything"


def test_same_arrays_give_the_same_bytes(truth: Complex, region: Region, tmp_path: Path) -> None:
    curve = fourier_ring_correlation(truth, truth + 0.1 * truth**2)
    written: list[bytes] = []
    for name in ("a", "b"):
        comparison_picture(tmp_path / name, truth, {"flat": np.ones_like(truth)}, region, title="cell")
        frc_picture(tmp_path / f"{name}.frc", {"network": curve}, title="cell")
        written.append((tmp_path / name).read_bytes() + (tmp_path / f"{name}.frc").read_bytes())
    assert written[0] == written[1]
    assert b"matplotlib" not in written[0].lower()
    assert b"tIME" not in written[0]


def test_fields_may_lie_on_disk(truth: Complex, region: Region, tmp_path: Path) -> None:
    noisy = truth * np.exp(0.1j)
    comparison_picture(tmp_path / "a.png", truth, {"noisy": noisy}, region, title="cell")
    on_disk = spool(noisy.shape, noisy.dtype, [noisy])
    comparison_picture(tmp_path / "b.png", truth, {"noisy": on_disk}, region, title="cell")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_large_field_is_thinned_out(
    truth: Complex, region: Region, tmp_path: Path, drawn: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "MOST_PIXELS", 20)
    comparison_picture(tmp_path / "a.png", truth, {"same": truth}, region, title="cell")
    rows, columns = region.shape
    shown = drawn[0].axes[0].images[0].get_array()
    assert shown.shape == (-(-rows // 3), -(-columns // 3))
    np.testing.assert_array_equal(shown.mask, ~region.mask[region.rectangle][::3, ::3])


def test_constant_truth_can_be_drawn(region: Region, tmp_path: Path) -> None:
    flat = np.ones((40, 60), dtype=np.complex64)
    comparison_picture(tmp_path / "flat.png", flat, {"same": flat}, region, title="flat")
    assert _is_png(tmp_path / "flat.png")


def test_frc_picture_draws_curves_and_thresholds(truth: Complex, tmp_path: Path, drawn: list[Any]) -> None:
    curve = fourier_ring_correlation(truth, truth)
    frc_picture(tmp_path / "frc.png", {"network": curve, "iterative": curve}, title="FRC")
    assert _is_png(tmp_path / "frc.png")
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    assert list(lines) == ["network", "iterative", "0.5", "half-bit", "1/7"]
    np.testing.assert_allclose(lines["half-bit"].get_ydata(), curve.threshold("half-bit"))
    np.testing.assert_allclose(lines["network"].get_xdata(), 2 * curve.frequency)


def test_bad_input_is_refused_and_nothing_is_written(truth: Complex, region: Region, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    for methods, captions, message in [
        ({}, {}, "needs at least one method, got none"),
        ({"truth": truth}, {}, "no method may be called 'truth'"),
        ({"a": truth[1:]}, {}, r"a: must have the region's shape \(40, 60\), got \(39, 60\)"),
        ({"a": truth}, {"b": "1 dB"}, "captions for no method: b"),
    ]:
        with pytest.raises(StudyError, match=message):
            comparison_picture(path, truth, methods, region, title="", captions=captions)
    with pytest.raises(StudyError, match="needs at least one curve, got none"):
        frc_picture(path, {}, title="")
    long, short = (FrcCurve(np.arange(1, n) / 2 / n, np.ones(n - 1), np.ones(n - 1)) for n in (9, 5))
    with pytest.raises(StudyError, match="curves must share their rings, got 4 of 'b' and 8"):
        frc_picture(path, {"a": long, "b": short}, title="")
    assert list(tmp_path.iterdir()) == []


def test_scale_bar_has_a_round_length_in_micrometres(
    truth: Complex, region: Region, tmp_path: Path, drawn: list[Any]
) -> None:
    comparison_picture(tmp_path / "a.png", truth, {"same": truth}, region, title="cell", pixel_nm=57.2)
    bar = drawn[0].axes[2].artists[0]
    assert bar.txt_label.get_text() == "500 nm"
    assert bar.size_bar.get_children()[0].get_width() == pytest.approx(500 / 57.2)


def test_colours_are_those_of_the_colour_bar(truth: Complex, region: Region, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    comparison_picture(path, truth, {"same": truth}, region, title="cell")
    with Image.open(path) as image:
        assert image.mode == "RGBA"
