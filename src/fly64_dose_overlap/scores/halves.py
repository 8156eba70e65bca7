"""How far two halves of the photons agree, each reconstructed by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.reconstruction import Reconstruction
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.frc import cutoffs, fourier_ring_correlation
from fly64_dose_overlap.scores.region import Region


def agreement_of_halves(
    first: Sequence[Reconstruction],
    second: Sequence[Reconstruction],
    region: Region,
    *,
    upsampling: int,
    pixel_nm: float | None,
) -> dict[str, dict[str, Any]]:
    """Return the cutoffs of the Fourier ring correlation of both halves, by the short name of each result.

    Raises
    ------
    StudyError
        If both halves of a learned method were made by one model, whose inventions would agree.
    """
    others = {each.method: each for each in second}
    found: dict[str, dict[str, Any]] = {}
    for one in first:
        other = others[one.method]
        model = one.settings.get("model_sha256")
        if model is not None and model == other.settings.get("model_sha256"):
            problem = "both were made by one network, and agree in what it invents"
            raise StudyError(
                f"halves of {one.label}", problem, "train it on either half: dvc repro -f halves"
            )
        aligned = align_to(one.obj, other.obj, region, upsampling=upsampling)
        inside = region.rectangle
        found[one.method] = cutoffs(
            fourier_ring_correlation(one.obj[inside], aligned.field[inside]), pixel_nm
        )
    return found
