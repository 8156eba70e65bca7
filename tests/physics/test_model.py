"""The forward model of a whole scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fly64_dose_overlap.physics.fluence import fluence_map
from fly64_dose_overlap.physics.propagation import uncentre
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.study.base import make_synthetic_base
from fly64_dose_overlap.study.dose import expected_intensity
from tiny_scan import scan_dataset


def complex_normal(*shape: int, seed: int) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=(*shape, 2))
    return torch.view_as_complex(torch.from_numpy(values))


def model_of(**changes: Any) -> ScanModel:
    """Return five frames of a 20 x 26 object: two of them reach its far edge, one at a whole position."""
    positions = np.array([[4.0, 4.0], [6.3, 9.75], [16.0, 22.0], [15.2, 21.9], [7.5, 12.0]])
    settings: dict[str, Any] = {
        "probe": complex_normal(2, 8, 8, seed=1),
        "positions_px": positions,
        "object_shape": (20, 26),
    }
    return ScanModel(**{**settings, **changes})


def test_back_projection_is_the_adjoint_of_the_far_field() -> None:
    model = model_of()
    obj = complex_normal(20, 26, seed=2)
    frames = slice(0, 5)
    far_field = complex_normal(5, 2, 8, 8, seed=3)
    onto = model.blank(torch.complex128)
    model.back_project(far_field, frames, onto)
    forward = torch.vdot(far_field.ravel(), model.far_field(obj, frames).ravel())
    backward = torch.vdot(onto[:-1, :-1].ravel(), obj.ravel())
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=0)


def test_nothing_is_placed_beyond_the_object() -> None:
    model = model_of()
    onto = model.blank(torch.complex128)
    model.back_project(complex_normal(5, 2, 8, 8, seed=3), slice(0, 5), onto)
    assert not onto[-1].any()
    assert not onto[:, -1].any()


def test_expected_counts_are_those_of_the_simulation() -> None:
    dataset = scan_dataset()
    probe = torch.from_numpy(dataset.probe.astype(np.complex128))[None]
    model = ScanModel(probe, dataset.positions_px, dataset.obj.shape)
    obj = torch.from_numpy(dataset.obj.astype(np.complex128))
    base: Any = dataset
    simulated = torch.from_numpy(expected_intensity(base))
    found = torch.cat([model.expected(obj, frames) for frames in model.batches(16)])
    torch.testing.assert_close(found, uncentre(simulated), rtol=1e-10, atol=1e-9)


def test_modes_add_up_incoherently() -> None:
    model = model_of()
    obj = complex_normal(20, 26, seed=2)
    single = [model_of(probe=model.probe[i : i + 1]).expected(obj, slice(0, 5)) for i in range(2)]
    torch.testing.assert_close(model.expected(obj, slice(0, 5)), single[0] + single[1])


def test_illumination_holds_every_photon() -> None:
    model = model_of()
    lit = model.illumination()
    assert lit.shape == (20, 26)
    torch.testing.assert_close(lit.sum(), 5 * model.probe.abs().square().sum())


def test_illumination_is_the_fluence_map() -> None:
    base = make_synthetic_base(_tiny_base())
    probe = base.probe.astype(np.complex128)
    model = ScanModel(torch.from_numpy(probe)[None], base.positions_px, base.obj.shape)
    expected = fluence_map(probe, base.positions_px, base.obj.shape)
    np.testing.assert_allclose(model.illumination(), expected, atol=1e-9 * expected.max())


def _tiny_base() -> Any:
    import factories

    shape = {"frame_side_px": 32, "field_px": 64.0, "step_px": 16.0}
    return factories.study_params().base.model_copy(update=shape)


def test_window_outside_the_object_is_refused() -> None:
    with pytest.raises(ValueError, match=r"8 px window lies outside the object \(20, 26\)"):
        model_of(positions_px=np.array([[16.1, 4.0]]))
