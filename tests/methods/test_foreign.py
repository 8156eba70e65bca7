"""Methods that others write: what they may do to a scan, and what they may give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fly64_dose_overlap as fdo
from fly64_dose_overlap.config import Section
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.learning.training import Training
from fly64_dose_overlap.methods.base import Iteration, IterationSettings, Learned, Method
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.run import run_method
from fly64_dose_overlap.methods.state import Result, State
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.timing import Timing

STOP = HeldOut(seed=4)
loose: Any = State
"""A state of whatever somebody puts into it."""
Run = Callable[[Scan], Any]


@cache
def small() -> Scan:
    """Return a small scan with groups; do not change its arrays."""
    return fdo.view(fdo.simulate(1e3, seed=1, field_px=30, frame_side_px=32, defocus_um=200)[0], 1)


def flat(scan: Scan) -> torch.Tensor:
    return torch.ones(scan.object_shape, dtype=torch.complex64)


class Whatever(Method):
    """Gives what a function makes of a scan."""

    name = "whatever"
    label = "Whatever"
    kind = "iterative"

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        return self._run(scan)


class Epochs(Iteration):
    """The same, epoch by epoch."""

    name = "epochs"
    label = "Epochs"

    def __init__(self, run: Run) -> None:
        super().__init__(IterationSettings(epochs=3))
        self._run = run

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        return self._run(scan)


class Results(Whatever):
    """Gives results of its own."""

    def results(self, scan: Scan, stop: HeldOut) -> Iterator[Result]:
        yield from self._run(scan)


def refusal(method: Method) -> str:
    with pytest.raises(StudyError) as caught:
        list(run_method(method, small(), STOP))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def overwritten(scan: Scan) -> Iterator[State]:
    """Overwrite all that a method is given."""
    model = scan.model
    torch.from_numpy(scan.counts[:8]).zero_()
    model.probe.mul_(3)
    for array in (scan.probe, scan.positions_px, scan.scan_index, scan.groups):
        assert array is not None
        array[:] = 0
    scan.record["creation_info"]["script"] = "mine"
    obj = flat(scan)
    while True:
        yield State(obj)


def test_a_method_cannot_change_the_scan_of_its_caller(tmp_path: Path) -> None:
    scan = replace(small(), record=deepcopy(small().record))
    before = deepcopy({key: value for key, value in vars(scan).items() if key != "model"})

    class Student(Learned):
        name = label = "student"

        def train(self, scan: Scan, training: Training, truth: Any = None) -> tuple[dict[str, Any], Timing]:
            next(overwritten(scan))
            truth[:] = 0
            training.bundle.touch()
            return {"sha256": ""}, Timing()

        def load_model(self, bundle: Path) -> None: ...

        def run(self, scan: Scan, seed: int) -> Iterator[State]:
            yield next(overwritten(scan))

    student, truth = Student(), np.ones(scan.object_shape, np.complex64)
    student.trained(scan, Training(1, tmp_path / "model"), truth)
    for method in (Epochs(overwritten), Whatever(lambda scan: [next(overwritten(scan))]), student):
        found = [reconstruction for reconstruction, _ in run_method(method, scan, STOP)]
        np.testing.assert_array_equal(found[0].positions_px, scan.positions_px)
    for key, value in before.items():
        np.testing.assert_array_equal(getattr(scan, key), value)
    assert truth.all()


@pytest.mark.parametrize("kind", [Whatever, Epochs])
@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda scan: loose(flat(scan)[:1]),
            r"obj of a state must be a Tensor of torch.complex64 \(\d+, \d+\), got",
        ),
        (lambda scan: loose(flat(scan)[0, 0]), r"must be a Tensor .*, got Tensor of torch.complex64 \(\)"),
        (
            lambda scan: loose(flat(scan).numpy()),
            "obj of a state must be a Tensor .*, got ndarray of complex64",
        ),
        (lambda scan: loose(flat(scan).real), "got Tensor of torch.float32"),
        (lambda scan: loose(flat(scan).to(torch.complex128)), "got Tensor of torch.complex128"),
        (lambda scan: loose(None), "obj of a state must be a Tensor .*, got NoneType"),
        (lambda scan: loose(flat(scan), scan.probe), "probe of a state must be a Tensor .*, got ndarray"),
        (lambda scan: loose(flat(scan), torch.from_numpy(scan.probe[0])), r"the probe .* \(1, 32, 32\), got"),
        (
            lambda scan: loose(flat(scan), None, torch.from_numpy(scan.positions_px)),
            r"the positions_px of a state must be a ndarray of float64 \(49, 2\), got Tensor",
        ),
        (
            lambda scan: loose(flat(scan), None, scan.positions_px[1:]),
            r"positions_px .*got ndarray .*\(48, 2\)",
        ),
        (lambda scan: flat(scan), "run must yield State, got Tensor of torch.complex64"),
        (lambda scan: None, "run must yield State, got NoneType"),
    ],
)
def test_a_state_that_does_not_fit_the_scan_is_refused(kind: type[Any], run: Run, message: str) -> None:
    label = kind.label
    assert refusal(kind(lambda scan: iter([run(scan)] * 9))).startswith(f"{label}: ")
    with pytest.raises(StudyError, match=message):
        list(run_method(kind(lambda scan: iter([run(scan)] * 9)), small(), STOP))


def test_a_run_that_yields_nothing_or_stops_early_is_refused() -> None:
    for nothing in (None, [], 3, State(flat(small()))):
        assert refusal(Whatever(lambda _, given=nothing: given)).startswith(
            "Whatever: run yields no state; it must"
        )
        assert refusal(Epochs(lambda _, given=nothing: given)).startswith(
            "Epochs: run ended before all epochs"
        )
    assert "run ended before" in refusal(Epochs(lambda scan: [State(flat(scan))] * 2))
    assert refusal(Results(lambda _: [])) == "Whatever: gives no result"


def test_what_is_not_finite_is_refused() -> None:
    for bad in (np.nan, np.inf):
        probe = torch.from_numpy(bad * small().probe)
        for name, given in (
            ("object", lambda scan, bad=bad: State(bad * flat(scan))),
            ("probe", lambda scan, probe=probe: State(flat(scan), probe)),
            ("list of positions", lambda scan, bad=bad: State(flat(scan), None, bad * scan.positions_px)),
        ):
            assert refusal(Whatever(lambda scan, given=given: [given(scan)])).startswith(
                f"Whatever: the {name} is not finite; do probe and counts belong together?"
            )


def test_a_result_that_does_not_fit_is_refused() -> None:
    def given(**changes: Any) -> Run:
        def results(scan: Scan) -> list[Any]:
            result = Result("whatever", "Whatever", "iterative", State(flat(scan)), {}, (1.0,))
            return [replace(result, **changes)]

        return results

    assert len(list(run_method(Results(given()), small(), STOP))) == 1
    for changes, message in (
        ({"name": "What ever"}, "'What ever' is no name of a method"),
        ({"label": None}, "must be one line of text, got None"),
        ({"kind": "magic"}, "kind must be one of learned, iterative, reference, got 'magic'"),
        ({"settings": {"path": Path()}}, "settings must be JSON"),
        ({"settings": None}, "settings must be a mapping, got NoneType"),
        ({"loss": (np.nan,)}, "'loss' has NaN or infinite values"),
        ({"loss": 3.0}, "'loss' must hold real numbers with one axis"),
        ({"state": State(flat(small())[:2])}, "obj of a state must be a Tensor"),
        ({"state": State(np.nan * flat(small().cropped()[0]))}, "the object is not finite"),
        ({"state": None}, "run must yield State, got NoneType"),
    ):
        assert message in refusal(Results(given(**changes)))
    assert refusal(Results(lambda _: [3])) == "Whatever: results must yield Result, got int"


def test_tensors_with_a_gradient_or_a_pending_conjugation_will_do() -> None:
    def run(scan: Scan) -> Iterator[State]:
        obj = (2j * flat(scan)).requires_grad_()
        while True:
            yield State(obj.conj(), torch.from_numpy(scan.probe).requires_grad_())

    for method in (Whatever(lambda scan: [next(run(scan))]), Epochs(run)):
        found, _ = next(run_method(method, small(), STOP))
        assert np.all(found.obj[found.obj != 1] == -2j)


def test_a_method_may_refine_all_in_place() -> None:
    """Each result keeps the probe and the positions of its own epoch."""

    def run(scan: Scan) -> Iterator[State]:
        probe, positions = torch.from_numpy(scan.probe), scan.positions_px
        while True:
            probe *= 1.1
            positions += 0.01
            yield State(flat(scan), probe, positions)

    (fixed, _), (held_out, _) = run_method(Epochs(run), small(), STOP)
    assert (fixed.settings["epochs"], held_out.settings["stop"]) == (3, "held-out photons")
    for found in (fixed, held_out):
        epochs = found.settings["epochs"]
        np.testing.assert_allclose(found.probe, small().probe * 1.1**epochs, rtol=1e-5)
        np.testing.assert_allclose(found.positions_px, small().positions_px + 0.01 * epochs, rtol=1e-9)


def test_settings_may_have_any_name() -> None:
    class Named(Whatever):
        class Settings(Section):
            """Settings with the names of what a record has."""

            record: int = 1
            tool: int = 2
            operation: int = 3

    ((found, _),) = run_method(Named(lambda scan: [State(flat(scan))]), small(), STOP)
    assert found.settings == {"record": 1, "tool": 2, "operation": 3, "seed": 4}


def test_a_training_that_gives_something_else_is_refused(tmp_path: Path) -> None:
    class Student(Learned):
        name = label = "student"
        given: Any = None

        def train(self, scan: Scan, training: Training, truth: Any = None) -> Any:
            if self.given != ({"sha256": "0"}, Timing()):
                training.bundle.touch()
            return self.given

        def load_model(self, bundle: Path) -> None: ...

        def run(self, scan: Scan, seed: int) -> Iterator[State]:
            raise NotImplementedError

    for given in (({"sha256": "0"}, Timing()), None, {}, ({}, Timing()), ({"sha256": "0"}, 3.0)):
        student = Student()
        student.given = given
        with pytest.raises(
            StudyError, match=r"^student: train must write .*model and return outcome and Timing"
        ):
            student.trained(small(), Training(1, tmp_path / "model"))
