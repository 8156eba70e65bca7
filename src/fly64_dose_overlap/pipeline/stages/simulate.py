"""Stage simulate: the scan at one dose, with photon noise, in two halves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap import provenance
from fly64_dose_overlap.arrays import DiskArray, Spool
from fly64_dose_overlap.config import PARAMS_FILE, SimulateParams, load_params
from fly64_dose_overlap.files.atomic import sha256_of, write_json_atomic
from fly64_dose_overlap.pipeline.cells import BASE_FILE, dose_file, dose_metrics
from fly64_dose_overlap.pipeline.stages._cli import DoseOption, ParamsOption, require_listed, run
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.study.split import AXIS, closed_gap_px, split_scan

if TYPE_CHECKING:
    from fly64_dose_overlap.files.dataset import BaseSet


def main(dose: DoseOption, params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write data/dose/DOSE/train.npz and test.npz, and metrics/dose/DOSE.json.

    Photon counts are drawn from the diffraction that the base set's object, probe and
    positions give; the scan-averaged frame expects the dose.
    """
    params = load_params(params_file)
    require_listed(dose, params.doses)
    simulate(dose, params.simulate)


def simulate(dose: int, params: SimulateParams) -> None:
    """Draw the scan's counts once and write them as two halves."""
    from fly64_dose_overlap.files.dataset import read_base, write_scan
    from fly64_dose_overlap.scan import Scan
    from fly64_dose_overlap.study.dose import Simulation

    base = read_base(BASE_FILE)
    height, width = base.obj.shape
    side = base.probe.shape[-1]
    gap_px = closed_gap_px(side) if params.guard_gap_px is None else params.guard_gap_px
    split = split_scan(base.positions_px, fraction=params.split_fraction, guard_gap_px=gap_px)
    scan, factor = Simulation(base).with_dose(dose)
    counts, photons = _draw(scan, params.seed, dose)
    halves = {"train": split.train, "test": split.test}
    measured = {"whole": photons, **{name: photons[rows] for name, rows in halves.items()}}
    summaries = {name: dose_summary(each, side) for name, each in measured.items()}
    record = _drawn(base.record, dose, params.seed, factor, summaries["whole"])
    division = {
        "axis": AXIS,
        "fraction": params.split_fraction,
        "cut_px": split.cut_px,
        "guard_gap_px": split.guard_gap_px,
        "frames_dropped": split.dropped,
    }
    for name, rows in halves.items():
        half_record = provenance.with_step(
            record,
            "split_dataset",
            f"keep the {name} half",
            half=name,
            frames_train=len(split.train),
            frames_test=len(split.test),
            measured=summaries[name],
            parent=BASE_FILE.as_posix(),
            **division,
        )
        half = Scan(
            counts.select_rows(rows),
            scan.probe,
            base.positions_px[rows],
            (height, width),
            scan_index=base.scan_index[rows],
            record=half_record,
        )
        write_scan(dose_file(dose, name), half, base.obj)
    write_json_atomic(dose_metrics(dose), {"photons_per_frame_nominal": dose, **summaries, "split": division})
    mean = summaries["whole"]["photons_per_frame_mean"]
    frames = f"{len(split.train)} training and {len(split.test)} test frames, {split.dropped} in the gap"
    say(f"simulate: {mean:.1f} photons per frame measured, {dose} nominal; {frames}")


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


def _draw(scan: BaseSet, seed: int, dose: int) -> tuple[DiskArray, NDArray[np.int64]]:
    """Return the whole scan's counts on disk, and the photons of each frame.

    A half's provenance comes before its frames are complete, and the frames of a half may
    lie anywhere in the scan: on disk, each is drawn once and none is kept in memory.
    """
    from fly64_dose_overlap.study.dose import draw_counts

    side = scan.probe.shape[-1]
    written = Spool((len(scan.positions_px), side, side), np.float32)
    photons: list[NDArray[np.int64]] = []
    for counts in draw_counts(scan, seed=seed, dose=dose):
        photons.append(counts.sum(axis=(1, 2)))
        written.append(counts)
    return written.finish(), np.concatenate(photons)


def _drawn(
    record: provenance.Record, dose: int, seed: int, factor: float, measured: dict[str, Any]
) -> provenance.Record:
    from fly64_dose_overlap.study.dose import BLOCK_FRAMES

    record = provenance.with_step(
        record,
        "simulate",
        "draw photon counts",
        photons_per_frame=dose,
        seed=seed,
        amplitude_factor=factor,
        block_frames=BLOCK_FRAMES,
        measured=measured,
        parent=BASE_FILE.as_posix(),
        parent_sha256=sha256_of(BASE_FILE),
    )
    mean = measured["photons_per_frame_mean"]
    return provenance.with_physics(record, photons_per_frame_nominal=dose, photons_per_frame_measured=mean)


if __name__ == "__main__":
    run(main)
