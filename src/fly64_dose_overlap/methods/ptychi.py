"""The iterative methods of pty-chi: LSQML, rPIE, ePIE, automatic differentiation."""

from __future__ import annotations

import itertools
import logging
import random
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods._torchvision import torchvision_for_import
from fly64_dose_overlap.methods.base import Iteration
from fly64_dose_overlap.methods.posterior import flat_object
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.seeding import torch_seed

_before = random.getstate()
with torchvision_for_import():
    from ptychi import api, image_proc, maths
    from ptychi.api.task import PtychographyTask
    from ptychi.forward_models import PlanarPtychographyForwardModel as ForwardModel
# What pty-chi imports draws from the global generator.
random.setstate(_before)

# It warns of every choice that differs from its defaults, and shows a bar at level INFO.
logging.getLogger("ptychi").setLevel(logging.ERROR)

Algorithm = Literal["lsqml", "rpie", "epie", "autodiff"]

_NEVER = 2**31
_OWN_SHIFT = ForwardModel.shift_unique_probes

PROBE_FROM, POSITIONS_FROM = 0.1, 0.3
"""Part of its epochs from which on pty-chi corrects a probe and positions, if they are unknown."""
LEAST_LOST, MOST_LOST = 0.01, 0.9
"""Part of the photons that a mask of all frames leaves out: from the first on it is said, from the second
on nothing is reconstructed."""


