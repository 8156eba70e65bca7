"""Datasets of the star bench: a whole scan at one dose, and where it is scored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.config import ViewName
from fly64_dose_overlap.files.dataset import BaseSet, Dataset, select_frames
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.physics.propagation import centre, from_detector, intensity, to_detector
from fly64_dose_overlap.provenance import with_physics, with_step
from fly64_dose_overlap.scores.region import Region, scan_region
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.dose import (
    BLOCK_FRAMES,
    dose_factor,
    draw_counts,
    frame_blocks,
    with_dose,
)
from fly64_dose_overlap.study.star_bench import (
    OBJECT_SIDE_PX,
    SCORED_PX,
    STAR_BENCH,
    make_star_bench,
    with_raster_step,
)


def star_bench_dataset(
    view: ViewName, dose: int, seed: int, *, subpixel: Literal["object", "probe"] = "object"
) -> Dataset:
    """Draw the counts of one raster of the star bench.

    Dose and counts are those of the baseline raster's scan, of which the other two keep
    frames: the same frame holds the same counts in each of them.

    Parameters
    ----------
    view : {"baseline", "dense", "sparse"}
    dose : int, photons per frame
        Averaged over the baseline raster; > 0.
    seed : int
        Of jitter and counts.
    subpixel : str
        What is shifted by the fraction of a position: the ``object``, bilinear as in the
        study, or the ``probe``, by a Fourier ramp as in pty-chi and in the published case.

    Returns
    -------
    Dataset
        Without groups.

    Raises
    ------
    StudyError
        If there is no such raster, or the dose is not positive.
    """
    frames = make_star_bench(view, seed).scan_index
    base = make_star_bench("baseline", seed)
    amplitude, factor = _draw(base, seed, dose, shifts_probe=subpixel == "probe")
    scan = with_dose(base, factor)
    drawn = with_step(
        base.record,
        "simulate",
        "draw photon counts",
        photons_per_frame=dose,
        seed=seed,
        amplitude_factor=factor,
        block_frames=BLOCK_FRAMES,
        subpixel=subpixel,
    )
    whole = Dataset(
        amplitude=amplitude,
        obj=scan.obj,
        probe=scan.probe,
        positions_px=scan.positions_px,
        scan_index=scan.scan_index,
        record=drawn if view == "baseline" else with_raster_step(drawn, view),
    )
    kept = select_frames(whole, frames)
    measured = float(np.square(kept.amplitude[:], dtype=np.float64).sum() / len(kept.amplitude))
    record = with_physics(kept.record, photons_per_frame_nominal=dose, photons_per_frame_measured=measured)
    return replace(kept, record=record)


class ShiftedProbeScan(ScanModel):
    """A `ScanModel` that reads the object at whole pixels and moves the probe by the rest.

    The probe is moved by a Fourier ramp, so that no light is lost at edges, as it is by a
    bilinear object. It keeps a probe for each frame: for scans of some thousand frames.

    Parameters
    ----------
    probe : (mode, y, x) complex, sqrt(photons)
    positions_px : (frame, 2) float64, object pixels
    object_shape : (int, int)
        Rows and columns.
    """

    def __init__(
        self, probe: Tensor, positions_px: NDArray[np.float64], object_shape: tuple[int, int]
    ) -> None:
        whole = np.rint(positions_px)
        super().__init__(probe, whole, object_shape)
        frequency = torch.fft.fftfreq(self.side, dtype=probe.real.dtype)
        fraction = torch.from_numpy(positions_px - whole).to(probe.real.dtype)[:, :, None, None]
        ramp = fraction[:, 0] * frequency[:, None] + fraction[:, 1] * frequency
        self._probes = torch.fft.ifft2(torch.fft.fft2(probe) * torch.exp(-2j * torch.pi * ramp)[:, None])

    def far_field(self, obj: Tensor, frames: slice) -> Tensor:
        """Return the far fields of some frames; see `ScanModel.far_field`."""
        return to_detector(self.patches(obj, frames)[:, None] * self._probes[frames])

    def back_project(self, far_field: Tensor, frames: slice, onto: Tensor) -> None:
        """Add the adjoint of `far_field` onto a padded object from `blank`."""
        self.place((from_detector(far_field) * self._probes[frames].conj()).sum(dim=1), frames, onto)

    def illumination(self) -> Tensor:
        """Return the photons that fall on each object pixel over the scan, (y, x)."""
        onto = self.blank(self._probes.real.dtype)
        for frames in self.batches():
            self.place(intensity(self._probes[frames]).sum(dim=1), frames, onto)
        return onto[:-1, :-1].contiguous()


def expected_of_shifted_probe(base: BaseSet) -> Iterator[NDArray[np.float64]]:
    """Yield the noise-free diffraction of a scan by `ShiftedProbeScan`.

    Parameters
    ----------
    base : BaseSet
        Object, probe and positions; sum of the probe's squared modulus in photons.

    Yields
    ------
    (frame, y, x) float64, photons
        The blocks of `frame_blocks`, in order.
    """
    obj = torch.from_numpy(base.obj.astype(np.complex128))
    probe = torch.from_numpy(base.probe.astype(np.complex128))[None]
    model = ShiftedProbeScan(probe, base.positions_px, (obj.shape[0], obj.shape[1]))
    for frames in frame_blocks(model.frames):
        yield centre(model.expected(obj, frames)).numpy()


def _draw(base: BaseSet, seed: int, dose: int, *, shifts_probe: bool) -> tuple[NDArray[np.float32], float]:
    """Return the amplitudes of all frames, and the factor on the probe that gave them their dose."""
    if not shifts_probe:
        factor = dose_factor(base, dose)
        blocks = list(draw_counts(with_dose(base, factor), seed=seed, dose=dose))
    else:
        rates = list(expected_of_shifted_probe(base))
        power = dose / float(np.mean(np.concatenate([rate.sum(axis=(1, 2)) for rate in rates])))
        streams = (generator(seed, STAR_BENCH, "counts", dose, number) for number in itertools.count())
        blocks = [stream.poisson(rate * power) for stream, rate in zip(streams, rates, strict=False)]
        factor = math.sqrt(power)
    return np.concatenate([np.sqrt(counts).astype(np.float32) for counts in blocks]), factor


def star_bench_region() -> Region:
    """Return the square that is scored, the same for all rasters, without regard to the light on it."""
    first, stop = SCORED_PX
    corners_px = np.array([[first, first], [stop - 1, stop - 1]], dtype=np.float64)
    return scan_region(np.ones((OBJECT_SIDE_PX, OBJECT_SIDE_PX)), corners_px, 0.0)
