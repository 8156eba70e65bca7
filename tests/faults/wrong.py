"""Feed valid files that are wrong in one fact: none may pass in silence, and no gauge may matter.

Every rule of the contract is kept. One fact about the measurement is turned: a unit, an axis,
an order, or what was counted; the oracle is the warning or the refusal that belongs to it.
Changes that no frame can tell must be harmless: no word, and the same reconstruction.
`python -m faults.wrong` runs it by itself, from ``tests``.
"""

from __future__ import annotations

import re
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fly64_dose_overlap as fdo
from faults.mutations import Arrays
from faults.outcome import Outcome, tell
from fly64_dose_overlap import provenance
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.study.gauge import lit_pixels

SEED = 11
ROUNDS = 12
"""How often each fact is turned, every time by another amount and in one of several scans."""
SCANS = 4
SAME = 1e-5
"""Largest root mean square difference, where light falls, of reconstructions that no frame can tell apart."""
RNG = np.random.Generator
Frames = NDArray[Any]
Change = Callable[[RNG, Arrays], None]

BELONG = "its own object (is the conjugate|explains the frames (better with|worse than))"
UNCOUNTED = "must hold counted photons or their square roots"


@cache
def scan_of(number: int) -> tuple[fdo.Scan, NDArray[np.complex64]]:
    """Return a scan of a texture, which has no symmetry, and its truth; do not change their arrays."""
    kind = "texture"
    return fdo.simulate(1e5, seed=number, object_kind=kind, field_px=30, frame_side_px=32, defocus_um=200)


def arrays_of(number: int) -> Arrays:
    """Return the arrays of the file that a good instrument would write."""
    scan, truth = scan_of(number)
    physics = {
        key: scan.record["physics_parameters"][key]
        for key in ("energy_ev", "object_pixel_m", "detector_pixel_m", "detector_distance_m")
    }
    return {
        "counts": scan.counts[:].astype(np.uint32),
        "objectGuess": truth,
        "probeGuess": scan.probe[0],
        "xcoords": scan.positions_px[:, 1].copy(),
        "ycoords": scan.positions_px[:, 0].copy(),
        "physics": physics,
    }


def _positions(change: Callable[[RNG, NDArray[np.float64]], NDArray[np.float64]]) -> Change:
    def turn(rng: RNG, arrays: Arrays) -> None:
        found = change(rng, np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1))
        arrays["ycoords"], arrays["xcoords"] = found[:, 0].copy(), found[:, 1].copy()

    return turn


def _array(key: str, change: Callable[[RNG, Frames], Frames]) -> Change:
    def turn(rng: RNG, arrays: Arrays) -> None:
        arrays[key] = np.ascontiguousarray(change(rng, arrays[key]))

    return turn


def _roots(change: Callable[[RNG, NDArray[np.float64]], NDArray[np.floating]]) -> Change:
    """Change the counts into other frames, under the name of their roots."""

    def turn(rng: RNG, arrays: Arrays) -> None:
        arrays["diffraction"] = change(rng, arrays.pop("counts").astype(np.float64)).astype(np.float32)

    return turn


def _physics(**factors: tuple[float, ...]) -> Change:
    def turn(rng: RNG, arrays: Arrays) -> None:
        for key, choices in factors.items():
            arrays["physics"][key] *= rng.choice(choices)

    return turn


def _inverted(at: NDArray[np.float64], axes: list[int]) -> NDArray[np.float64]:
    turned = at.copy()
    turned[:, axes] = at[:, axes].min(axis=0) + at[:, axes].max(axis=0) - at[:, axes]
    return turned


def _gap(rng: RNG, counts: Frames, value: int) -> Frames:
    filled = counts.copy()
    first, width = rng.integers(0, 28), rng.integers(1, 4)
    filled[:, :, first : first + width] = value
    return filled


def _hot(rng: RNG, counts: Frames) -> Frames:
    """Add counts to a pixel in the dark half of the detector."""
    dark = np.argwhere(counts.sum(axis=0) < np.median(counts.sum(axis=0)))
    y, x = dark[rng.integers(len(dark))]
    hot = counts.copy()
    hot[:, y, x] += rng.poisson(10 ** rng.uniform(3, 6), len(counts)).astype(np.uint32)
    return hot


def _bright(rng: RNG, counts: Frames) -> Frames:
    bright = counts.copy()
    bright[rng.integers(len(counts))] *= np.uint32(rng.integers(100, 1000))
    return bright