class PtychiIteration(Iteration):
    """One setting of pty-chi, whose forward model is its own.

    Probe and positions are fixed, unless the scan says that they are unknown: then it corrects them by
    its own means. It takes the light of all frames for the same.
    """

    threaded = False
    refines = True
    algorithm: ClassVar[Algorithm]
    """``lsqml`` (Odstrcil et al., Opt. Express 26, 3108, 2018) with its Gaussian noise model; ``rpie``
    and ``epie`` (Maiden et al., Optica 4, 736, 2017); ``autodiff``, gradient descent on the Poisson
    likelihood."""
    batch_frames: ClassVar[int]
    """Frames per update. rPIE and ePIE add the updates of a batch up, and diverge where many of its
    frames overlap."""
    compact: ClassVar[bool] = False
    """Batches of neighbouring frames, found by k-means, instead of random ones; LSQML then updates the
    object once per epoch."""
    momentum: ClassVar[float] = 0.0
    """Gain of LSQML's acceleration, which works with ``compact`` only."""
    alpha: ClassVar[float] = 0.1
    """Regularisation of rPIE, step length of ePIE."""
    step: ClassVar[float] = 1.0
    """Learning rate of ``autodiff`` (Adam), factor on the updates of rPIE and ePIE; over the root of the
    `overlap`. The more often an epoch updates a pixel, the larger is the noise that full steps leave."""
    background_photons: ClassVar[float] = 0.0
    """Added to the expected counts inside the logarithm of the likelihood (``autodiff``); without it the
    gradient is unbounded where no photon is expected."""

    def _require_light(self, scan: Scan) -> None:
        """Warn of photons that a mask of each frame leaves out of all, and refuse if most are."""
        if scan.mask is None or scan.mask.ndim == 2:
            return
        always, counted, kept = scan.always_counting, 0.0, 0.0
        for frames in scan.model.batches():
            counts = scan.counts[frames] * scan.mask[frames]
            counted += float(counts.sum(dtype=np.float64))
            kept += float((counts * always).sum(dtype=np.float64))
        lost = 1 - kept / max(counted, 1.0)
        problem = f"takes one mask for all frames, which leaves out {lost:.0%} of the photons"
        if lost > MOST_LOST:
            hint = "mask fewer pixels, the same in every frame, or take a method of ours"
            raise StudyError(self.label, problem, hint)
        if lost > LEAST_LOST:
            warnings.warn(f"{self.label} {problem}", stacklevel=4)

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield the object after every epoch, from an empty one; one that is not finite is refused.

        Of a mask, which pty-chi takes one of for all frames, pixels are left out that do not count
        in some frame. It knows no background.
        """
        if scan.background is not None:
            problem = "pty-chi knows no background, and takes it for light that the object scattered"
            warnings.warn(f"{self.label}: {problem}", stacklevel=2)
        if scan.unknown.flux:
            warnings.warn(f"{self.label} takes the light of all frames for the same", stacklevel=2)
        self._require_light(scan)
        task_seed = torch_seed(seed, "ptychi", self.name)
        state = _GlobalState(task_seed)
        with state.swapped_in():
            task = build_task(self, scan, task_seed)
        for epoch in itertools.count(1):
            with state.swapped_in():
                task.run(1)
                obj: Tensor = task.get_data("object")[0]
                found = State(obj, *_found(task, scan))
            if not bool(torch.isfinite(torch.view_as_real(obj)).all()):
                problem = f"the object is not finite after epoch {epoch}"
                hint = "do probe and counts belong together? with rPIE and ePIE, take fewer frames per batch"
                raise StudyError(f"pty-chi {self.name}", problem, hint)
            yield found


class _GlobalState:
    """The global generators and torch's defaults as pty-chi needs them, put in place for a step.

    pty-chi draws from the global generators of random, numpy and torch. They, the default
    type and the gradient mode are the caller's again whenever pty-chi is not at work, and
    its functions that others stand in for are its own again.
    """

    def __init__(self, seed: int) -> None:
        self._states = (
            random.Random(seed).getstate(),
            np.random.RandomState(seed % 2**32).get_state(),
            torch.Generator().manual_seed(seed).get_state(),
        )

    @contextmanager
    def swapped_in(self) -> Generator[None]:
        """Run the block under this state; keep what it changes for the next block."""
        before, dtype = _exchange_states(self._states), torch.get_default_dtype()
        own = maths.polyfit, image_proc.fourier_shift, ForwardModel.shift_unique_probes
        # Naming the processor where it is the default would slow every call of torch.
        elsewhere = torch.get_default_device().type != "cpu"
        torch.set_default_dtype(torch.float32)
        maths.polyfit, image_proc.fourier_shift = _polyfit, _fourier_shift
        ForwardModel.shift_unique_probes = _shift_all_modes
        try:
            with torch.device("cpu") if elsewhere else nullcontext(), torch.enable_grad():
                yield
        finally:
            self._states = _exchange_states(before)
            maths.polyfit, image_proc.fourier_shift, ForwardModel.shift_unique_probes = own
            torch.set_default_dtype(dtype)


def _polyfit(x: Tensor, y: Tensor, deg: int = 1) -> Tensor:
    """Return the coefficients of the polynomial that fits y at x best, the highest power first.

    In place of pty-chi's own, which LSQML's acceleration calls. That one takes torch's
    default driver, whose pivots start from memory that nobody has set (pytorch issue
    71222): the last digits of the result are then others in every run.
    """
    powers = x[:, None] ** torch.arange(deg, -1, -1)
    return torch.linalg.lstsq(powers, y[:, None], driver="gelsd").solution[:, 0]


def _fourier_shift(images: Tensor, shifts: Tensor) -> Tensor:
    """Return images (frame, y, x) shifted by fractions of a pixel (frame, 2), y first.

    In place of pty-chi's own, which takes the complex exponential of every pixel of every
    frame: a third of LSQML's time. A ramp is the product of one along y and one along x.
    """
    ramps = [
        torch.exp(-2j * torch.pi * torch.fft.fftfreq(side) * shift[:, None])
        for side, shift in zip(images.shape[-2:], shifts.T, strict=True)
    ]
    spectrum = torch.fft.fft2(images)
    spectrum *= ramps[0][:, :, None] * ramps[1][:, None, :]
    shifted = torch.fft.ifft2(spectrum)
    return shifted if images.is_complex() else shifted.real


def _shift_all_modes(
    self: ForwardModel, indices: Tensor, unique_probes: Tensor, first_mode_only: bool = False
) -> Tensor:
    """Shift every mode of probes (frame, mode, y, x): pty-chi shifts the first alone by parts of a pixel."""
    del first_mode_only
    modes = [_OWN_SHIFT(self, indices, mode, first_mode_only=True) for mode in unique_probes.split(1, dim=1)]
    return torch.cat(modes, dim=1)


def _exchange_states(states: tuple[Any, Any, Tensor]) -> tuple[Any, Any, Tensor]:
    """Give random's, numpy's and torch's global generators other states; return those that they had."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
    return before


class _Task(PtychographyTask):
    """pty-chi's task without its lasting default device, and without warnings of data that fit."""

    def build_default_device(self) -> None:
        """Stay on the device of the block."""

    def check_task_data(self) -> None:
        """Trust the data contract."""


def _valid_pixels(scan: Scan) -> Tensor | None:
    if scan.mask is None:
        return None
    always = scan.mask if scan.mask.ndim == 2 else scan.mask[:].all(axis=0)
    return torch.fft.ifftshift(torch.from_numpy(np.ascontiguousarray(always)))


