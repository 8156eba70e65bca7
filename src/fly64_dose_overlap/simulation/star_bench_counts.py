"""Datasets of the star bench: a whole scan at one dose, and where it is scored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fly64_dose_overlap.config import ViewName
from fly64_dose_overlap.data.contract import BaseSet, Dataset, select_frames
from fly64_dose_overlap.physics.propagation import centre, intensity, to_detector
from fly64_dose_overlap.provenance import with_physics, with_step
from fly64_dose_overlap.scoring.region import Region, scan_region
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.simulation.diffraction import (
    BLOCK_FRAMES,
    dose_factor,
    draw_counts,
    frame_blocks,
    with_dose,
)
from fly64_dose_overlap.simulation.star_bench import (
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


def expected_of_shifted_probe(base: BaseSet) -> Iterator[NDArray[np.float64]]:
    """Yield the noise-free diffraction of a scan whose probe is shifted by the fractions of the positions.

    The object is read at whole pixels, and the probe moved by a Fourier ramp: no light is
    lost at edges, as it is by a bilinear object.

    Parameters
    ----------
    base : BaseSet
        Object, probe and positions; sum of the probe's squared modulus in photons.

    Yields
    ------
    (frame, y, x) float64, photons
        The blocks of `frame_blocks`, in order.
    """
    side = base.probe.shape[0]
    windows = sliding_window_view(base.obj.astype(np.complex128), (side, side))
    spectrum = torch.fft.fft2(torch.from_numpy(base.probe.astype(np.complex128)))
    frequency = torch.fft.fftfreq(side, dtype=torch.float64)
    for block in frame_blocks(len(base.positions_px)):
        whole = np.rint(base.positions_px[block])
        fraction = torch.from_numpy(base.positions_px[block] - whole)[..., None, None]
        ramp = fraction[:, 0] * frequency[:, None] + fraction[:, 1] * frequency
        probes = torch.fft.ifft2(spectrum * torch.exp(-2j * torch.pi * ramp))
        corner = whole.astype(np.int64) - side // 2
        patches = torch.from_numpy(windows[corner[:, 0], corner[:, 1]])
        yield centre(intensity(to_detector(probes * patches))).numpy()


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
