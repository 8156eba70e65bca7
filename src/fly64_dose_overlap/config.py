"""``params.yaml``, validated once into typed, frozen objects.

Only this module knows the file's layout. Each stage takes its own section, so a
value that a stage does not get cannot change what it does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.section import Section, first_problem
from fly64_dose_overlap.yaml_text import parse_yaml, read_yaml, shown

PARAMS_FILE = Path("params.yaml")
MAX_POSITIONS = 4_000_000
"""Of a synthetic scan."""


def _text_in_yaml(name: str) -> str:
    if isinstance(found := parse_yaml(name, where="view"), str):
        return name
    raise ValueError(f"{name} is {found} in YAML; choose another name")


MethodName = Annotated[str, Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$", max_length=100)]
ViewName = Annotated[MethodName, AfterValidator(_text_in_yaml)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Dose = Annotated[int, Field(ge=10, le=10**7)]
"""Photons per frame at which the Bayesian limit is tabulated."""
Neighbors = Annotated[int, Field(ge=1, le=1000)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Gridsize = Literal[1, 2]
FrameSide = Annotated[int, Field(ge=8, le=1024)]


TurnName = Literal[
    "swap_positions",
    "invert_y",
    "invert_x",
    "transpose_frames",
    "flip_frames_y",
    "flip_frames_x",
    "shift_frames",
    "advance_frames",
    "delay_frames",
    "reverse_frames",
    "conjugate_probe",
    "shift_probe",
]
Number = Annotated[int, Field(ge=0, lt=2**63)]


class MendParams(Section):
    """What is wrong with a file and put right as it is read."""

    turn: list[TurnName]
    """Of positions, frames and probe, what is turned; shifts are by half the side of a frame."""
    bad_pixels: list[Annotated[list[Number], Field(min_length=2, max_length=2)]]
    """[y, x] of the file's frames, that do not count."""
    leave_out: list[Number]
    """Frames, by their number in the file, from 0."""

    @model_validator(mode="after")
    def _told_once(self) -> MendParams:
        if {"advance_frames", "delay_frames"} <= {*self.turn}:
            raise ValueError("turn: advance_frames and delay_frames undo each other; take both out")
        if len({*self.turn}) < len(self.turn):
            raise ValueError("turn: names the same turn twice; twice is none, take both out")
        return self


NOTHING_TO_MEND = MendParams(turn=[], bad_pixels=[], leave_out=[])


class BaseParams(Section):
    """The base set: object, probe and scan positions."""

    source: str = Field(min_length=1, max_length=4096)
    """``synthetic``, ``star-bench``, or the path of a file."""
    frames: Literal["auto", "measured", "simulated"]
    """Of a file: as they were measured, or simulated from its object; auto: measured, if it has any."""
    fields: dict[str, str | Annotated[float, Field(gt=0, le=1e7)]] | None
    """Names of the datasets of a file of any other form."""
    counts_per_photon: Annotated[float, Field(gt=0, le=1e6)] | None
    """Units of the detector that a photon makes, by which frames are divided; null: they are photons."""
    mend: MendParams
    """What is wrong with a file and put right."""
    noise: Literal["counts", "whiten"]
    """Of measured frames: as they are, or, where pixels share charge, made that of photons."""
    seed: Seed
    frame_side_px: Annotated[int, Field(ge=18, le=1024, multiple_of=2)]
    """N, the side of a diffraction frame and of the probe; fewer pixels lie in the stop's shadow."""
    object_kind: Literal["star", "texture"]
    field_px: Annotated[float, Field(gt=0, le=20_000)]
    """Side of the square that the scan positions cover, object pixels."""
    step_px: Annotated[float, Field(gt=0, le=20_000)]
    """Pitch of the raster, object pixels."""
    jitter_px: Annotated[float, Field(ge=0, le=20_000)]
    """Standard deviation of each coordinate about the raster, object pixels."""
    defocus_um: Annotated[float, Field(ge=-1e6, le=1e6)]
    """Distance of the sample behind the focus."""

    @model_validator(mode="after")
    def _countable(self) -> BaseParams:
        positions = (self.field_px / self.step_px + 1) ** 2
        if positions > MAX_POSITIONS:
            raise ValueError(
                f"field_px={self.field_px} and step_px={self.step_px} make {positions:.2g} positions, "
                f"at most {MAX_POSITIONS:,} are simulated"
            )
        if self.is_synthetic and self.frames == "measured":
            raise ValueError(f"frames: measured needs a file, and source is {self.source}")
        of_file = (self.counts_per_photon, self.fields, None if self.mend == NOTHING_TO_MEND else self.mend)
        if self.is_synthetic and any(each is not None for each in of_file):
            raise ValueError(f"fields, counts_per_photon and mend are of a file, and source is {self.source}")
        if self.noise == "whiten" and self.counts_per_photon is not None:
            raise ValueError("noise: whiten measures what makes a photon; counts_per_photon must be null")
        if self.noise == "whiten" and (self.is_synthetic or self.frames == "simulated"):
            raise ValueError("noise: whiten is for measured frames; simulated ones have that of photons")
        return self

    @property
    def is_synthetic(self) -> bool:
        """Whether the base set is generated instead of read."""
        return self.source in ("synthetic", "star-bench")


