"""What is found by trying: a defocus of the probe, and positions that lie far from where they should."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from fly64_dose_overlap.methods.posterior import FIRST_WEIGHT, Posterior, flat_object, weight_of
from fly64_dose_overlap.physics.illumination import bare_far_field
from fly64_dose_overlap.physics.propagation import intensity
from fly64_dose_overlap.progress import say, track
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.seeding import generator

SEARCHED_FRAMES = 256
"""About the middle of a scan, by which a defocus is found."""
OBJECT_ITERATIONS = 15
"""On the object, with the probe at one defocus."""
CURVATURE = 1.0
"""Step of the search for a defocus: phase at the root mean square frequency of the probe, rad."""
MOST_STEPS = 12
"""To either side."""
DATA_CURVATURE = 1.5
"""The same of the search about the focus, of a lens that the mean frame tells of."""
WIDEST, MOST_OF_DATA = 0.25, 60
"""Root mean square width of a probe in that search, of its frame, and steps to either side."""
LIT, BRIGHT = 0.1, 0.95
"""Part of the light of bright detector pixels (a quantile) that others of the lens have at least."""
LEAST_LIT = 0.5
"""Part of those pixels of the lens that must count for them alone to tell of the focus."""
HELD_OUT = 0.1
"""Part of the photons by which one thing is found to explain frames better than another."""
PART_OF_NEW = 0.1
"""Part of the power that a mode which is added begins with."""
OUTLIERS = 0.25
"""Part of the frames, those that are explained worst, whose positions are searched."""
REACH = 2.5
"""To which a position is searched, in standard deviations."""


def focused(scan: Scan) -> Scan:
    """Return the scan with its probe propagated to the nearest place where an object explains frames best.

    Along the axis the likelihood has valleys that no descent of probe and object leaves. Not the deepest is
    taken: a probe that fills its frame leaves an object of few iterations free to explain anything.
    """
    return replace(scan, probe=defocused(scan.probe, nearest_focus(scan)))


def with_probe_of_data(scan: Scan) -> Scan:
    """Return the scan with a probe that its frames alone tell of.

    The mean frame is about the square of what a lens sends to the detector; its phase is taken for that of
    a distance from the focus, at which an object explains held-out photons best (a free object explains
    others by a probe that fills its frame). Distances are tried to either side up to where the probe is
    `WIDEST` of its frame.
    """
    mean = np.zeros((scan.side, scan.side))
    for block in scan.blocks():
        mean += block.sum(axis=0, dtype=np.float64)
    counting = scan.counting_part * len(scan)
    mean /= np.maximum(counting, 1)
    if scan.background is not None:
        mean = np.maximum(mean - scan.background, 0)
    nearest: Any = distance_transform_edt(counting == 0, return_distances=False, return_indices=True)
    lens = np.fft.ifftshift(np.sqrt(mean[*nearest]))
    probe = np.fft.fftshift(np.fft.ifft2(lens, norm="ortho")).astype(np.complex64)[None]
    begun = powered(replace(scan, probe=probe))
    part = about_middle(begun, SEARCHED_FRAMES).cropped()[0]
    told, held = in_two(part, "probe of data")
    step = DATA_CURVATURE / (np.pi * _mean_square_frequency(probe))

    def misfit(curvature: float) -> float:
        here = replace(told, probe=defocused(told.probe, curvature))
        return float(held_out_values(held, here, quick_object(here), 1.0).sum())

    most = 0
    while most < MOST_OF_DATA and _width(defocused(probe, (most + 1) * step)) < WIDEST * scan.side:
        most += 1
    tried = [index * step for index in range(-most, most + 1)]
    label = "probe from the mean frame"
    values = [misfit(each) for each in track(tried, total=len(tried), label=label, unit="distance")]
    return replace(begun, probe=defocused(begun.probe, tried[int(np.argmin(values))]))


def nearest_focus(scan: Scan) -> float:
    """Return the curvature of `defocused` that brings a probe into focus.

    Only detector pixels that the lens lights count: what an object scatters further out is explained best by
    a probe in the focus, whatever the object.
    """
    light = bare_far_field(scan.probe)
    lit = light > LIT * np.quantile(light, BRIGHT)
    part = about_middle(scan, SEARCHED_FRAMES).cropped()[0]
    # Where a stop hides the lens, what is beside it must tell.
    if (lit & (part.counting_part > 0)).mean() > LEAST_LIT * lit.mean():
        part = powered(replace(part, mask=lit if part.mask is None else lit & part.mask))
    step = CURVATURE / (np.pi * _mean_square_frequency(scan.probe))

    def misfit(steps: float) -> float:
        return quick_misfit(replace(part, probe=defocused(part.probe, steps * step)))

    return step * nearest_valley(misfit, MOST_STEPS)


def about_middle(scan: Scan, frames: int) -> Scan:
    """Return the frames nearest to the middle of a scan."""
    middle = scan.positions_px.mean(axis=0)
    nearest = np.argsort(((scan.positions_px - middle) ** 2).sum(axis=1), kind="stable")[:frames]
    return scan.frames(np.sort(nearest))


def quick_misfit(scan: Scan) -> float:
    """Return half the deviance that an object of a few iterations leaves, nats."""
    return float(frame_values(scan, quick_object(scan), 1.0).sum())


def quick_object(scan: Scan) -> Tensor:
    """Return the object after a few iterations."""
    solver = Posterior(weight_of(FIRST_WEIGHT, scan), background=1.0)
    return next(islice(solver(scan), OBJECT_ITERATIONS - 1, None))


def nearest_valley(misfit: Callable[[float], float], most: int) -> float:
    """Return where a misfit is least, on the way downhill in steps of 1 from 0 and by a parabola then.

    Examples
    --------
    >>> nearest_valley(lambda x: (x - 2.25) ** 2, most=12)
    2.25
    """
    found: dict[int, float] = {}

    def at(steps: int) -> float:
        if steps not in found:
            found[steps] = misfit(steps)
        return found[steps]

    best = 0
    while abs(best) < most:
        near = min((best - 1, best + 1), key=at)
        if at(near) >= at(best):
            return best + lowest_of(at(best - 1), at(best), at(best + 1))
        best = near
    return best


def lowest_of(left: float, middle: float, right: float) -> float:
    """Return where the parabola through values at -1, 0 and 1 is least; 0 if it has no least value.

    Examples
    --------
    >>> lowest_of(3.0, 0.0, 1.0)
    0.25
    """
    bend = left - 2 * middle + right
    return 0.5 * (left - right) / bend if bend > 0 else 0.0


def powered(scan: Scan) -> Scan:
    """Return the scan with its probe at the power of the photons that are counted, of an empty object."""
    model, blank, light, dark = scan.model, flat_object(scan), 0.0, 0.0
    for frames in model.batches():
        pixels, bare = model.pixels(frames), intensity(model.far_field(blank, frames)).sum(dim=1)
        none = torch.zeros_like(bare)
        light += float(pixels.filled(bare, none).sum(dtype=torch.float64))
        dark += float(pixels.filled(pixels.expected(none), none).sum(dtype=torch.float64))
    gain = math.sqrt(max(scan.photons_per_frame * len(scan) - dark, 1.0) / light)
    return replace(scan, probe=scan.probe * np.float32(gain))


def with_modes(scan: Scan, modes: int) -> Scan:
    """Return the scan with a probe of some modes, orthogonal and of the power of the given one.

    Modes that lack are the strongest one times polynomials about its middle, as a source of some extent or a
    vibration has them; of too many the weakest are left out.
    """
    given = scan.probe.astype(np.complex128)
    power = (np.abs(given) ** 2).sum(axis=(1, 2))
    order = np.argsort(-power, kind="stable")[:modes]
    found = list(given[order])
    light = np.abs(found[0]) ** 2 / power[order[0]]
    grid = np.arange(scan.side, dtype=np.float64)
    y = (grid - (light.sum(axis=1) @ grid))[:, None]
    x = grid - (light.sum(axis=0) @ grid)
    for factor in (x, y, x * y, x**2 - y**2, x**2 + y**2, x**3, y**3, x**2 * y, x * y**2):
        if len(found) >= modes:
            break
        more = found[0] * factor
        for each in found:
            more = more - each * (np.vdot(each, more) / np.vdot(each, each))
        share = PART_OF_NEW * power.sum() / (np.abs(more) ** 2).sum()
        found.append(more * np.sqrt(share))
    probe = np.stack(found)
    probe *= np.sqrt(power.sum() / (np.abs(probe) ** 2).sum())
    return replace(scan, probe=probe.astype(np.complex64))


def defocused(probe: Complex[NDArray[np.complex64], "mode y x"], curvature: float) -> NDArray[np.complex64]:
    """Return a probe propagated on: exp(-i pi c u^2) at frequency u, cycles per pixel.

    The curvature c is wavelength times distance over the square of the pixel.
    """
    waves = np.fft.fftfreq(probe.shape[-1]) ** 2
    phase = np.exp(-1j * np.pi * curvature * (waves[:, None] + waves))
    return np.fft.ifft2(np.fft.fft2(probe.astype(np.complex128)) * phase).astype(np.complex64)


def _width(probe: NDArray[np.complex64]) -> float:
    """Return the root mean square width of a probe along y, pixels."""
    power = (np.abs(probe.astype(np.complex128)) ** 2).sum(axis=(0, 2))
    rows = np.arange(len(power))
    middle = power @ rows / power.sum()
    return math.sqrt(power @ (rows - middle) ** 2 / power.sum())


def _mean_square_frequency(probe: NDArray[np.complex64]) -> float:
    power = np.fft.ifftshift(bare_far_field(probe))
    waves = np.fft.fftfreq(probe.shape[-1]) ** 2
    return float((power * (waves[:, None] + waves)).sum() / power.sum())


def with_outliers_found(
    scan: Scan, given_px: Float[NDArray[np.float64], "frame 2"], obj: Tensor, background: float
) -> Scan:
    """Return the scan with the positions of frames that are explained worst searched about the given ones."""
    spread = scan.unknown.positions_px
    photons = np.array([float(each.sum()) for block in scan.blocks() for each in block])
    worst = np.argsort(-frame_values(scan, obj, background) / np.maximum(photons, 1), kind="stable")
    chosen = np.sort(worst[: max(1, round(OUTLIERS * len(scan)))])
    part, given = scan.frames(chosen), given_px[chosen]
    low = np.full(2, scan.side // 2)
    high = np.array(scan.object_shape) - scan.side + scan.side // 2

    def value(positions: NDArray[np.float64]) -> NDArray[np.float64]:
        away = ((positions - given) ** 2).sum(axis=1) / (2 * spread**2)
        return frame_values(replace(part, positions_px=positions), obj, background) + away

    where, best = part.positions_px.copy(), value(part.positions_px)
    step = max(0.5, spread / 3)
    offsets = step * np.arange(-np.ceil(REACH * spread / step), np.ceil(REACH * spread / step) + 1)
    for y in offsets:
        for x in offsets:
            there = np.clip(given + np.array([y, x]), low, high)
            better = (found := value(there)) < best
            where[better], best[better] = there[better], found[better]
    moved = int((np.hypot(*(where - part.positions_px).T) > 0.5).sum())
    say(f"positions: {moved} of {len(scan)} frames are explained better elsewhere")
    positions = scan.positions_px.copy()
    positions[chosen] = where
    return replace(scan, positions_px=positions)


def in_two(scan: Scan, *names: str) -> tuple[Scan, Scan]:
    """Divide the photons: those to find things with, and those held out; ``names`` are those of the draw."""
    return scan.divide(1 - HELD_OUT, generator(0, *names, "held-out"))


def held_out_values(held: Scan, told: Scan, obj: Tensor, background: float) -> NDArray[np.float64]:
    """Return half the deviance, nats, of each held-out frame (frame,), with what was found on the others."""
    probe = told.probe * np.float32((HELD_OUT / (1 - HELD_OUT)) ** 0.5)
    here = replace(held, probe=probe, positions_px=told.positions_px, flux=told.flux)
    return frame_values(here, obj, background)


def frame_values(scan: Scan, obj: Tensor, background: float) -> Float[NDArray[np.float64], " frame"]:
    """Return half the deviance of each frame, nats."""
    model, found = scan.model, []
    for frames in model.batches():
        expected = model.expected(obj, frames)
        seen = torch.from_numpy(np.asarray(scan.counts[frames], np.float32))
        seen = model.pixels(frames).filled(seen, expected) + background
        rate = expected + background
        found.append((rate - seen + seen * (seen / rate).log()).sum(dim=(1, 2), dtype=torch.float64).numpy())
    return np.concatenate(found)
