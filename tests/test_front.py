"""The front door: arguments that it refuses in one line, and the package that is one of its functions."""

from __future__ import annotations

import importlib
import pickle
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.backend_bases import MouseEvent
from numpy.typing import NDArray

import fly64_dose_overlap as fdo
import tiny_scan
from fly64_dose_overlap.errors import StudyError

SMALL: dict[str, Any] = {"field_px": 30, "frame_side_px": 32, "defocus_um": 200}
NAN = float("nan")


@cache
def case() -> tuple[fdo.Scan, NDArray[np.complex64]]:
    """Return a small scan and its truth; do not change their arrays."""
    return fdo.simulate(1e3, seed=1, **SMALL)


def refusal(call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(StudyError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["simulate", "view", "thin", "train", "reconstruct", "agreement", "limit"])
def test_every_function_refuses_a_seed_that_is_none(name: str) -> None:
    given: dict[str, tuple[Any, ...]] = {
        "simulate": (1e3,),
        "view": (case()[0], 0.5),
        "thin": (case()[0], 0.5),
        "train": ("refined", case()[0], "model.safetensors"),
        "reconstruct": (case()[0], "ml"),
        "agreement": (case()[0], "ml"),
        "limit": case(),
    }
    for seed in (-1, 2**63, 1.5, NAN, "3", None, True):
        assert refusal(getattr(fdo, name), *given[name], seed=seed).startswith(
            f"{name}: seed: input should be"
        )


def test_what_is_out_of_range_or_of_another_type_is_refused_with_the_name_of_the_argument() -> None:
    scan, truth = case()
    for name, value in (
        *(("photons_per_frame", value) for value in (0, -1, NAN, np.inf, 1e30, "1e4", None, [1e4])),
        *(("field_px", value) for value in (0, "30", NAN, None)),
        ("object_kind", "moon"),
        ("frame_side_px", 33),
        ("frame_side_px", 32.0),
    ):
        assert refusal(fdo.simulate, **{**SMALL, name: value}).startswith(
            f"simulate: {name}: input should be"
        )
    for fraction in (0, -1, 2, NAN, "x", None):
        for call in (fdo.view, fdo.thin):
            assert refusal(call, scan, fraction).startswith(f"{call.__name__}: fraction: input should be")
    for wrong in (
        refusal(fdo.thin, scan, 1),
        refusal(fdo.view, scan, 0.5, group_side=3),
        refusal(fdo.limit, scan, truth, vectors=0),
        refusal(fdo.limit, scan, truth.tolist()),
        refusal(fdo.limit, None, truth),
        refusal(fdo.reconstruct, scan.counts, "ml"),
        refusal(fdo.reconstruct, scan, 3),
        refusal(fdo.reconstruct, scan, "refined", model=3),
        refusal(fdo.agreement, scan, pixel_nm=0),
        refusal(fdo.train, "refined", scan, None),
        refusal(fdo.read_scan, 3),
        refusal(fdo.score, scan, truth),
    ):
        assert ": input should be" in wrong
    assert "field_px=20000.0 and step_px=0.001 make" in refusal(fdo.simulate, field_px=2e4, step_px=1e-3)


def test_numbers_of_numpy_are_numbers() -> None:
    both: Any = ((float, 3), (np.float32, np.int64(3)))
    thinned = [fdo.thin(case()[0], kind(0.5), seed=seed) for kind, seed in both]
    np.testing.assert_array_equal(thinned[0].counts[:], thinned[1].counts[:])


def test_photons_that_are_thinned_again_are_drawn_anew() -> None:
    counts = np.random.default_rng(1).poisson(30, case()[0].counts.shape).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a probe of other power
        once = fdo.thin(replace(case()[0], counts=counts), 0.5)
        twice = fdo.thin(once, 0.5)
    first, second = (np.asarray(each.counts[:]) for each in (once, twice))
    drawn = (first - 0.5 * counts).ravel(), (second - 0.5 * first).ravel()
    assert abs(np.corrcoef(*drawn)[0, 1]) < 0.03


def test_a_truth_that_is_turned_is_warned_of_where_it_is_given() -> None:
    scan, truth = fdo.simulate(1e4, seed=1, **SMALL)
    result = fdo.reconstruct(scan, "ml", epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fdo.score(result, truth)
    better, worse = (f"truth: its own object explains the frames {word} " for word in ("better", "worse"))
    conjugate = "truth: its own object is the conjugate of what "
    for turned, call, message in (
        (truth.conj(), fdo.limit, conjugate),
        (truth.conj(), fdo.score, conjugate),
        (truth.T.copy(), fdo.score, f"{better}with base.mend.turn: .swap_positions"),
        (np.roll(truth, 10, axis=0), fdo.score, worse),
    ):
        given: Any = scan if call is fdo.limit else result
        with pytest.warns(UserWarning, match=message) as found:
            call(given, turned)
        assert found[0].filename == __file__


def test_a_setting_that_a_model_does_not_have_is_refused(tmp_path: Path) -> None:
    scan, settings = tiny_scan.scan(), tiny_scan.SETTINGS["refined"]
    model = tmp_path / "model.safetensors"
    fdo.train("refined", scan, model, **settings)
    plain = fdo.reconstruct(scan, "refined", model=model, **settings)
    np.testing.assert_array_equal(plain.obj, fdo.reconstruct(scan, "refined", model=model).obj)
    for key, own, other in (("iterations", 5, 6), ("weight", 0.4, 1.0), ("width", 4, 8)):
        message = refusal(fdo.reconstruct, scan, "refined", model=model, **{key: other})
        problem = f"{key}: the model was trained with {own}, not {other}"
        assert message == f"refined: {problem}; leave it out, or train another model"


def test_what_a_method_would_not_use_is_refused(tmp_path: Path) -> None:
    scan, truth = case()
    message = refusal(fdo.reconstruct, scan, "ml", model=tmp_path / "model.safetensors", epochs=1)
    assert message == "ml: has nothing to train and takes no model; leave model out"
    message = refusal(fdo.train, "refined", scan, tmp_path / "model.safetensors", truth=truth)
    assert message == "refined: learns without the true object; leave truth out"


def test_a_warning_names_the_line_of_the_caller() -> None:
    scan = replace(case()[0], probe=(30 * case()[0].probe).astype(np.complex64))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fdo.thin(scan, 0.5)
    assert [warning.filename for warning in found] == [__file__]


def test_masks_that_nothing_would_heed_are_refused() -> None:
    scan, truth = case()
    for name in ("counts", "probe", "positions_px", "scan_index"):
        masked = np.ma.MaskedArray(getattr(scan, name))
        message = refusal(replace, scan, **{name: masked})
        assert message == f"scan: {name} are masked, and no method heeds a mask; leave such frames out"
    message = refusal(fdo.limit, scan, np.ma.masked_array(truth, np.abs(truth) < 0.9))
    assert message == "limit: truth: is masked, and masks are not heeded; fill it"


def test_a_model_that_could_not_be_written_is_refused_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, str(tmp_path / "file" / "model"), tmp_path / "file" / "new" / "model"):
        message = refusal(fdo.train, "refined", case()[0], path)
        assert message.startswith("train: model: no file can be written there, got ")


@contextmanager
def torch_as_a_notebook_may_leave_it() -> Generator[None]:
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def test_modes_and_defaults_of_torch_change_nothing_and_stay_the_callers(tmp_path: Path) -> None:
    scan, settings = tiny_scan.scan(), tiny_scan.SETTINGS["refined"]

    def found(name: str) -> NDArray[Any]:
        model = tmp_path / name
        fdo.train("refined", scan, model, **settings)
        learned = fdo.reconstruct(scan, "refined", model=model, **settings)
        return np.stack([learned.obj, fdo.reconstruct(scan, "ml", epochs=2).obj])

    usual = found("usual.safetensors")
    with torch_as_a_notebook_may_leave_it():
        unusual = found("unusual.safetensors")
        modes = (torch.is_inference_mode_enabled(), torch.is_grad_enabled())
        assert (*modes, torch.get_default_dtype()) == (True, False, torch.float64)
        assert torch.get_default_device().type == "meta"
    np.testing.assert_array_equal(unusual, usual)


def test_rows_are_drawn_at_their_number_wherever_matplotlib_would_put_the_origin() -> None:
    scan, _ = case()
    obj = np.ones(scan.object_shape, np.complex64)
    obj[:33] = 2
    found = fdo.Result("ml", "ML", obj, scan.probe, scan.positions_px, np.zeros(1), 0.0, {}, scan, {})
    for origin in ("upper", "lower"):
        with plt.rc_context({"image.origin": origin}):
            figure = found.plot()
        panel = figure.axes[0]
        figure.draw_without_rendering()
        for row, value in ((30.5, 2), (36.5, 1)):
            place = panel.transData.transform((33.5, row))
            event = MouseEvent("motion_notify_event", figure.canvas, *place)
            assert panel.images[0].get_cursor_data(event) == value
        plt.close(figure)


def test_its_functions_can_be_sent_to_other_processes() -> None:
    for name in fdo.__all__:
        found = getattr(fdo, name)
        if name != "methods":
            assert pickle.loads(pickle.dumps(found)) == found


def test_methods_names_them_and_is_the_package_that_they_lie_in() -> None:
    import fly64_dose_overlap.methods.registry as by_statement

    by_name = importlib.import_module("fly64_dose_overlap.methods.registry")
    assert by_statement is by_name is vars(fdo.methods)["registry"]
    assert fdo.methods() == by_name.method_names()
    assert {"map", "ml", "lsqml", "refined"} <= set(fdo.methods())


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (np.s_[::-1], "y reversed"),
        (np.s_[:, ::-1], "x reversed"),
        (np.s_[::-1, ::-1], "both axes reversed"),
    ],
)
def test_a_truth_that_is_mirrored_is_told_by_the_reconstruction(turn: Any, name: str) -> None:
    """About the middle of the grid, and not about a pixel as frames are: these tell of it no more."""
    scan, truth = fdo.simulate(1e4, seed=3, field_px=40, frame_side_px=32, defocus_um=200)
    found = fdo.reconstruct(scan, "ml", epochs=10)
    with pytest.warns(UserWarning, match=f"ML fits the truth far better with {name}: a misfit of"):
        fdo.score(found, truth[turn])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fdo.score(found, truth)