class ReferenceParams(Section):
    """What stands for the truth of measured frames, whose object nobody knows."""

    seed: Seed
    fraction: Annotated[float, Field(ge=0.05, le=0.95)]
    """Part of the photons that makes the reference; doses are made of the others."""
    epochs: Epochs
    """Of its reconstruction."""


class ExposeParams(Section):
    """Dose, noise and the split into training and test halves."""

    seed: Seed
    """Of the photons that are drawn, or kept of those that were measured."""
    split: Literal["auto", "halves", "none"]
    """Train and test on a half each, or both on all frames; auto: none for measured frames."""
    split_fraction: Annotated[float, Field(gt=0, lt=1)]
    """Part of the y range that is training data."""
    guard_gap_px: Annotated[float, Field(ge=0, le=1e6)] | None
    """Width of the strip of y without frames; null means N + 1, just enough; 0 means no gap."""


class ViewParams(Section):
    """Explicit sampling behind the name of a view."""

    s_img: Annotated[float, Field(gt=0, le=1)]
    """Fraction of the frames that is kept, 0 < s_img <= 1."""
    n_groups: Annotated[int, Field(ge=1, le=100_000)] | None
    """Number of groups; null means one per kept frame."""
    gridsize: Gridsize
    """Group side g: a group holds g * g frames."""


class OverlapParams(Section):
    """The overlap views and how their overlap is measured."""

    neighbor_count: Neighbors
    """K: a training group is drawn from this many nearest frames."""
    metric_neighbor_count: Neighbors
    """Neighbours averaged over by the overlap metrics."""
    enable_oversampling: bool
    """Allow more groups than frames, by distinct subsets of the same neighbourhood."""
    probe_diameter_px: Annotated[float, Field(gt=0, le=1e6)] | None
    """D of the overlap metrics; null means the probe's full width at half maximum."""
    seed_subsample: Seed
    seed_grouping: Seed
    views: Annotated[dict[ViewName, ViewParams], Field(min_length=1)]

    @model_validator(mode="after")
    def _enough_neighbors(self) -> OverlapParams:
        for name, view in self.views.items():
            frames_per_group = view.gridsize**2
            if self.neighbor_count < frames_per_group:
                raise ValueError(
                    f"neighbor_count={self.neighbor_count} < C={frames_per_group} "
                    f"of view {name} (OVERSAMPLING-001)"
                )
        return self


class CalibrationParams(Section):
    """Errors of what reconstruction is told about the instrument, alike for every method."""

    seed: Seed
    """Of the errors of positions and of light."""
    defocus_error_um: Annotated[float, Field(ge=-10_000, le=10_000)]
    """Distance by which the probe is propagated on before it is handed over."""
    astigmatism_um: Annotated[float, Field(ge=-10_000, le=10_000)]
    """By how much further along y than along x."""
    modes: Annotated[int, Field(ge=1, le=100)] | None
    """Of the probe, the strongest; None: all."""
    position_error_px: Annotated[float, Field(ge=0, le=100)]
    """Standard deviation of the error of each coordinate, object pixels."""
    photon_scale_error: Annotated[float, Field(gt=-1, le=10)]
    """Relative error of the probe's power."""
    flux_error: Annotated[float, Field(ge=0, le=1)]
    """Standard deviation of the logarithm of the light that each frame is said to have."""


class ProbeParams(Section):
    """The probe that methods are told."""

    model_config = ConfigDict(serialize_by_alias=True)

    file: str = Field(alias="from", min_length=1, max_length=4096)
    """A reconstruction, or a file with a probe or of a lens; by default the base set, whose views have it."""


class LensParams(Section):
    """A lens, as the YAML file has it that ``probe.from`` names; `lens_probe` says what may be."""

    rim_mrad: float
    """Half-angle of the cone of light."""
    stop_mrad: float = 0.0
    """Half-angle of the shadow of a central stop."""
    defocus_um: float
    """Distance of the sample behind the focus."""


class RefineParams(Section):
    """What methods find with the object, starting from what they are told."""

    probe: bool | Literal["anew"]
    """anew: not from the given one, but from the frames alone."""
    modes: Annotated[int, Field(ge=1, le=8)] | Literal["auto"] | None
    """Of a probe that is found; auto: as many as held-out photons tell of; null: those of the given one."""
    positions: Annotated[float, Field(ge=0, le=10)]
    """Standard deviation of each coordinate about the given one, object pixels; 0: they are right."""
    flux: Annotated[float, Field(ge=0, le=1)]
    """Standard deviation of the logarithm of each frame's light; 0: all have the same."""


NOTHING_TO_REFINE = RefineParams(probe=False, modes=None, positions=0.0, flux=0.0)


