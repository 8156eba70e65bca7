"""The scan: what an instrument recorded, and all that a method may see."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import Brief, DiskArray, FrameArray, described, select_rows, spool
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.physics.illumination import illumination, require_positions
from fly64_dose_overlap.physics.thinning import FRAMES_PER_BLOCK, divide
from fly64_dose_overlap.provenance import Record

if TYPE_CHECKING:
    from fly64_dose_overlap.config import RefineParams
    from fly64_dose_overlap.physics.detector import Detector
    from fly64_dose_overlap.physics.model import ScanModel


HC_EV_M = 1.239841984e-6
"""Planck's constant times the speed of light, electronvolt metres (CODATA 2018)."""
AXES = {
    "counts": ("real", "iuf", "(frame, y, x)"),
    "probe": ("complex", "c", "(mode, y, x)"),
    "positions_px": ("real", "iuf", "(frame, 2)"),
    "scan_index": ("whole", "iu", "(frame,)"),
    "groups": ("whole", "iu", "(group, C)"),
}
"""Of the arrays of a `Scan`: their numbers, in words and as NumPy's kinds, and their axes."""


@dataclass(frozen=True)
class Optics:
    """Wavelength and lengths of the instrument, in metres.

    Attributes
    ----------
    wavelength_m : float
    object_pixel_m : float
        Side of a pixel of the object's grid.
    detector_pixel_m, distance_m : float, optional
        Side of a detector pixel, and the distance from the object to the detector.
    """

    wavelength_m: float
    object_pixel_m: float
    detector_pixel_m: float | None = None
    distance_m: float | None = None


JUST_HALF = 0.499
"""Of a pixel, by which a position may leave the grid."""
MOST_MODES = 8
"""Of a probe that is looked for."""
ANEW = "anew"
"""A probe that is looked for without the one that is given."""


