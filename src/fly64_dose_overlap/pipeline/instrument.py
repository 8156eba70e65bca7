"""The scan as methods are told it: with which probe, with which errors, and what they may find."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fly64_dose_overlap.config import CalibrationParams, ProbeParams, RefineParams, load_lens
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.files.reconstruction import RECONSTRUCTED_PROBE
from fly64_dose_overlap.pipeline.cells import BASE_FILE
from fly64_dose_overlap.provenance import with_step
from fly64_dose_overlap.scan import Scan, Unknown
from fly64_dose_overlap.study.calibration import with_calibration_errors
from fly64_dose_overlap.study.probe import lens_probe


@dataclass(frozen=True)
class Instrument:
    """Sections of ``params.yaml`` about the instrument."""

    probe: ProbeParams
    calibration: CalibrationParams
    refine: RefineParams


def as_told(scan: Scan, params: Instrument, *, where: str) -> Scan:
    """Return a scan as methods are told it; ``where`` names it in errors."""
    scan = with_probe_of(Path(params.probe.file), scan)
    scan = with_calibration_errors(scan, params.calibration, where=where)
    return replace(scan, unknown=Unknown.of(params.refine))


def described(params: Instrument) -> dict[str, Any]:
    """Return what decides what methods are told, JSON-able."""
    file = Path(params.probe.file)
    sections = {key: section.model_dump() for key, section in vars(params).items()}
    return {**sections, "sha256": None if file == BASE_FILE else sha256_of(file)}


def with_probe_of(path: Path, scan: Scan) -> Scan:
    """Return the scan with the probe of a file or a lens, at the power of its own; the base set's it has.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If it holds no probe or lens, or one of another frame.
    """
    if path == BASE_FILE:
        return scan
    where = f"probe.from: {path}"
    if path.suffix in (".yaml", ".yml"):
        lens = load_lens(path)
        try:
            probe = lens_probe(scan, **dict(lens))
        except StudyError as error:
            raise StudyError(where, error.problem, error.hint) from None
        record = with_step(scan.record, "probe", "make the probe of a lens", source=str(path))
        return replace(scan, probe=probe, record=record)
    with NpzReader(path) as reader:
        key = next((key for key in (RECONSTRUCTED_PROBE, rules.PROBE) if key in reader), None)
        if key is None:
            hint = "give a reconstruction, or a file that read_scan reads"
            raise StudyError(where, f"has neither {RECONSTRUCTED_PROBE} nor {rules.PROBE}", hint)
        found = reader.load(key)
    probe = rules.check_image(where, key, found if found.ndim == 3 else found[None], "(mode, y, x)")
    if (side := rules.square_side(where, key, probe)) != scan.side:
        raise StudyError(
            where, f"its probe has {side} x {side} pixels, frames have {scan.side} x {scan.side}"
        )
    given, own = (float((np.abs(each.astype(np.complex128)) ** 2).sum()) for each in (probe, scan.probe))
    if not given:
        raise StudyError(where, "its probe is zero everywhere")
    record = with_step(scan.record, "probe", "take the probe of a file", source=str(path))
    probe = (probe * np.sqrt(own / given)).astype(np.complex64)
    return replace(scan, probe=probe, record=record)
