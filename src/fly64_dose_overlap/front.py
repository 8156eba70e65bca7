"""The front door: what a notebook needs, without DVC and without params.yaml."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fly64_dose_overlap.arguments import NewFile, checked_call
from fly64_dose_overlap.config import (
    NOTHING_TO_MEND,
    BaseParams,
    Gridsize,
    LimitParams,
    MendParams,
    OverlapParams,
    Seed,
    ViewParams,
)
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import optics_of
from fly64_dose_overlap.files.mapping import Fields
from fly64_dose_overlap.files.own_npz import Modes, read_user_base
from fly64_dose_overlap.methods.base import Learned, Training
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.joint_posterior import calibrated
from fly64_dose_overlap.methods.registry import make_method
from fly64_dose_overlap.methods.run import run_method
from fly64_dose_overlap.outcome import Result, Scores
from fly64_dose_overlap.scan import Scan, Unknown
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.bound import find_limit
from fly64_dose_overlap.scores.evaluation import warn_of_limit, warn_of_turns
from fly64_dose_overlap.scores.frc import cutoff, fourier_ring_correlation
from fly64_dose_overlap.scores.limit import Limit
from fly64_dose_overlap.scores.region import EVALUATION, scan_region
from fly64_dose_overlap.scores.scores import score as scores_of
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.base import make_synthetic_base
from fly64_dose_overlap.study.dose import Simulation, draw_counts
from fly64_dose_overlap.study.gauge import gauged_truth, in_standard_gauge
from fly64_dose_overlap.study.measured import examined, require_truth, warn_of_truth
from fly64_dose_overlap.study.soundness import require_sound
from fly64_dose_overlap.study.views import make_view


@checked_call
def simulate(
    photons_per_frame: Annotated[float, Field(ge=10, le=1e7)] = 1e4,
    *,
    seed: Seed = 42,
    object_kind: str = "star",
    field_px: float = 120.0,
    step_px: float = 5.0,
    jitter_px: float = 0.5,
    frame_side_px: int = 64,
    defocus_um: float = 910.0,
) -> tuple[Scan, NDArray[np.complex64]]:
    """Simulate a raster scan of a synthetic object with a zone plate's probe.

    Parameters
    ----------
    photons_per_frame : float
        Expected photons per frame, averaged over the scan.
    seed : int
        Of the object, the jitter and the photons.
    object_kind : {"star", "texture"}
    field_px : float, object pixels
        Side of the square that the scan covers.
    step_px, jitter_px : float, object pixels
        Pitch of the raster, and standard deviation about it.
    frame_side_px : int
        N.
    defocus_um : float
        Distance of the sample behind the focus.

    Returns
    -------
    scan : Scan
    truth : (y, x) complex64

    Examples
    --------
    >>> scan, truth = simulate(1e3, seed=1, field_px=30, frame_side_px=32, defocus_um=200)
    >>> scan.counts.shape, scan.probe.shape, truth.shape == scan.object_shape
    ((49, 32, 32), (1, 32, 32), True)
    """
    file: dict[str, Any] = {"frames": "auto", "fields": None, "counts_per_photon": None, "noise": "counts"}
    params = BaseParams(
        **file,
        mend=NOTHING_TO_MEND,
        source="synthetic",
        seed=seed,
        frame_side_px=frame_side_px,
        object_kind=object_kind,  # pyright: ignore[reportArgumentType] - checked there
        field_px=field_px,
        step_px=step_px,
        jitter_px=jitter_px,
        defocus_um=defocus_um,
    )
    base, _ = Simulation(in_standard_gauge(make_synthetic_base(params))).with_dose(photons_per_frame)
    drawn = draw_counts(base, seed=seed, dose=round(photons_per_frame))
    counts = np.concatenate([block.astype(np.float32) for block in drawn])
    (height, width), optics = base.obj.shape, optics_of(base.record)
    scan = Scan(counts, base.probe, base.positions_px, (height, width), optics=optics, record=base.record)
    return scan, base.obj


@checked_call
def read_scan(
    path: str | Path,
    *,
    modes: Modes = "all",
    fields: Fields | None = None,
    mend: dict[str, Any] | None = None,
) -> Scan:
    """Read a scan from a file with frames, probe and positions: docs/own-data.md says of which formats.

    Parameters
    ----------
    modes : {"all", "strongest"}
        Of the probe, that are kept.
    fields : dict, optional
        Names of the datasets of any other file: see the same page.
    mend : dict, optional
        What warnings advise: ``{"turn": [...], "bad_pixels": [...], "leave_out": [...]}``, or some of them.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If the file is damaged, lacks something, or holds no frames, or none of counted photons.
    """
    given = {key: _plain(value) for key, value in (mend or {}).items()}
    wrong = MendParams(**{**NOTHING_TO_MEND.model_dump(), **given})
    base = read_user_base(path, modes=modes, fields=fields, mend=wrong)
    scan, found = examined(in_standard_gauge(base), str(path), probe_in_photons=True, mend=wrong)
    for message in found:
        warnings.warn(f"{path}: {message}", stacklevel=3)
    return scan


@checked_call
def view(
    scan: Scan, fraction: Annotated[float, Field(gt=0, le=1)], *, group_side: Gridsize = 1, seed: Seed = 456
) -> Scan:
    """Return a scan with a part of its frames, drawn at random: less overlap, and less fluence.

    Parameters
    ----------
    scan : Scan
    fraction : float
        Part of the frames that is kept.
    group_side : {1, 2}
        Frames are grouped in squares of this side, which the method ``network`` works on.
    seed : int
    """
    sampling = ViewParams(s_img=fraction, n_groups=None, gridsize=group_side)
    overlap = OverlapParams(
        neighbor_count=7,
        metric_neighbor_count=6,
        enable_oversampling=True,
        probe_diameter_px=None,
        seed_subsample=seed,
        seed_grouping=123,
        views={"view": sampling},
    )
    return make_view(scan, sampling, overlap, name=f"{fraction:g}")[0]


@checked_call
def thin(scan: Scan, fraction: Annotated[float, Field(gt=0, lt=1)], *, seed: Seed = 42) -> Scan:
    """Return the scan as it would have been with a part of its photons.

    Each photon is kept with that probability; Poisson counts stay Poisson.

    Examples
    --------
    >>> scan, _ = simulate(1e3, field_px=30, frame_side_px=32, defocus_um=200)
    >>> round(thin(scan, 0.25).photons_per_frame / scan.photons_per_frame, 1)
    0.2
    """
    scan = require_sound(scan)
    # Thinned again with the same seed, it must not meet the same random numbers.
    photons = round(scan.photons_per_frame * len(scan))
    return scan.thin(fraction, generator(seed, "thin", photons))


@checked_call
def train(
    method: str,
    scan: Scan,
    model: NewFile,
    *,
    truth: NDArray[np.complex64] | None = None,
    seed: Seed = 42,
    **settings: Any,
) -> dict[str, Any]:
    """Train a learned method on a scan and write its model.

    Parameters
    ----------
    method : str
    scan : Scan
        What it is trained on; a scan without groups has groups of one frame.
    model : Path or str
        File of the model.
    truth : (y, x) complex64, optional
        For a method that learns from it.
    seed : int
    **settings
        That differ from the method's own.

    Returns
    -------
    dict
        Figures of the training.
    """
    made = make_method(method, _with_defaults(method, settings))
    if not isinstance(made, Learned):
        raise StudyError(method, "has nothing to train", "give it to reconstruct")
    if truth is not None and not made.needs_truth:
        raise StudyError(method, "learns without the true object", "leave truth out")
    if truth is None:
        scan = require_sound(scan)
    else:
        scan, truth = require_truth(scan, truth)
    reached, window = scan.grouped().cropped()
    return made.trained(reached, Training(seed, Path(model)), None if truth is None else truth[window])[0]


@checked_call
def reconstruct(
    scan: Scan, method: str, *, model: str | Path | None = None, seed: Seed = 42, **settings: Any
) -> Result:
    """Reconstruct the object of a scan.

    Parameters
    ----------
    scan : Scan
    method : str
        A name that `fly64_dose_overlap.methods` lists.
    model : Path or str, optional
        Trained model of a learned method. Without one it is trained on the very scan, by
        thinning its photons, which takes a minute or more.
    seed : int
        Of everything random.
    **settings
        That differ from the method's own.

    Returns
    -------
    Result
        For an iteration after all its epochs; the result of the epoch that held-out photons
        choose is among its ``others``.

    Raises
    ------
    StudyError
        If there is no such method or setting, or the scan does not suit it.
    """
    return reconstructed(require_sound(scan), method, model, seed, settings)


def reconstructed(
    scan: Scan, method: str, model: str | Path | None, seed: int, settings: dict[str, Any]
) -> Result:
    """Do what `reconstruct` does with a scan that is known to be sound."""
    made = make_method(method, _with_defaults(method, settings))
    if model is not None and not isinstance(made, Learned):
        raise StudyError(method, "has nothing to train and takes no model", "leave model out")
    given = scan
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(made, Learned):
            scan = made.taken(scan).grouped()
            if model is None:
                model = Path(folder) / "model.safetensors"
                made.trained(scan.cropped()[0], Training(seed, model), None)
            made.load(Path(model))
            made.require_trained_with(settings)
        runs = list(run_method(made, scan, HeldOut(seed=seed)))
    found = [Result.of(each, given, timing.seconds) for each, timing in runs]
    first = next((result for result in found if result.name == method), found[0])
    return replace(first, others={result.name: result for result in found if result is not first})


@checked_call
def calibrate(scan: Scan, unknown: Unknown) -> Scan:
    """Find probe, positions and flux of a scan together with its object: docs/unknown.md.

    A method that is given ``replace(scan, unknown=Unknown(...))`` does this first, and so for each half of
    the data where halves are compared. What a bright scan tells of a probe can be used for a dim one.

    Parameters
    ----------
    scan : Scan
        With a probe and positions that are about right.
    unknown : Unknown
        What is looked for, such as ``Unknown(probe=True)``.

    Returns
    -------
    Scan
        With what was found.

    Examples
    --------
    >>> scan, _ = simulate(1e4, field_px=30, frame_side_px=32, defocus_um=200)
    >>> calibrate(scan, Unknown(flux=0.1)).flux.shape == (len(scan),)
    True
    """
    if not unknown:
        raise StudyError("calibrate", "nothing is unknown", "set its probe, positions_px or flux")
    return calibrated(replace(require_sound(scan), unknown=unknown), "calibrate")


@checked_call
def score(result: Result, truth: NDArray[np.complex64]) -> Scores:
    """Compare a reconstruction with the true object.

    What ptychography leaves open, a shift, a complex factor and a linear phase ramp, is taken
    off first, and only the illuminated region counts: docs/metrics.md.

    Parameters
    ----------
    result : Result
    truth : (y, x) complex64
    """
    scan = result.scan
    truth = gauged_truth(scan, truth)[1]
    warn_of_truth(scan, truth, stacklevel=4)
    region = scan_region(scan.illumination(), scan.positions_px, EVALUATION.region_threshold)
    aligned = align_to(truth, result.obj, region, upsampling=EVALUATION.registration_upsampling)
    warn_of_limit(result.label, aligned, stacklevel=3)
    warn_of_turns(result.label, truth, result.obj, aligned, region, stacklevel=3)
    details = scores_of(truth, aligned.field, region)
    inside = region.rectangle
    frc50 = cutoff(fourier_ring_correlation(truth[inside], aligned.field[inside]), "half")
    phase, amplitude = details["phase"], details["amplitude"]
    found = (phase["psnr_db"], amplitude["psnr_db"], phase["ssim"], details["complex_nrmse"], frc50)
    return Scores(result.label, *found, region.pixels, details)


@checked_call
def limit(scan: Scan, truth: NDArray[np.complex64], *, seed: Seed = 42, vectors: int = 1) -> Limit:
    """Return the least errors that the photons of a scan allow, at its own and at other doses.

    Parameters
    ----------
    scan : Scan
    truth : (y, x) complex64
        A bound is taken at the true object.
    seed, vectors : int
        Of the random vectors that average over the object, and their number.

    Returns
    -------
    Limit
        ``limit.psnr_db("phase", scan.photons_per_frame)`` and others.
    """
    scan, truth = require_truth(scan, truth)
    settings = LimitParams(seed=seed, vectors=vectors, iterations=400, tolerance=0.001)
    found = find_limit(scan, truth, EVALUATION.region_threshold, settings)
    if not found.converged:
        warnings.warn("the scan hardly determines its object: the limit had not converged", stacklevel=3)
    return found


def _with_defaults(method: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    return {**make_method(method).settings.model_dump(), **settings} if settings else None


def _plain(value: Any) -> Any:
    """Return lists and numbers of Python for those of NumPy, and for tuples."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