@dataclass(frozen=True)
class Unknown:
    """What of a scan is not quite right: a method looks for it with the object, or is given what was found.

    Attributes
    ----------
    probe : bool or "anew"
        Whether the probe is off; its frame is taken for about right. "anew": it is not looked at, and one
        of one mode, if ``modes`` does not say otherwise, is made of the frames.
    modes : int or "auto", optional
        Of a probe that is off: how many it has, up to 8; "auto": as many as held-out photons tell of;
        if not given, those that it is given with.
    positions_px : float, object pixels
        Standard deviation of each coordinate about the scan's own; 0: they are right.
    flux : float
        Standard deviation of the logarithm of each frame's light; 0: it is right.
    """

    probe: bool | Literal["anew"] = False
    positions_px: float = 0.0
    flux: float = 0.0
    modes: int | Literal["auto"] | None = None

    def __post_init__(self) -> None:
        if self.probe not in (False, True, ANEW):
            raise StudyError("unknown", f"probe must be false, true or anew, got {self.probe!r}")
        if self.modes not in (None, "auto", *range(1, MOST_MODES + 1)):
            problem = f"modes must be auto or from 1 to {MOST_MODES}, got {self.modes}"
            raise StudyError("unknown", problem)
        if self.modes is not None and not self.probe:
            raise StudyError("unknown", "modes are of a probe that is looked for", "set probe, or no modes")
        for name, most in (("positions_px", 10), ("flux", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise StudyError("unknown", f"{name} must be from 0 to {most}, got {getattr(self, name)}")

    def __bool__(self) -> bool:
        return self != Unknown()

    @classmethod
    def of(cls, params: RefineParams) -> Unknown:
        """Return what section ``refine`` says is to be found."""
        return cls(params.probe, params.positions, params.flux, params.modes)


@dataclass(frozen=True, eq=False, repr=False)
class Scan(Brief):
    """Counted photons of a ptychographic scan, and what is known of its probe and positions.

    It holds no object, so that no ground truth can leak into a method.

    Attributes
    ----------
    counts : (frame, y, x) float32, photons
        Whole numbers, zero frequency at [N/2, N/2]; in memory or on disk, and read by rows:
        ``scan.counts[10:20]`` is an array.
    probe : (mode, y, x) complex64, sqrt(photons)
        Mutually incoherent modes, N x N, of the unitary convention: the expected counts are
        abs(fft2(probe * object, norm="ortho"))^2 summed over the modes.
    positions_px : (frame, 2) float64, object pixels
        (y, x) of the object pixel under patch pixel [N/2, N/2].
    object_shape : (int, int)
        Rows and columns of the object's grid.
    scan_index : (frame,) int64
        Number of each frame in the scan that it was recorded in; counted if not given.
    groups : (group, C) int, optional
        Frame indices of the groups that a view was divided into.
    mask : (y, x) or (frame, y, x) bool, optional
        Detector pixels that count, in all frames or in each; all if not given.
    background : (y, x) float32, optional, photons
        Expected photons of each detector pixel that do not come through the object.
    flux : (frame,) float64, optional
        Light of each frame, in that of the probe; all have it if not given.
    unknown : Unknown
        What of the above is not quite right, for methods to find; nothing if not given.
    optics : Optics, optional
    record : dict
        Provenance.

    Raises
    ------
    StudyError
        If arrays have other numbers or axes or do not belong together, or a window leaves the grid.
        At the many counts `require_sound` looks.
    """

    counts: FrameArray
    probe: Complex[NDArray[np.complex64], "mode y x"]
    positions_px: Float[NDArray[np.float64], "frame 2"]
    object_shape: tuple[int, int]
    scan_index: Int[NDArray[np.int64], " frame"] = field(default_factory=lambda: np.zeros(0, np.int64))
    groups: Int[NDArray[Any], "group C"] | None = None
    mask: Bool[NDArray[np.bool_], "*frame y x"] | DiskArray | None = None
    background: Float[NDArray[np.float32], "y x"] | None = None
    flux: Float[NDArray[np.float64], " frame"] | None = None
    unknown: Unknown = Unknown()
    optics: Optics | None = None
    record: Record = field(default_factory=lambda: {})

    also_shown = ("side", "photons_per_frame")

    def __post_init__(self) -> None:
        self._require_axes()
        frames, side = len(self.counts), self.probe.shape[-1]
        if {self.counts.shape[1:], self.probe.shape[1:]} != {(side, side)}:
            problem = f"frames are {self.counts.shape[1:]} and the probe is {self.probe.shape}"
            raise StudyError("scan", problem, "frames are (frame, N, N), a probe is (mode, N, N)")
        if not len(self.scan_index):
            object.__setattr__(self, "scan_index", np.arange(frames))
        for name, shape in (("positions", self.positions_px.shape), ("a scan_index", self.scan_index.shape)):
            if shape != (frames, 2)[: len(shape)]:
                raise StudyError("scan", f"{frames} frames have {name} of shape {shape}")
        if not (np.isfinite(self.probe).all() and self.probe.any()):
            raise StudyError("scan", "the probe must be finite and not zero everywhere")
        require_positions(self.positions_px)
        self._require_windows()
        if self.groups is not None:
            check_groups("scan", self.groups, frames)
        held: Any = (self.optics, self.record)
        if not isinstance(held[0], Optics | None) or not isinstance(held[1], dict):
            raise StudyError("scan", "optics must be Optics and a record must be a dict", "or leave them out")
        self._require_detector()

    def _require_axes(self) -> None:
        for name, (numbers, kinds, axes) in AXES.items():
            found: Any = getattr(self, name)
            if name == "groups" and found is None:
                continue
            if isinstance(found, np.ma.MaskedArray):
                problem = f"{name} are masked, and no method heeds a mask"
                raise StudyError("scan", problem, "leave such frames out")
            is_array = isinstance(found, np.ndarray | DiskArray) and not isinstance(found, np.matrix)
            is_array = is_array and found.dtype.isnative and found.dtype.char not in "gG"
            if not is_array or found.dtype.kind not in kinds or found.ndim != len(axes.split(", ")):
                problem = f"{name} must be an array of {numbers} numbers {axes}, got {described(found)}"
                raise StudyError("scan", problem, "convert it by NumPy")

    def _require_detector(self) -> None:
        frames = self.counts.shape
        for name, found, kind, numbers, shapes in (
            ("mask", self.mask, "b", "boolean", (frames, frames[1:])),
            ("background", self.background, "f", "real", (frames[1:],)),
            ("flux", self.flux, "f", "real", (frames[:1],)),
        ):
            if found is not None and (found.dtype.kind != kind or found.shape not in shapes):
                problem = f"{name} is {described(found)}, frames are {frames}"
                wanted = f"{numbers} numbers of shape {' or '.join(map(str, shapes))}"
                raise StudyError("scan", problem, f"it must be {wanted}")
        dark = self.background
        if dark is not None and not (np.isfinite(dark) & (dark >= 0)).all():
            problem = "the background must be finite and not negative"
            raise StudyError("scan", problem, "give expected photons")
        if self.flux is not None and not (np.isfinite(self.flux) & (self.flux > 0)).all():
            raise StudyError("scan", "flux must be finite and above zero", "leave dark frames out")
        if self.mask is not None and not any(self.mask[n].any() for n in range(len(self.mask))):
            raise StudyError("scan", "the mask leaves no pixel", "True stands for pixels that count")

    def _require_windows(self) -> None:
        shape: Any = self.object_shape
        if isinstance(shape, tuple):
            shape = tuple(each.item() if isinstance(each, np.integer) else each for each in shape)
            object.__setattr__(self, "object_shape", shape)
        if not isinstance(shape, tuple) or [isinstance(each, int) for each in shape] != [True, True]:
            raise StudyError("scan", f"object_shape must be a tuple of rows and columns, got {shape}")
        corners = np.rint(self.positions_px) - self.side // 2
        outside = int(((corners < 0) | (corners + self.side > shape)).any(axis=1).sum())
        if outside:
            problem = f"{outside} of {len(self)} positions put the probe ({self.side} px) outside {shape}"
            raise StudyError("scan", problem, "are positions in object pixels?")

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def side(self) -> int:
        """Detector pixels along one side of a frame, N."""
        return self.probe.shape[-1]

    @property
    def photons_per_frame(self) -> float:
        """Mean photons counted in a frame."""
        return sum(float(block.sum(dtype=np.float64)) for block in self.blocks()) / len(self)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the counts of consecutive frames, (frame, y, x); pixels that do not count have none."""
        for first in range(0, len(self), FRAMES_PER_BLOCK):
            frames = slice(first, first + FRAMES_PER_BLOCK)
            counts = np.asarray(self.counts[frames])
            if self.mask is not None:
                counts = np.where(self.mask if self.mask.ndim == 2 else self.mask[frames], counts, 0)
            yield counts

    def cleared(self) -> Scan:
        """Return the scan without what the detector left in pixels that do not count, NaN or anything."""
        if self.mask is None:
            return self
        return replace(self, counts=spool(self.counts.shape, np.float32, self.blocks()))

    @property
    def always_counting(self) -> NDArray[np.bool_]:
        """Detector pixels that count in every frame, (y, x)."""
        return self.counting_part == 1

    @property
    def counting_part(self) -> Float[NDArray[np.float64], "y x"]:
        """Part of the frames in which each detector pixel counts."""
        if self.mask is None:
            return np.ones((self.side, self.side))
        mask: NDArray[np.bool_] = np.asarray(self.mask)
        return mask.astype(np.float64) if mask.ndim == 2 else mask.mean(axis=0)

    @property
    def detector(self) -> Detector:
        """What of the detector counts, and what it counts beside the light of the object."""
        # Torch takes seconds to import, which reading and looking at a scan need not wait for.
        from fly64_dose_overlap.physics.detector import Detector

        return Detector(self.mask, self.background)

    @cached_property
    def model(self) -> ScanModel:
        """The forward model of the scan, on the processor."""
        import torch

        from fly64_dose_overlap.physics.model import ScanModel

        probe = torch.from_numpy(self.probe)
        return ScanModel(probe, self.positions_px, self.object_shape, self.detector, self.flux)

    def illumination(self) -> Float[NDArray[np.float64], "h w"]:
        """Return the photons that fall on each object pixel over the scan."""
        return illumination(self.probe, self.positions_px, self.object_shape, self.flux)

    def on_grid(
        self, positions_px: Float[NDArray[np.float64], "frame 2"]
    ) -> Float[NDArray[np.float64], "frame 2"]:
        """Return positions, object pixels, moved back to where windows lie on the object's grid."""
        corner = self.side // 2
        # What is below half a pixel is rounded off.
        most = np.array(self.object_shape) - self.side + corner + JUST_HALF
        return np.clip(positions_px, corner - JUST_HALF, most)

    def frames(self, chosen: Int[NDArray[Any], " chosen"]) -> Scan:
        """Return the scan of some frames, by their numbers; it has no groups."""
        return replace(
            self,
            counts=select_rows(self.counts, chosen),
            positions_px=self.positions_px[chosen],
            scan_index=self.scan_index[chosen],
            groups=None,
            mask=self.mask if self.mask is None or self.mask.ndim == 2 else select_rows(self.mask, chosen),
            flux=None if self.flux is None else self.flux[chosen],
        )

    def lent(self) -> Scan:
        """Return the scan for a method, which may overwrite all that it is given: counts are on disk."""
        names = ("probe", "positions_px", "scan_index", "groups", "background", "flux", "record")
        own = {name: deepcopy(getattr(self, name)) for name in names}
        counts = self.counts
        if not isinstance(counts, DiskArray):
            counts = spool(counts.shape, counts.dtype, [counts])
        return replace(self, counts=counts, **own)

    def grouped(self) -> Scan:
        """Return the scan with groups, of one frame each if it has none."""
        groups = np.arange(len(self), dtype=np.int32)[:, None] if self.groups is None else self.groups
        return replace(self, groups=groups)

    def divide(self, fraction: float, rng: np.random.Generator) -> tuple[Scan, Scan]:
        """Divide the photons into two independent scans, the first with ``fraction`` of them.

        Each photon goes to the first with that probability, which keeps Poisson counts
        Poisson. Either probe is scaled to its share, so that both see the same object.
        """
        first, second = divide(self.counts, fraction, rng)
        return self.with_counts(first, fraction), self.with_counts(second, 1 - fraction)

    def thin(self, fraction: float, rng: np.random.Generator) -> Scan:
        """Return the scan as it would have been at a lower dose."""
        return self.divide(fraction, rng)[0]

    def with_counts(self, counts: FrameArray, fraction: float) -> Scan:
        """Return the scan with a part of its photons, probe and background scaled to them."""
        probe = (self.probe * np.float32(fraction**0.5)).astype(np.complex64)
        dark = None if self.background is None else self.background * np.float32(fraction)
        return replace(self, counts=counts, probe=probe, background=dark)

    def cropped(self, margin_px: int = 0) -> tuple[Scan, tuple[slice, slice]]:
        """Return the scan on the part of the object's grid that its windows reach, and where that lies."""
        corners = np.rint(self.positions_px).astype(int) - self.side // 2
        low = np.maximum(corners.min(axis=0) - margin_px, 0)
        high = np.minimum(corners.max(axis=0) + self.side + margin_px, self.object_shape)
        rows, columns = slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        return replace(self, positions_px=self.positions_px - low, object_shape=shape), (rows, columns)


def check_groups(where: str, groups: NDArray[Any], frames: int, frames_per_group: int | None = None) -> None:
    """Refuse groups that are no (group, C) numbers of frames, each once in a group, C a square or given."""
    if groups.dtype.kind not in "iu" or groups.ndim != 2 or groups.shape[0] == 0:
        found = f"{groups.dtype} {groups.shape}"
        raise StudyError(where, f"'groups' must hold integers with axes (group, C), got {found}")
    found = groups.shape[1]
    expected = max(1, math.isqrt(found)) ** 2 if frames_per_group is None else frames_per_group
    if found != expected:
        raise StudyError(where, f"'groups' has {found} frames per group, expected C={expected}")
    low, high = int(groups.min()), int(groups.max())
    if low < 0 or high >= frames:
        raise StudyError(where, f"'groups' refers to frames {low} to {high}, but there are 0 to {frames - 1}")
    ordered = np.sort(groups, axis=1)
    repeats = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if repeats.size:
        raise StudyError(where, f"group {repeats[0]} of 'groups' holds a frame more than once")


def embedded(
    image: NDArray[np.complexfloating[Any, Any]], window: tuple[slice, slice], shape: tuple[int, int]
) -> Complex[NDArray[np.complex64], "h w"]:
    """Return an image of a part of the object's grid on the whole grid, one around it."""
    whole = np.ones(shape, np.complex64)
    whole[window] = image
    return whole
