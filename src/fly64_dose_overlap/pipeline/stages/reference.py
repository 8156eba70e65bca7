"""Stage reference: what stands for the truth of measured frames."""

from __future__ import annotations

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run
from fly64_dose_overlap.progress import say


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write data/reference and metrics/reference.json.

    Of measured frames the photons are divided: a part makes the reference, and doses are made of the
    others. Where frames are simulated the base set's own object is the truth, and nothing else is
    written than that.
    """
    from fly64_dose_overlap.files.atomic import write_json_atomic
    from fly64_dose_overlap.files.dataset import read_base, write_base, write_scan
    from fly64_dose_overlap.files.npz_writer import write_npz
    from fly64_dose_overlap.parallel import one_torch_thread
    from fly64_dose_overlap.pipeline.reference import make_reference

    params = load_params(params_file)
    settings = params.reference
    base = read_base(cells.BASE_FILE)
    files = (cells.MEASURED_FILE, cells.HELD_FILE, cells.REFERENCE_HALVES)
    if base.amplitude is None:
        for stale in files:
            stale.unlink(missing_ok=True)
        figures = {"kind": "simulated"}
        say("reference: frames are simulated from an object, which is the truth")
    else:
        with one_torch_thread():
            found = make_reference(base, settings, params.doses, params.refine)
        figures = found.figures
        write_base(cells.MEASURED_FILE, found.study)
        write_scan(cells.HELD_FILE, found.held, found.study.obj)
        write_npz(cells.REFERENCE_HALVES, dict(zip(("first", "second"), found.halves, strict=True)))
        of_study = figures["fit_of_other_photons"]
        say(
            f"reference: {figures['photons_per_frame']:.4g} photons per frame, halves agree to "
            f"{figures['frc_of_halves_nyquist']['half-bit']:.2f} of Nyquist; R-factor of the others, "
            f"{figures['study_photons_per_frame']:.4g} per frame, is {of_study['r_factor']:.4f} "
            f"(noise {of_study['r_floor']:.4f})"
        )
    for path in (cells.REFERENCE / "reference.json", cells.REFERENCE_METRICS):
        write_json_atomic(path, figures)


if __name__ == "__main__":
    run(main)