def _blocks_swapped(rng: RNG, frames: Frames) -> Frames:
    return np.roll(frames, int(rng.integers(len(frames) // 4, 3 * len(frames) // 4)), axis=0)


WRONG: dict[str, tuple[Change, str]] = {
    # Units.
    "positions in metres": (_positions(lambda rng, at: at * 10 ** rng.uniform(-9, -6)), "in object pixels"),
    "positions in detector pixels": (_positions(lambda rng, at: at * rng.uniform(2, 50)), "in object pixels"),
    "positions of the corners": (_positions(lambda rng, at: at - 16), "in object pixels"),
    "positions at a smaller scale": (
        _positions(lambda rng, at: at.mean(axis=0) + (at - at.mean(axis=0)) * rng.uniform(0.1, 0.5)),
        BELONG,
    ),
    "a brighter probe": (
        _array("probeGuess", lambda rng, p: p * np.float32(10 ** rng.uniform(1, 6))),
        "probe carries",
    ),
    "a dimmer probe": (
        _array("probeGuess", lambda rng, p: p * np.float32(10 ** rng.uniform(-6, -1))),
        "probe carries",
    ),
    "energy in keV": (_physics(energy_ev=(1e-3,)), "electronvolts"),
    "pixel in nm, um or mm": (_physics(object_pixel_m=(1e9, 1e6, 1e3)), "metres"),
    "detector pixel in um or mm": (_physics(detector_pixel_m=(1e6, 1e3)), "metres"),
    "distance in mm or cm": (_physics(detector_distance_m=(1e3, 1e2)), "metres"),
    "distance of another set-up": (_physics(detector_distance_m=(0.5, 0.8, 1.5, 2.0)), "metres"),
    # Axes.
    "x and y swapped": (_positions(lambda rng, at: at[:, ::-1]), BELONG),
    "y inverted": (_positions(lambda rng, at: _inverted(at, [0])), BELONG),
    "x inverted": (_positions(lambda rng, at: _inverted(at, [1])), BELONG),
    "both inverted": (_positions(lambda rng, at: _inverted(at, [0, 1])), BELONG),
    "frames transposed": (_array("counts", lambda rng, n: n.transpose(0, 2, 1)), BELONG),
    "frames upside down": (_array("counts", lambda rng, n: n[:, ::-1]), BELONG),
    "frames mirrored": (_array("counts", lambda rng, n: n[:, :, ::-1]), BELONG),
    "frames turned": (_array("counts", lambda rng, n: np.rot90(n, int(rng.integers(1, 4)), (1, 2))), BELONG),
    "zero frequency in a corner": (_array("counts", lambda rng, n: np.fft.fftshift(n, (1, 2))), BELONG),
    "zero frequency elsewhere": (
        _array("counts", lambda rng, n: np.roll(n, rng.integers(5, 27, 2), (1, 2))),
        BELONG,
    ),
    "probe in the corners": (_array("probeGuess", lambda rng, p: np.fft.fftshift(p)), "fftshift"),
    "probe at an edge": (_array("probeGuess", lambda rng, p: np.roll(p, 16, rng.integers(2))), "fftshift"),
    "probe conjugated": (_array("probeGuess", lambda rng, p: p.conj()), BELONG),
    "object conjugated": (_array("objectGuess", lambda rng, o: o.conj()), BELONG),
    "object transposed": (_array("objectGuess", lambda rng, o: o.T), BELONG),
    "object moved": (
        _array(
            "objectGuess",
            lambda rng, o: np.roll(o, rng.choice([-1, 1]) * rng.integers(8, 24), rng.integers(2)),
        ),
        BELONG,
    ),
    # Order.
    "frames in reverse": (_array("counts", lambda rng, n: n[::-1]), BELONG),
    "frames one off": (_array("counts", lambda rng, n: np.roll(n, rng.choice([-1, 1]), 0)), BELONG),
    "frames rotated": (_array("counts", _blocks_swapped), BELONG),
    "frames shuffled": (_array("counts", lambda rng, n: rng.permutation(n)), BELONG),
    "positions shuffled": (_positions(lambda rng, at: rng.permutation(at)), BELONG),
    # Counts.
    "roots over their maximum": (_roots(lambda rng, n: np.sqrt(n / n.max())), UNCOUNTED),
    "roots over their mean": (_roots(lambda rng, n: np.sqrt(n / n.mean())), UNCOUNTED),
    "roots in another unit": (_roots(lambda rng, n: np.sqrt(n) * 10 ** rng.uniform(-6, -0.1)), UNCOUNTED),
    "means of exposures": (_roots(lambda rng, n: np.sqrt(n / rng.integers(2, 9))), UNCOUNTED),
    "logarithms": (_roots(lambda rng, n: np.log1p(n)), UNCOUNTED),
    "background subtracted": (
        _roots(lambda rng, n: np.sqrt(np.maximum(n - rng.uniform(0.1, 0.9), 0))),
        UNCOUNTED,
    ),
    "roots named counts": (_array("counts", lambda rng, n: np.sqrt(n)), UNCOUNTED),
    "counts times a gain": (_array("counts", lambda rng, n: n * rng.uniform(1.1, 9.9)), UNCOUNTED),
    "counts times a whole gain": (
        _array("counts", lambda rng, n: n * np.uint32(rng.integers(2, 99))),
        "is a multiple",
    ),
    "whole counts named their roots": (_roots(lambda rng, n: n), "taken for photons"),
    "a dark current": (
        _array("counts", lambda rng, n: n + rng.poisson(rng.uniform(20, 500), n.shape)),
        BELONG,
    ),
    "a gap with the largest value": (
        _array("counts", lambda rng, n: _gap(rng, n, 2**32 - 1)),
        "largest value of its type",
    ),
    "a gap with a constant": (
        _array("counts", lambda rng, n: _gap(rng, n, int(rng.choice([3, 255, 4095, 65535])))),
        "hold the same value",
    ),
    "a hot pixel": (_array("counts", _hot), "detector pixels are far brighter"),
    "a bright frame": (_array("counts", _bright), "frames are far brighter"),
}


def _scale(rng: RNG, arrays: Arrays) -> None:
    factor = np.complex64(10 ** rng.uniform(-1.5, 1.5) * np.exp(1j * rng.uniform(-np.pi, np.pi)))
    arrays["objectGuess"], arrays["probeGuess"] = (
        arrays["objectGuess"] * factor,
        arrays["probeGuess"] / factor,
    )


def _tilt(rng: RNG, arrays: Arrays) -> None:
    slopes = rng.uniform(-0.05, 0.05, 2)
    for key, sign in (("objectGuess", 1), ("probeGuess", -1)):
        y, x = np.indices(arrays[key].shape)
        ramp = np.exp(sign * 1j * (slopes[0] * y + slopes[1] * x))
        arrays[key] = (arrays[key] * ramp).astype(np.complex64)


def _scale_and_tilt(rng: RNG, arrays: Arrays) -> None:
    _scale(rng, arrays)
    _tilt(rng, arrays)


HARMLESS: dict[str, Change] = {
    "factor between object and probe": _scale,
    "ramp between object and probe": _tilt,
    "factor and ramp between object and probe": _scale_and_tilt,
    "roots of the counts": _roots(lambda rng, n: np.sqrt(n)),
    "frame axis last": _array("counts", lambda rng, n: np.moveaxis(n, 0, -1)),
    "axes of length one": _array("objectGuess", lambda rng, o: o[None, ..., None]),
}
"""Changes of the file that no frame can tell, and other ways to write the same."""


def messages(path: Path) -> tuple[fdo.Scan | None, list[str]]:
    """Read a file; return the scan, or None if it is refused, and all that was said."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            scan = fdo.read_scan(path)
        except StudyError as refusal:
            return None, [str(refusal)]
    return scan, [str(each.message) for each in found]


def write(path: Path, arrays: Arrays) -> Path:
    """Write arrays as a file with provenance."""
    record = provenance.new_record("instrument", physics=arrays["physics"])
    plain = {key: value for key, value in arrays.items() if key != "physics"}
    np.savez(path, _metadata=np.array(provenance.dumps(record)), **plain)
    return path


@cache
def reference(number: int) -> NDArray[np.complex64]:
    """Return the reconstruction of the right file."""
    with tempfile.TemporaryDirectory() as folder:
        scan, said = messages(write(Path(folder) / "right.npz", arrays_of(number)))
    assert scan is not None
    assert said == [], "the right file is warned of"
    return fdo.reconstruct(scan, "ml", epochs=2).obj


def try_case(name: str, number: int, folder: Path) -> str:
    """Turn a fact once; return what is wrong with what came of it, or an empty string."""
    rng = np.random.default_rng([SEED, number, *name.encode()])
    chosen = int(rng.integers(SCANS))
    arrays = arrays_of(chosen)
    change = WRONG[name][0] if name in WRONG else HARMLESS[name]
    change(rng, arrays)
    scan, said = messages(write(folder / "wrong.npz", arrays))
    if name in WRONG:
        wanted = WRONG[name][1]
        return "" if any(re.search(wanted, each) for each in said) else f"silent about it: {said}"
    if said or scan is None:
        return f"not harmless: {said}"
    apart = np.abs(fdo.reconstruct(scan, "ml", epochs=2).obj - reference(chosen))
    apart = float(np.sqrt(np.mean(apart[lit_pixels(scan.probe, scan.positions_px, scan.object_shape)] ** 2)))
    return "" if apart < SAME else f"not harmless: reconstructions differ by {apart:.2g}"


def run(*, quick: bool) -> Iterator[Outcome]:
    """Yield the outcomes of wrong and of harmless files; the short form tries each fact once."""
    say(f"wrong: seed {SEED}")
    for kind, names in (("wrong in one fact", WRONG), ("another gauge or layout", HARMLESS)):
        lost: list[str] = []
        slowest = 0.0
        rounds = 1 if quick else ROUNDS
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                for number in range(rounds):
                    started = time.process_time()
                    problem = try_case(name, number, Path(folder))
                    slowest = max(slowest, time.process_time() - started)
                    if problem:
                        lost.append(f"{name}, case {number}: {problem}")
                        say(f"lost: {lost[-1]}")
        tried = rounds * len(names)
        mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        yield Outcome(f"valid input: {kind}", tried, tried - len(lost), slowest, mib, tuple(lost))


if __name__ == "__main__":
    sys.exit(tell(run(quick="--quick" in sys.argv)))