class StopParams(Section):
    """Where methods stop that would fit noise in the end."""

    seed: Seed
    """Of the division of the photons, and of what is random in iterative methods."""
    held_out_fraction: Annotated[float, Field(ge=0.01, le=0.5)]
    """Part of the photons that decides where a method stops."""
    patience: Epochs
    """Epochs without a better explanation of the held-out photons before a method stops."""


class LimitParams(Section):
    """The Cramer-Rao bound of a scan geometry."""

    seed: Seed
    """Of the random vectors that average over the object."""
    vectors: Annotated[int, Field(ge=1, le=1000)]
    iterations: Annotated[int, Field(ge=1, le=100_000)]
    tolerance: Annotated[float, Field(gt=0, lt=1)]


class EvaluateParams(Section):
    """Scores on the test half."""

    region_threshold: Annotated[float, Field(gt=0, lt=1)]
    """Pixels count where the illumination exceeds this fraction of its maximum."""
    registration_upsampling: Annotated[int, Field(ge=1, le=1000)]
    """Images are registered to 1 / this many pixels."""


class Params(Section):
    """The whole of ``params.yaml``."""

    dose: Dose
    """Dose of the cell that training and evaluation follow, photons per frame."""
    view: ViewName
    """View of the cell that training and evaluation follow."""
    doses: Annotated[list[Dose], Field(min_length=1, max_length=1000)]
    """Doses for which datasets exist, photons per frame."""
    base: BaseParams
    reference: ReferenceParams
    expose: ExposeParams
    overlap: OverlapParams
    probe: ProbeParams
    calibration: CalibrationParams
    refine: RefineParams
    seed: Seed
    """Of the cell: of everything random in the training of its learned methods."""
    learned: list[MethodName]
    """Methods with a model that the cell trains and applies."""
    iterative: list[MethodName]
    """Methods that the cell runs besides."""
    halves: list[MethodName]
    """Methods that reconstruct two halves of the photons besides, each by itself."""
    methods: dict[MethodName, dict[str, Any]]
    """Settings of every method that may be run, each as the method itself defines them."""
    stops: StopParams
    limit: LimitParams
    evaluate: EvaluateParams

    @model_validator(mode="before")
    @classmethod
    def _whole_doses(cls, data: Any) -> Any:
        """Refuse 1e3 and 1000.0: DVC would build the path ``1000.0`` from them."""
        for key in ("dose", "doses") if isinstance(data, dict) else ():
            value = data.get(key)
            for dose in value if isinstance(value, list) else [value]:
                if not isinstance(dose, int | None):
                    rule = f"{key} must be a whole number of photons per frame, got {shown(dose)}"
                    number = whole_number(dose)
                    raise ValueError(f"{rule}; write {number}" if number else rule)
        return data

    @model_validator(mode="after")
    def _cell_listed(self) -> Params:
        if len(set(self.doses)) != len(self.doses):
            raise ValueError(f"doses must not repeat, got {shown(self.doses)}")
        if self.dose not in self.doses:
            listed = ",".join(map(str, [*self.doses, self.dose]))
            remedy = f"; add it with -S 'doses=[{listed}]'" if len(self.doses) < 8 else ""
            raise ValueError(f"dose {self.dose} is not among doses {shown(self.doses)}{remedy}")
        if self.view not in self.overlap.views:
            raise ValueError(f"view {self.view} is not among overlap.views {shown(list(self.overlap.views))}")
        return self

    @model_validator(mode="after")
    def _methods_known(self) -> Params:
        chosen = [*self.learned, *self.iterative]
        if not chosen:
            raise ValueError("learned and iterative name no method")
        if len(set(chosen)) != len(chosen):
            raise ValueError(f"learned and iterative must name a method once, got {shown(chosen)}")
        if others := [name for name in self.halves if name not in chosen]:
            raise ValueError(f"halves: {others[0]} is in neither learned nor iterative")
        if lacking := [name for name in chosen if name not in self.methods]:
            known = ", ".join(self.methods)
            raise ValueError(f"methods has no settings of {lacking[0]}, it has those of {known}")
        return self


def whole_number(value: Any) -> int | None:
    """Return the positive whole number that is written 1000.0 or 1e3; None if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number > 0 and number.is_integer() else None


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and validate ``params.yaml``.

    Raises
    ------
    MissingFileError
        If the file is not there.
    StudyError
        If it is not YAML, or a key is unknown, missing, of the wrong type or out of range.
    """
    return parse_params(read_yaml(path, "run from the repository's root"), where=str(path))


def load_lens(path: Path) -> LensParams:
    """Read and validate the file of a lens; raises as `load_params` does."""
    try:
        return LensParams.model_validate(read_yaml(path, "check probe.from"))
    except ValidationError as error:
        raise StudyError(str(path), first_problem(error)) from None


def parse_params(content: Any, *, where: str = str(PARAMS_FILE)) -> Params:
    """Validate the parsed content of ``params.yaml``; ``where`` names it in errors."""
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise StudyError(where, first_problem(error)) from None
