"""Runs of a study with scores made up by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fly64_dose_overlap.report.study import Run, Study, make_study

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DOSES = [1000, 10000, 100000]
VIEWS = ["baseline", "dense", "sparse"]
BASELINE: dict[str, Any] = {
    "dose": 10000,
    "view": "dense",
    "doses": DOSES,
    "overlap": {"views": {view: {"s_img": 1.0} for view in VIEWS}},
    "train": {"seed": 42, "epochs": 5},
}
Given = tuple[str, float | None, float]
METHODS: dict[str, Given] = {
    "network": ("learned", 24.0, 0.05),
    "flat object": ("reference", 11.0, 0.25),
    "LSQML": ("iterative", 23.0, 0.06),
    "rPIE": ("iterative", 21.0, 0.08),
}
"""Kind, phase PSNR in dB and complex NRMSE of each method."""


def scores(kind: str, psnr_db: float | None, nrmse: float) -> dict[str, Any]:
    part = {"psnr_db": psnr_db, "ssim": 0.8, "ms_ssim": 0.9, "mae": 0.05}
    return {
        "phase": part if psnr_db is not None else dict.fromkeys(part) | {"mae": 0.05},
        "amplitude": {**part, "psnr_db": (psnr_db or 24.0) - 5},
        "complex_nrmse": nrmse,
        "frc": {
            "frc50": 0.6,
            "frc50_nm": 95.3,
            "frc_half_bit": 1.0,
            "frc_half_bit_nm": 57.2,
            "frc_one_seventh": 0.7,
            "frc_one_seventh_nm": 81.7,
        },
        "alignment": {},
        "dose_efficiency": None if kind == "reference" else 0.5,
        "kind": kind,
    }


def evaluation(methods: Mapping[str, Given] = METHODS) -> dict[str, Any]:
    return {
        "methods": {
            name: {**scores(*given), "key": name.lower().replace(" ", "_")} for name, given in methods.items()
        },
        "limit": {
            "phase_psnr_db": 28.0,
            "amplitude_psnr_db": 19.0,
            "nrmse": 0.03,
            "kappa": 1.5,
            "photons_per_pixel": 40.0,
            "bayesian": None,
        },
        "conventions": {
            "split": "test",
            "alignment": "sub-pixel shift, complex factor, linear phase ramp",
            "peak": {"amplitude": 0.25, "phase": 1.0},
            "ms_ssim_scales": 5,
            "region": {
                "illumination_threshold": 0.1,
                "pixels": 1200,
                "rows": [10, 40],
                "columns": [12, 52],
                "covered_fraction": 1.0,
            },
        },
    }


def params_of(dose: int, view: str, seed: int = 42, **train: Any) -> dict[str, Any]:
    return {**BASELINE, "dose": dose, "view": view, "train": {**BASELINE["train"], "seed": seed, **train}}


def new_run(
    dose: int,
    view: str,
    *,
    seed: int = 42,
    state: str = "success",
    methods: Mapping[str, Given] = METHODS,
    **train: Any,
) -> Run:
    """Return a run; one without success has no result."""
    name = f"{dose}-{view}" + (f"-seed{seed}" if seed != 42 else "")
    params = params_of(dose, view, seed, **train)
    if state != "success":
        return Run(name, "f" * 40, state, dose, view, seed, params)
    fractions = [0.25, 0.5, 0.75, 1.0]
    frc = {name.lower().replace(" ", "_"): [0.9, 0.7, 0.4, 0.1] for name in methods}
    return Run(
        name=name,
        revision="a" * 40,
        state=state,
        dose=dose,
        view=view,
        seed=seed,
        params=params,
        evaluation=evaluation(methods),
        frc={"nyquist_fraction": fractions, "half_bit": [0.6, 0.4, 0.3, 0.3], "limit": [1.0] * 4, **frc},
        curves={"val/loss": [(1.0, 0.9), (2.0, 0.8)], "val/psnr": [(1.0, 20.0), (2.0, 21.0)]},
        measured_dose={"test": {"frames": 40, "photons_per_frame_mean": 1006.4}},
        measured_overlap={"test": {"metric_2_image_based_avg": 0.1 * (1 + VIEWS.index(view))}},
        data={"data/base/base.npz": "7c40"},
    )


def pictured_run(folder: Path, name: str = "network") -> Run:
    """Return a run with the reconstructions of one method at hand."""
    y, x = np.mgrid[:60, :60]
    truth = ((0.8 + 0.2 * np.sin(x / 3)) * np.exp(0.5j * np.cos(y / 4))).astype(np.complex64)
    mask = np.zeros(truth.shape, bool)
    mask[10:40, 12:52] = True
    path = folder / "reconstruction.npz"
    record = '{"physics_parameters": {"object_pixel_m": 5e-8}}'
    noisy = truth * np.exp(0.1j * np.sin(x + y)).astype(np.complex64)
    np.savez(path, objectGuess=truth, region=mask, _metadata=record, **{f"{name}_aligned": noisy})
    return replace(new_run(1000, "dense"), reconstruction=path)


def study_of(*runs: Run, **settings: Any) -> Study:
    """Return a study of some runs, with the nine cells that there should be."""
    return make_study("commit 0123456", COMMIT, runs, doses=DOSES, views=VIEWS, **settings)


def full_study(*missing: tuple[int, str]) -> Study:
    """Return a study of nine cells, without those named."""
    return study_of(*(new_run(dose, view) for dose in DOSES for view in VIEWS if (dose, view) not in missing))


def small_study(*doses: int) -> Study:
    """Return a study of the dense view at some doses: one has tables alone, two have every chart."""
    return study_of(*(new_run(dose, "dense") for dose in doses or (1000, 10000)))