@torch.no_grad()
def build_task(method: PtychiIteration, scan: Scan, seed: int) -> Any:
    """Return pty-chi's task, ready to run; it draws from the global generators.

    Its far field is not normalised, hence the factor on the probe.
    """
    positions = torch.from_numpy(scan.positions_px)
    counts = torch.fft.ifftshift(torch.from_numpy(np.asarray(scan.counts[:], np.float32)), dim=(-2, -1))
    if (valid := _valid_pixels(scan)) is not None:
        counts *= valid  # LSQML's step lengths heed the counts of all pixels
    task: Any = _Task(
        _options(method, scan, method.step / overlap(scan) ** 0.5),
        diffraction_data=counts,
        object_data=flat_object(scan)[None],
        probe_data=(torch.from_numpy(scan.probe) / scan.side)[None],
        probe_position_x_px=positions[:, 1],
        probe_position_y_px=positions[:, 0],
        valid_pixel_mask=valid,
    )
    solver = task.reconstructor
    # Draws the random batches, and starts from one fixed number otherwise.
    solver.dataloader.generator.manual_seed(seed)
    if method.algorithm == "autodiff":
        # Its own Poisson loss takes the logarithm of the counts for input: the object never moves.
        solver.loss_function = torch.nn.PoissonNLLLoss(log_input=False, eps=method.background_photons)
    return task


def overlap(scan: Scan) -> float:
    """Return the light on the brightest object pixel over that at the peak of one probe."""
    power = (np.abs(scan.probe) ** 2).sum(axis=0)
    return float(scan.illumination().max() / power.max())


def _found(task: Any, scan: Scan) -> tuple[Tensor | None, NDArray[np.float64] | None]:
    """Return the probe and the positions of a task where it looks for them; a window stays on the grid."""
    probe = positions = None
    if scan.unknown.probe:
        probe = (task.get_data("probe")[0] * scan.side).to(torch.complex64)
    if scan.unknown.positions_px:
        positions = scan.on_grid(task.get_data("probe_positions").double().numpy())
    return probe, positions


def _options(method: PtychiIteration, scan: Scan, step: float) -> Any:
    """Switch off all that would change the scale of the object, or what is known."""
    classes = {
        "lsqml": api.LSQMLOptions,
        "rpie": api.RPIEOptions,
        "epie": api.EPIEOptions,
        "autodiff": api.AutodiffPtychographyOptions,
    }
    options: Any = classes[method.algorithm]()
    side, unknown, epochs = scan.side, scan.unknown, method.settings.epochs
    options.data_options.fft_shift = False
    obj, probe, solver = options.object_options, options.probe_options, options.reconstructor_options
    # A position names the pixel under [N/2, N/2], for pty-chi the middle of the patch.
    obj.position_origin_coords = [(side - 1) / 2 - side // 2] * 2
    obj.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
    obj.remove_object_probe_ambiguity.enabled = False
    obj.build_preconditioner_with_all_modes = True
    probe.optimizable = unknown.probe
    probe.orthogonalize_incoherent_modes.enabled = unknown.probe and len(scan.probe) > 1
    probe.orthogonalize_opr_modes.enabled = False
    if unknown.probe:
        probe.optimization_plan.start = round(PROBE_FROM * epochs)
        probe.power_constraint.enabled = True
        probe.power_constraint.probe_power = float((np.abs(scan.probe) ** 2).sum(dtype=np.float64)) / side**2
    else:
        # The illumination is mapped anew in epochs after this one, as if the probe had changed.
        probe.optimization_plan.start = _NEVER
    if unknown.positions_px:
        position = options.probe_position_options
        position.optimizable = True
        position.optimization_plan.start = round(POSITIONS_FROM * epochs)
    solver.batch_size = method.batch_frames
    solver.default_device = api.Devices.CPU
    solver.allow_nondeterministic_algorithms = False
    if method.compact:
        solver.batching_mode = api.BatchingModes.COMPACT
    if method.algorithm == "lsqml":
        solver.rescale_probe_intensity_in_first_epoch = False
        solver.momentum_acceleration_gain = method.momentum
        solver.solve_step_sizes_only_using_first_probe_mode = False
    elif method.algorithm == "autodiff":
        solver.displayed_loss_function = None
        obj.optimizer = api.Optimizers.ADAM
        obj.step_size = step
    else:
        obj.alpha, obj.step_size = method.alpha, step
    return options
