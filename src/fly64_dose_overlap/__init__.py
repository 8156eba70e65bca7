"""Reproducible dose and overlap studies in ptychography.

In a notebook, without DVC and without params.yaml::

    import fly64_dose_overlap as fdo

    scan, truth = fdo.simulate(photons_per_frame=1e4, seed=1)  # or fdo.read_scan("file.npz")
    result = fdo.reconstruct(scan, "map")  # or any name in fdo.methods()
    print(fdo.score(result, truth))
    result.plot()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fly64_dose_overlap.version import __version__

if TYPE_CHECKING:
    from fly64_dose_overlap.diagnosis import Diagnosis
    from fly64_dose_overlap.errors import StudyError
    from fly64_dose_overlap.front import (
        calibrate,
        limit,
        read_scan,
        reconstruct,
        score,
        simulate,
        thin,
        train,
        view,
    )
    from fly64_dose_overlap.outcome import Result, Scores
    from fly64_dose_overlap.scan import Optics, Scan, Unknown
    from fly64_dose_overlap.study.probe import lens_probe
    from fly64_dose_overlap.trust import Agreement, agreement, diagnose, misfit

    def methods() -> list[str]:
        """Return the names of all methods: the package of that name can be called."""
        ...


__all__ = [
    "Agreement",
    "Diagnosis",
    "Optics",
    "Result",
    "Scan",
    "Scores",
    "StudyError",
    "Unknown",
    "__version__",
    "agreement",
    "calibrate",
    "diagnose",
    "lens_probe",
    "limit",
    "methods",
    "misfit",
    "read_scan",
    "reconstruct",
    "score",
    "simulate",
    "thin",
    "train",
    "view",
]

_ELSEWHERE = {
    "errors": ("StudyError",),
    "scan": ("Optics", "Scan", "Unknown"),
    "diagnosis": ("Diagnosis",),
    "study.probe": ("lens_probe",),
    "trust": ("Agreement", "agreement", "diagnose", "misfit"),
}


def __getattr__(name: str) -> Any:
    """Return a public name; what it needs is imported on first use, since torch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "methods":
        return import_module(f"{__name__}.methods")
    module = next((each for each, names in _ELSEWHERE.items() if name in names), "front")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
