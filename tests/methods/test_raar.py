"""RAAR is the iteration of its paper, finds a scan's object and does not wander where counts are noisy."""

from __future__ import annotations

from itertools import islice

import torch

import fly64_dose_overlap as fdo
from fly64_dose_overlap.methods.raar import RelaxedReflections, with_amplitudes
from fly64_dose_overlap.physics.detector import Pixels
from fly64_dose_overlap.scan import Scan


def small_scan(photons_per_frame: float) -> tuple[Scan, torch.Tensor]:
    scan, truth = fdo.simulate(photons_per_frame, seed=1, field_px=40, frame_side_px=32, defocus_um=200)
    return scan, torch.from_numpy(truth)


def relative_error(scan: Scan, obj: torch.Tensor, truth: torch.Tensor) -> float:
    light = torch.from_numpy(scan.illumination())
    lit = light > 0.1 * light.max()
    factor = (obj[lit].conj() * truth[lit]).sum() / obj[lit].abs().square().sum()
    return float((factor * obj[lit] - truth[lit]).norm() / truth[lit].norm())


def test_an_epoch_is_that_of_the_paper() -> None:
    # With both projections written out, and every exit wave at once.
    scan, _ = small_scan(1e5)
    settings = RelaxedReflections.Settings(epochs=4, beta=0.7)
    found = [state.obj for state in islice(RelaxedReflections(settings).run(scan, 0), 4)]
    model, frames = scan.model, slice(0, len(scan))
    probes, counts = model.probes(frames), torch.from_numpy(scan.counts[frames])
    light = torch.from_numpy(scan.illumination()).float()
    floor = 0.001 * light.max()

    def common_object(waves: torch.Tensor) -> torch.Tensor:
        total = model.blank(torch.complex64)
        model.place((waves * probes.conj()).sum(dim=1), frames, total)
        return (total + floor) / (light + floor)

    waves = model.exit_waves(torch.ones(scan.object_shape, dtype=torch.complex64), frames)
    lit = light > 0.1 * light.max()
    for obj in found:
        measured = with_amplitudes(waves, counts, Pixels())
        torch.testing.assert_close(obj[lit], common_object(measured)[lit], rtol=0.02, atol=0.02)
        reflected = 2 * measured - waves
        common = model.exit_waves(common_object(reflected), frames)
        waves = 0.7 / 2 * (2 * common - reflected + waves) + 0.3 * measured


def test_amplitudes_are_those_of_the_counts_and_phases_stay() -> None:
    scan, truth = small_scan(1e7)
    frames = slice(0, 3)
    waves = scan.model.exit_waves(truth, frames)
    assert (
        float((with_amplitudes(waves, scan.model.expected(truth, frames), Pixels()) - waves).abs().max())
        < 1e-3
    )


def test_many_photons_give_the_object() -> None:
    scan, truth = small_scan(1e7)
    obj = list(islice(RelaxedReflections().run(scan, 0), 80))[-1].obj
    assert relative_error(scan, obj, truth) < 0.05


def test_noise_does_not_drive_it_away() -> None:
    scan, truth = small_scan(1e4)
    errors = [
        relative_error(scan, state.obj, truth) for state in islice(RelaxedReflections().run(scan, 0), 60)
    ]
    assert errors[-1] < 1.2 * min(errors)
