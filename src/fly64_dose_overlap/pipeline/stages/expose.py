"""Stage expose: the scan at one dose, its photons drawn, or kept of those that were measured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap import provenance
from fly64_dose_overlap.arrays import Spool
from fly64_dose_overlap.config import PARAMS_FILE, ExposeParams, load_params
from fly64_dose_overlap.files.atomic import sha256_of, write_json_atomic
from fly64_dose_overlap.pipeline.cells import BASE_FILE, HALVES, MEASURED_FILE, dose_file, dose_metrics
from fly64_dose_overlap.pipeline.stages._cli import DoseOption, ParamsOption, require_listed, run
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.study.split import AXIS, closed_gap_px, split_scan

if TYPE_CHECKING:
    from fly64_dose_overlap.scan import Scan

Image = NDArray[np.complex64]


def main(dose: DoseOption, params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write data/dose/DOSE/train.npz and test.npz, and metrics/dose/DOSE.json.

    Photon counts are drawn from the diffraction that the base set's object, probe and positions
    give, so that the scan-averaged frame expects the dose; of measured frames each photon is kept
    with the probability that leaves the dose.
    """
    params = load_params(params_file)
    require_listed(dose, params.doses)
    expose(dose, params.expose)


def expose(dose: int, params: ExposeParams) -> None:
    """Make the scan's counts once and write them, as two halves or all twice."""
    from fly64_dose_overlap.files.dataset import has_frames, write_scan

    measured = has_frames(BASE_FILE)
    scan, obj = (_kept if measured else _drawn)(dose, params.seed)
    photons = np.concatenate([block.sum(axis=(1, 2), dtype=np.int64) for block in scan.blocks()])
    whole = dose_summary(photons, scan.side)
    scan = replace(scan, record=_with_dose(scan.record, dose, whole))
    if params.split == "none" or (params.split == "auto" and measured):
        # Both are the same bytes, which DVC keeps once.
        halves, summaries, division = {name: scan for name in HALVES}, {name: whole for name in HALVES}, None
        frames = f"{len(scan)} frames for training and test"
    else:
        halves, summaries, division = _halves(scan, photons, params)
        counts = {name: len(half) for name, half in halves.items()}
        frames = (
            f"{counts['train']} training and {counts['test']} test frames, "
            f"{division['frames_dropped']} in the gap"
        )
    for name, half in halves.items():
        write_scan(dose_file(dose, name), half, obj)
    content = {"photons_per_frame_nominal": dose, "whole": whole, **summaries, "split": division}
    write_json_atomic(dose_metrics(dose), content)
    mean = whole["photons_per_frame_mean"]
    say(f"expose: {mean:.1f} photons per frame counted, {dose} nominal; {frames}")


def dose_summary(photons: NDArray[np.int64], frame_side_px: int) -> dict[str, Any]:
    """Summarise the photons, (frame,) int64, that were counted in each frame."""
    mean = float(photons.mean())
    return {
        "frames": len(photons),
        "photons_per_frame_mean": mean,
        "photons_per_frame_min": int(photons.min()),
        "photons_per_frame_max": int(photons.max()),
        "photons_per_pixel_mean": mean / frame_side_px**2,
    }


def _drawn(dose: int, seed: int) -> tuple[Scan, Image]:
    """Return the scan with counts that are drawn, on disk, and its object.

    The provenance comes before the frames in a file, and the frames of a half may lie anywhere in
    the scan: on disk, each is drawn once and none is kept in memory.
    """
    from fly64_dose_overlap.files.dataset import read_base
    from fly64_dose_overlap.scan import Scan
    from fly64_dose_overlap.study.dose import BLOCK_FRAMES, Simulation, draw_counts

    base = read_base(BASE_FILE)
    exposed, factor = Simulation(base).with_dose(dose)
    side, (height, width) = base.probe.shape[-1], base.obj.shape
    counts = Spool((len(base.positions_px), side, side), np.float32)
    for block in draw_counts(exposed, seed=seed, dose=dose):
        counts.append(block)
    made = {"amplitude_factor": factor, "block_frames": BLOCK_FRAMES, "parent": BASE_FILE.as_posix()}
    digest = sha256_of(BASE_FILE)
    record = provenance.with_step(
        base.record,
        "simulate",
        "draw photon counts",
        photons_per_frame=dose,
        seed=seed,
        parent_sha256=digest,
        **made,
    )
    scan = Scan(
        counts.finish(),
        exposed.probe,
        base.positions_px,
        (height, width),
        scan_index=base.scan_index,
        record=record,
    )
    return scan, base.obj


def _kept(dose: int, seed: int) -> tuple[Scan, Image]:
    """Return the scan with a part of the photons that were measured, and the reference.

    Raises
    ------
    StudyError
        If fewer photons were measured.
    """
    from fly64_dose_overlap.files.dataset import read_base
    from fly64_dose_overlap.seeding import generator
    from fly64_dose_overlap.study.dose import require_measured
    from fly64_dose_overlap.study.measured import scan_of

    base = read_base(MEASURED_FILE)
    scan = scan_of(base)
    there = scan.photons_per_frame
    require_measured(dose, there)
    part = dose / there
    record = provenance.with_step(
        base.record,
        "thin",
        "keep a part of the photons",
        photons_per_frame=dose,
        seed=seed,
        part=part,
        parent=MEASURED_FILE.as_posix(),
        parent_sha256=sha256_of(MEASURED_FILE),
    )
    return replace(scan.thin(part, generator(seed, "expose", "thin", dose)), record=record), base.obj


def _with_dose(record: provenance.Record, dose: int, whole: dict[str, Any]) -> provenance.Record:
    """Return the record with the dose in its last step and among the physical parameters."""
    *earlier, last = record["data_transformations"]
    last = {**last, "parameters": {**last["parameters"], "measured": whole}}
    mean = whole["photons_per_frame_mean"]
    record = {**record, "data_transformations": [*earlier, last]}
    return provenance.with_physics(record, photons_per_frame_nominal=dose, photons_per_frame_measured=mean)


def _halves(
    scan: Scan, photons: NDArray[np.int64], params: ExposeParams
) -> tuple[dict[str, Scan], dict[str, Any], dict[str, Any]]:
    """Return the two halves of a scan, their doses, and how it was cut."""
    gap_px = closed_gap_px(scan.side) if params.guard_gap_px is None else params.guard_gap_px
    split = split_scan(scan.positions_px, fraction=params.split_fraction, guard_gap_px=gap_px)
    rows = {"train": split.train, "test": split.test}
    summaries = {name: dose_summary(photons[chosen], scan.side) for name, chosen in rows.items()}
    division = {
        "axis": AXIS,
        "fraction": params.split_fraction,
        "cut_px": split.cut_px,
        "guard_gap_px": split.guard_gap_px,
        "frames_dropped": split.dropped,
    }
    halves: dict[str, Scan] = {}
    for name, chosen in rows.items():
        record = provenance.with_step(
            scan.record,
            "split_dataset",
            f"keep the {name} half",
            half=name,
            frames_train=len(split.train),
            frames_test=len(split.test),
            measured=summaries[name],
            parent=BASE_FILE.as_posix(),
            **division,
        )
        halves[name] = replace(scan.frames(chosen), record=record)
    return halves, summaries, division


if __name__ == "__main__":
    run(main)
