"""Stage base: make the synthetic base set, or import the user's own file."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.pipeline.cells import BASE_FILE, BASE_METRICS
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run
from fly64_dose_overlap.progress import say

if TYPE_CHECKING:
    from fly64_dose_overlap.config import BaseParams
    from fly64_dose_overlap.files.dataset import BaseSet


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write data/base/base.npz, object, probe and scan positions of the study, and metrics/base.json.

    With `base.source: synthetic` they are made from `base.seed`, and with `star-bench` they
    are a fixed test case, of which `base.seed` draws the jitter; otherwise they come from the
    file that `base.source` names. Its frames come along if they are to be studied as they were
    measured, whitened where `base.noise` says so; metrics/base.json then has their noise before and
    after.
    """
    from fly64_dose_overlap.files.atomic import sha256_of, write_json_atomic
    from fly64_dose_overlap.files.dataset import write_base
    from fly64_dose_overlap.files.own_npz import FRAME_KEYS, read_user_base
    from fly64_dose_overlap.files.product import recorded_optics
    from fly64_dose_overlap.study.base import make_synthetic_base
    from fly64_dose_overlap.study.gauge import in_standard_gauge
    from fly64_dose_overlap.study.measured import examined
    from fly64_dose_overlap.study.soundness import off_centre, remarks_on_object
    from fly64_dose_overlap.study.star_bench import STAR_BENCH

    params = load_params(params_file)
    source, remarks, digest = params.base.source, [], None
    if params.base.is_synthetic:
        base = make_synthetic_base(params.base)
        if source == STAR_BENCH:
            say(f"base: {STAR_BENCH} is a fixed test case; of section base only the seed is used")
    else:
        try:
            units = params.base.counts_per_photon
            base = read_user_base(
                source,
                modes="all",
                fields=params.base.fields,
                counts_per_photon=units,
                frames=params.base.frames != "simulated",
                mend=params.base.mend,
            )
        except MissingFileError:
            hint = "set base.source to a file, or to synthetic"
            raise MissingFileError("Base dataset not found", source, hint) from None
        # A DVC dependency would have to exist everywhere: for the synthetic set, and in every
        # clone and queued copy that has the base set itself from the remote.
        say(f"base: DVC does not watch {source}; when its content changes, run: dvc repro -f base")
        digest = sha256_of(source)
        if params.base.frames == "measured" and base.amplitude is None:
            raise StudyError(source, "has no frames", "base.frames: simulated makes them from its object")
        if base.amplitude is None and (params.base.noise == "whiten" or units is not None):
            hint = "state base.noise: counts and base.counts_per_photon: null"
            raise StudyError(source, "gives no frames whose noise could be changed", hint)
    measured = base.amplitude is not None
    noise: dict[str, float] = {}
    if measured and params.base.noise == "whiten":
        base, noise = _whitened(base, source)
    if measured:
        _require_photons(base, source, params.base)
    elif not params.base.is_synthetic:
        remarks = remarks_on_object(base)
    try:
        recorded_optics(base.record, where=source)
    except StudyError as error:
        say(f"base: reconstructions get no product for ptychodus: {error}")
    base = in_standard_gauge(base)
    mend = params.base.mend
    found = (
        examined(base, "base", probe_in_photons=False, mend=mend)[1]
        if measured
        else off_centre(base.probe, mend)
    )
    for message in (*remarks, *found):
        warnings.warn(f"{source}: {message}", stacklevel=2)
    if measured:
        say(f"base: the frames of {source} are studied as they were measured")
    elif not params.base.is_synthetic:
        names = " or ".join(FRAME_KEYS)
        why = "" if params.base.frames == "simulated" else f", which holds none named {names}"
        say(f"base: frames are simulated from the object of {source}{why}")
    write_base(BASE_FILE, base)
    write_json_atomic(BASE_METRICS, {"source": source, "sha256": digest, **noise})
    sizes = f"probe {base.probe.shape}, object {base.obj.shape}"
    say(f"base: {len(base.positions_px)} positions, {sizes} in {BASE_FILE}")


def _whitened(base: BaseSet, source: str) -> tuple[BaseSet, dict[str, float]]:
    """Return a base set with counts of photons, and how they scatter and those of the detector did."""
    from fly64_dose_overlap.provenance import with_step
    from fly64_dose_overlap.study.measured import scan_of
    from fly64_dose_overlap.study.whitening import whitened

    found = whitened(scan_of(base), source)
    scan, noise = found.scan, {"units_per_photon": found.units}
    say(f"base: {found.units:.3g} units of the detector scatter as a photon does")
    for when, scatter in (("before", found.before), ("after", found.after)):
        noise |= {f"fano_{when}": scatter.fano, f"neighbours_{when}": scatter.neighbours}
        say(
            f"base: {when} whitening the Fano factor is {scatter.fano:.2f} and neighbours share "
            f"{scatter.neighbours:.2f} (photons: 1 and 0)"
        )
    changed = replace(
        base,
        amplitude=np.sqrt(scan.counts[:]),
        mask=scan.mask,
        background=scan.background,
        record=with_step(base.record, "whiten", "divide_by_noise_spectrum", **noise),
    )
    return changed, noise


def _require_photons(base: BaseSet, source: str, params: BaseParams) -> None:
    """Refuse counts that scatter as no photons do, unless the user has said how many make one."""
    from fly64_dose_overlap.study.dispersion import dispersion
    from fly64_dose_overlap.study.measured import scan_of

    scatter = dispersion(scan_of(base))
    if scatter is not None and scatter.doubt and params.counts_per_photon is None:
        whiten = "" if params.noise == "whiten" else ", or base.noise: whiten where pixels share charge"
        hint = (
            f"state base.counts_per_photon, {scatter.fano:.2g} or what is known of the detector{whiten}: "
            "doses are thinned, and halves of other counts share their noise"
        )
        raise StudyError(source, scatter.doubt, hint)


if __name__ == "__main__":
    run(main)
