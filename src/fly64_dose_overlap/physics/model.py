"""The forward model of a scan over one object, and its adjoint."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.physics.detector import Detector, Pixels
from fly64_dose_overlap.physics.illumination import shifted_probes, whole_and_rest
from fly64_dose_overlap.physics.propagation import from_detector, intensity, to_detector
from fly64_dose_overlap.physics.windows import add_patches, windows

FRAMES_PER_BATCH = 32
"""Frames worked on at once: larger batches fall out of the processor's cache."""
FRAMES_PER_GPU_BATCH = 1024
"""Frames worked on at once by a GPU: smaller batches leave it idle."""
KEPT_PROBES_BYTES = 2**28
"""Shifted probes are kept in memory if all frames' take no more, else made anew each time."""


def frames_per_batch(device: torch.device) -> int:
    """Return how many frames suit a device at once."""
    return FRAMES_PER_BATCH if device.type == "cpu" else FRAMES_PER_GPU_BATCH


class ScanModel:
    """Far fields of the frames of a scan, linear in one complex object.

    A frame reads the window of the object at its whole position, and its probe is shifted by
    the rest (`shifted_probes`). Frames are mostly addressed as a slice of the scan, so
    that no array of all patches ever exists.

    Parameters
    ----------
    probe : (mode, y, x) complex, sqrt(photons)
        Mutually incoherent modes, N x N; the squared modulus summed over all axes is the
        photons that fall on the object in one frame.
    positions_px : (frame, 2) float64, object pixels
        The object pixel (y, x) under patch pixel [N/2, N/2].
    object_shape : (int, int)
        Rows and columns.
    detector : Detector, optional
    flux : (frame,) float64, optional
        Light of each frame, in that of the probe; all have it if not given.

    Raises
    ------
    ValueError
        If a window does not lie inside the object, which the data contract warrants.
    """

    def __init__(
        self,
        probe: Complex[Tensor, "mode y x"],
        positions_px: Float[NDArray[np.float64], "frame 2"],
        object_shape: tuple[int, int],
        detector: Detector | None = None,
        flux: Float[NDArray[np.float64], " frame"] | None = None,
    ) -> None:
        self.probe = probe
        self.detector = Detector() if detector is None else detector
        self.side = probe.shape[-1]
        self.shape = object_shape
        self.frames = len(positions_px)
        self.corners, self._shifts = whole_and_rest(positions_px, self.side)
        if np.any(self.corners < 0) or np.any(self.corners + self.side > np.array(object_shape)):
            raise ValueError(f"a {self.side} px window lies outside the object {object_shape}")
        self._places = torch.from_numpy(np.insert(self.corners, 0, 0, axis=1).T).to(probe.device)
        self._probe, self._flux = probe.cpu().numpy(), flux
        self._centring = centring(self.side, probe).cpu().numpy()
        needed = self.frames * probe.numel() * probe.element_size()
        self._kept = self._shifted(slice(None)) if needed <= KEPT_PROBES_BYTES else None

    def batches(self, frames: slice | None = None) -> Iterator[slice]:
        """Yield consecutive slices of the scan, or of a part, with as many frames as suit the device."""
        size = frames_per_batch(self.probe.device)
        start, stop = (0, self.frames) if frames is None else (frames.start, frames.stop)
        for first in range(start, stop, size):
            yield slice(first, min(first + size, stop))

    def probes(self, frames: slice | Int[NDArray[np.int64], " frame"]) -> Complex[Tensor, "frame mode y x"]:
        """Return the probe of some frames, shifted, in their light, with phases that centre its far field."""
        if self._kept is None:
            return self._shifted(frames)
        return self._kept[frames if isinstance(frames, slice) else torch.from_numpy(frames)]

    def _shifted(self, frames: slice | NDArray[np.int64]) -> Tensor:
        # Centred only then: the ramp of a shift needs the probe's own frequencies.
        shifted = shifted_probes(self._probe, self._shifts[frames])
        shifted *= self._centring
        if self._flux is not None:
            shifted *= np.sqrt(self._flux[frames]).astype(np.float32)[:, None, None, None]
        return torch.from_numpy(shifted).to(self.probe.device)

    def pixels(self, frames: slice | Int[NDArray[np.int64], " frame"], fraction: float = 1.0) -> Pixels:
        """Return the detector pixels of some frames, for a part of their photons."""
        return self.detector.pixels(frames, self.probe, fraction)

    def patches(self, obj: Complex[Tensor, "h w"], frames: slice) -> Complex[Tensor, "frame y x"]:
        """Return the windows of the object that some frames see; `place` is the adjoint."""
        return windows(obj[None], self._places[:, frames], self.side)

    def reach(self, frames: slice) -> tuple[slice, slice]:
        """Return the rows and columns of the object that some frames see."""
        low, high = self.corners[frames].min(axis=0), self.corners[frames].max(axis=0) + self.side
        return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))

    def place(self, patches: Tensor, frames: slice, onto: Tensor) -> None:
        """Add patches (frame, y, x) onto an object (y, x), in place: the adjoint of `patches`."""
        add_patches(onto[None], patches, self._places[:, frames])

    def blank(self, dtype: torch.dtype) -> Tensor:
        """Return an object of zeros for `place`."""
        return torch.zeros(self.shape, dtype=dtype, device=self.probe.device)

    def exit_waves(self, obj: Complex[Tensor, "h w"], frames: slice) -> Complex[Tensor, "frame mode y x"]:
        """Return probe times object of some frames, sqrt(photons), up to the phases of `probes`."""
        return self.patches(obj, frames)[:, None] * self.probes(frames)

    def far_field(self, obj: Complex[Tensor, "h w"], frames: slice) -> Complex[Tensor, "frame mode y x"]:
        """Return the far fields of some frames, sqrt(photons), zero frequency at [N/2, N/2]."""
        return to_detector(self.exit_waves(obj, frames))

    def expected(self, obj: Complex[Tensor, "h w"], frames: slice) -> Float[Tensor, "frame y x"]:
        """Return the expected photons of some frames, background included, zero frequency at [N/2, N/2]."""
        return self.pixels(frames).expected(intensity(self.far_field(obj, frames)).sum(dim=1))

    def back_project(
        self,
        far_field: Complex[Tensor, "frame mode y x"],
        frames: slice,
        onto: Complex[Tensor, "h w"],
    ) -> None:
        """Add the adjoint of `far_field` onto an object; see `place`."""
        patches = (from_detector(far_field) * self.probes(frames).conj()).sum(dim=1)
        self.place(patches, frames, onto)


def centring(side: int, like: Complex[Tensor, "..."]) -> Complex[Tensor, "side side"]:
    """Return the phases that move the zero frequency of a transform from [0, 0] to [N/2, N/2].

    A probe that carries them gives far fields in the layout of files, and no array is ever
    turned over.
    """
    turns = torch.arange(side, dtype=torch.float64) * (side // 2) / side
    wave = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)
    return (wave[:, None] * wave).to(like.device, like.dtype)
