"""Results of iterations, and their last digits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import pytest
import torch

import tiny_scan
from fly64_dose_overlap.methods.base import Iteration, IterationSettings
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.posterior import Graduated
from fly64_dose_overlap.methods.state import Result, State
from fly64_dose_overlap.scan import Scan

TRUTH = torch.from_numpy(tiny_scan.truth())
BEST = 4


class Mixtures(Iteration):
    """The truth mixed with an empty object: best in the fourth epoch, in one buffer."""

    name = "mixtures"
    label = "mix"

    def __init__(self, epochs: int) -> None:
        super().__init__(IterationSettings(epochs=epochs))
        self.runs: list[tuple[float, int, int]] = []

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        number = len(self.runs)
        obj = torch.ones_like(TRUTH)
        epoch = 0
        while True:
            epoch += 1
            self.runs[number:] = [(float(scan.counts[:].sum()), seed, epoch)]
            obj.copy_(1 + (epoch / BEST) * (TRUTH - 1))
            yield State(obj)


def test_the_fixed_stop_and_that_of_held_out_photons() -> None:
    method = Mixtures(12)
    fixed, held_out = method.results(tiny_scan.scan(), HeldOut(0.25, 3, seed=5))
    assert (fixed.name, fixed.label, fixed.kind) == ("mixtures", "mix", "iterative")
    assert (held_out.name, held_out.label) == ("mixtures_held_out", "mix held-out")
    assert torch.equal(fixed.state.obj, 1 + (12 / BEST) * (TRUTH - 1))
    assert torch.equal(held_out.state.obj, 1 + (TRUTH - 1))
    common = {"held_out_fraction": 0.25, "held_out_epoch": BEST, "seed": 5}
    assert fixed.settings == {"epochs": 12, "stop": "fixed", **common}
    assert held_out.settings == {"epochs": BEST, "stop": "held-out photons", **common}
    assert fixed.loss == held_out.loss
    assert min(fixed.loss) == fixed.loss[BEST - 1]
    photons = float(tiny_scan.scan().counts[:].sum())
    (chosen_on, *choosing), (run_on, *running) = method.runs
    assert chosen_on == pytest.approx(0.75 * photons, rel=0.01)
    assert choosing == [5, BEST + 3]
    assert (run_on, *running) == (photons, 5, 12)
    assert held_out.timing.cpu_seconds >= fixed.timing.cpu_seconds * BEST / 12


def test_the_last_epoch_may_be_the_best() -> None:
    fixed, held_out = Mixtures(2).results(tiny_scan.scan(), HeldOut(0.25, 3, seed=5))
    assert torch.equal(fixed.state.obj, held_out.state.obj)
    assert held_out.settings["epochs"] == 2
    assert len(held_out.loss) == 2


@pytest.mark.parametrize("name", ["ml", "lsqml", "rpie"])
def test_a_method_gives_both_results(name: str) -> None:
    found = list(tiny_scan.method(name, epochs=3).results(tiny_scan.scan(), HeldOut(seed=1)))
    assert [each.name for each in found] == [name, f"{name}_held_out"]
    assert all(each.state.obj.shape == tiny_scan.scan().object_shape for each in found)
    assert all(math.isfinite(loss) for each in found for loss in each.loss)


@pytest.mark.parametrize("name", ["lsqml", "raar"])
def test_runs_side_by_side_give_the_bytes_of_one_after_the_other(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[Result]] = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        method = tiny_scan.method(name, epochs=6)
        found.append(list(method.results(tiny_scan.scan(), HeldOut(0.1, 2, seed=1))))
    for one, two in zip(*found, strict=True):
        assert torch.equal(one.state.obj, two.state.obj)
        assert (one.loss, one.settings) == (two.loss, two.settings)
        assert one.timing.cpu_seconds > 0 < two.timing.cpu_seconds


def test_ml_is_graduated_without_a_prior() -> None:
    states = list(islice(tiny_scan.method("ml", epochs=5).run(tiny_scan.scan(), 1), 7))
    objects = list(islice(Graduated(0.0, 5)(tiny_scan.scan()), 7))
    assert torch.equal(states[-1].obj, objects[-1])


def test_one_thread_and_two_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bytes] = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        states = tiny_scan.method("ml", epochs=6).run(tiny_scan.scan(), 1)
        found.append(next(islice(states, 5, None)).obj.numpy().tobytes())
    assert found[0] == found[1]
