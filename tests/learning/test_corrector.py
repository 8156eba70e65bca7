"""The network that corrects a mosaic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fly64_dose_overlap.learning import corrector
from fly64_dose_overlap.learning.corrector import build_corrector, correct, correct_image, input_planes
from fly64_dose_overlap.learning.estimate import Estimate


def draw_mosaic(shape: tuple[int, int]) -> Estimate:
    rng = np.random.default_rng(0)
    early, late = (rng.normal(1, 0.2, (2, *shape)) + 1j * rng.normal(0, 0.2, (2, *shape))).astype(
        np.complex64
    )
    return Estimate(early, late, rng.uniform(0, 3000, shape))


def trained(width: int = 4) -> corrector.Corrector:
    """Return a network of which no layer is zero."""
    network = build_corrector(width, seed=1)
    draws = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draws)
    return network


def test_planes_show_both_images_the_fluence_and_the_dose() -> None:
    mosaic = draw_mosaic((16, 24))
    planes = input_planes(mosaic).numpy()
    assert planes.shape == (corrector.INPUT_PLANES, 16, 24)
    assert planes.dtype == np.float32
    np.testing.assert_allclose(planes[0] + 1j * planes[1], mosaic.early - 1, atol=1e-6)
    np.testing.assert_allclose(planes[2] + 1j * planes[3], mosaic.late - 1, atol=1e-6)
    assert planes[4].max() == 1
    np.testing.assert_allclose(10 ** (4 * planes[5]) - 1, mosaic.fluence, rtol=1e-3, atol=1e-3)


def test_untrained_network_returns_the_late_image() -> None:
    mosaic = draw_mosaic((21, 27))
    found = correct_image(build_corrector(4, seed=0), input_planes(mosaic), None)
    assert found.dtype == np.complex64
    np.testing.assert_allclose(found, mosaic.late, atol=1e-6)


def test_correction_fades_where_no_photon_falls() -> None:
    planes = input_planes(draw_mosaic((16, 16)))[None]
    planes[:, 2:4] = 0
    planes[:, 4, :, :8] = 0
    change = correct(trained(), planes, None) - torch.tensor([1.0, 0.0])[:, None, None]
    assert change[..., :8].abs().max() < 1e-6 < 1e-3 < change[..., 8:].abs().max()


class Gains(nn.Module):
    """Stand in for a network that gives the bands some gains and corrects nothing."""

    def __init__(self, *gains: float) -> None:
        super().__init__()
        self._planes = torch.logit(torch.tensor([0.5, 0.5, *gains]) / 2)
        self._planes[:2] = 0

    def forward(self, planes: Tensor) -> Tensor:
        return self._planes[:, None, None].expand(len(planes), -1, *planes.shape[2:])


def test_gains_weigh_the_bands() -> None:
    """Of a checkerboard, of stripes of 4 and of a constant, each is in a band of its own."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    fine, mid = 1.0 - 2 * ((y + x) % 2), 1.0 - 2 * (y // 4 % 2)
    planes = input_planes(draw_mosaic((32, 32)))[None]
    planes[:, 2], planes[:, 3] = 0.1 * fine + 0.2, 0.1 * mid - 0.3
    made = correct(Gains(0.25, 1.0), planes, None)[0] - torch.tensor([1.0, 0.0])[:, None, None]
    torch.testing.assert_close(made[0], 0.25 * 0.1 * fine + 0.2)
    made = correct(Gains(0.5, 0.5), planes, None)[0, 1]
    torch.testing.assert_close(made[8:-8], (0.5 * 0.1 * mid - 0.3)[8:-8], atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("coarse_photons", "photons", "left"), [(None, 1e3, 1.0), (10, 1e3, 0.01), (10, 10, 0.5), (30, 10, 0.75)]
)
def test_the_coarse_phase_of_a_correction_can_be_made_to_fade_where_photons_are_many(
    coarse_photons: float | None, photons: float, left: float
) -> None:
    """Of a correction that is the same everywhere, of one that alternates, and of the amplitude."""
    images = draw_mosaic((96, 96))
    planes = input_planes(Estimate(images.early, images.late, np.full((96, 96), photons)))[None]
    along = F.normalize(torch.stack([1 + planes[0, 2], planes[0, 3]]), dim=0)
    across = torch.stack([-along[1], along[0]])
    rows = torch.arange(96)[:, None].expand(96, 96)
    fine = 0.1 * (1.0 - 2 * (rows % 2))
    coarse = torch.full((96, 96), 0.3)

    def change(correction: Tensor) -> Tensor:
        unchanged = correct(Corrections(torch.zeros(2, 96, 96)), planes, None)
        return (correct(Corrections(correction), planes, coarse_photons) - unchanged)[0]

    lit = 1 / (1 + corrector.WEAK_ILLUMINATION)
    for correction, stays in ((across * coarse, left), (across * fine, 1.0), (along * coarse, 1.0)):
        torch.testing.assert_close(change(correction), stays * lit * correction, rtol=0.02, atol=1e-3)


class Corrections(nn.Module):
    """Stand in for a network that makes a correction of two planes and keeps all detail."""

    def __init__(self, correction: Tensor) -> None:
        super().__init__()
        self._planes = torch.cat([correction, torch.zeros_like(correction)])

    def forward(self, planes: Tensor) -> Tensor:
        return self._planes[None]


@pytest.mark.parametrize("coarse_photons", [None, 10])
@pytest.mark.parametrize("shape", [(96, 408), (91, 405)])
def test_tiles_give_what_the_whole_gives(
    shape: tuple[int, int], coarse_photons: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, planes = trained(), input_planes(draw_mosaic(shape))
    whole = correct_image(network, planes, coarse_photons)
    monkeypatch.setattr(corrector, "TILE_PX", 64)
    np.testing.assert_allclose(correct_image(network, planes, coarse_photons), whole, atol=1e-5)


@pytest.mark.parametrize(
    ("coarse_photons", "margin"),
    [(None, corrector.TILE_MARGIN_PX), (10, corrector.TILE_MARGIN_PX + corrector.COARSE_MARGIN_PX)],
)
def test_tile_margin_is_wider_than_what_a_correction_looks_at(
    coarse_photons: float | None, margin: int
) -> None:
    side, middle = 384, 192
    planes = torch.ones(1, corrector.INPUT_PLANES, side, side, requires_grad=True)
    correct(trained(), planes, coarse_photons)[..., middle, middle].sum().backward()
    assert planes.grad is not None
    seen = torch.nonzero(planes.grad[0].abs().sum(dim=(0, 1))).ravel()
    assert middle - int(seen.min()) <= margin
    assert int(seen.max()) - middle <= margin


def test_weights_follow_the_seed_alone() -> None:
    first, again, other = (build_corrector(4, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    before = torch.get_rng_state()
    build_corrector(8, 3)
    assert torch.equal(torch.get_rng_state(), before)
