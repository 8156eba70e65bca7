"""What a method of the study is."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import create_model

from fly64_dose_overlap.config import Epochs, Section
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.reconstruction import Kind
from fly64_dose_overlap.learning.training import Training
from fly64_dose_overlap.methods.held_out import (
    HeldOut,
    deviance,
    follow,
    follow_beside,
    last_state,
    snapshots,
)
from fly64_dose_overlap.methods.joint_posterior import calibrated, started
from fly64_dose_overlap.methods.state import Result, State, fitting
from fly64_dose_overlap.parallel import beside, can_fork, one_torch_thread
from fly64_dose_overlap.physics.modes import strongest_mode
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.timing import Stopwatch, Timing
from fly64_dose_overlap.yaml_text import shown


class IterationSettings(Section):
    """Settings of a method that works in epochs."""

    epochs: Epochs = 100
    """Epochs that it runs for, where held-out photons do not stop it before."""


def settings_of(*, epochs: int) -> type[IterationSettings]:
    """Return settings of nothing but epochs, with a default for them."""
    return create_model("Settings", __base__=IterationSettings, epochs=(Epochs, epochs))


class Method(ABC):
    """A way to reconstruct the object of a scan.

    A subclass sets the attributes below and defines `run`; its module in this package has the
    method's name, or a package of its own names it as an entry point of the group
    ``fly64_dose_overlap.methods``. Everything it sees is in the `Scan`, which holds no object.

    Attributes
    ----------
    name : str
        In ``params.yaml`` and in paths: lower case, digits and underscores.
    label : str
        In tables and pictures.
    kind : {"iterative", "learned", "reference"}
    Settings : type
        A `Section` of its own; defaults serve in Python, ``params.yaml`` must give every value.
    single_mode : bool
        Whether it takes one mode of a probe: of several it is given the strongest, see `taken`.
    refines : bool
        Whether it looks itself for what is `Unknown` of a scan: else it is given what joint MAP finds, see
        `taken`.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    kind: ClassVar[Kind]
    Settings: ClassVar[type[Section]] = Section
    single_mode: ClassVar[bool] = False
    refines: ClassVar[bool] = False

    def __init__(self, settings: Section | None = None) -> None:
        self.settings: Any = self.Settings() if settings is None else settings

    @classmethod
    def headings(cls) -> dict[str, str]:
        """Return the label of every result by its name; no other method may have one of them."""
        return {cls.name: cls.label}

    def taken(self, scan: Scan) -> Scan:
        """Return the scan that the method works on; of one that it has returned the very same.

        What is unknown of a scan is found before, unless the method finds it itself. One that takes a
        single mode is given the strongest with the power of all, and what that ignores is said in a warning.
        """
        if scan.unknown:
            label = f"{self.label}, what is unknown"
            scan = started(scan) if self.refines else calibrated(scan, label)
        if not self.single_mode or len(scan.probe) == 1:
            return scan
        mode, part = strongest_mode(scan.probe)
        ignored = f"{1 - part:.0%} of the probe's power is ignored"
        warnings.warn(f"{self.label} takes one mode of {len(scan.probe)}: {ignored}", stacklevel=2)
        return replace(scan, probe=(mode / part**0.5)[None].astype(np.complex64))

    @abstractmethod
    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield a state after every epoch, or one at the end.

        Parameters
        ----------
        seed : int
            Of everything random; see `fly64_dose_overlap.seeding.generator`.
        """

    def states(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield what `run` makes of a copy of the scan, each state once it is known to fit; see `fitting`."""
        found: Any = self.run(scan.lent(), seed)
        for state in found if isinstance(found, Iterable) else ():
            yield fitting(state, scan, self.label)

    def results(self, scan: Scan, stop: HeldOut) -> Iterator[Result]:
        """Yield what `run` ends with."""
        state, timing = last_state(self.states(scan, stop.seed), label=self.label)
        settings = {**self.settings.model_dump(), "seed": stop.seed}
        yield Result(self.name, self.label, self.kind, state, settings, timing=timing)


class Iteration(Method):
    """A method whose `run` yields a state after every epoch for as long as it is asked.

    Its results are the state after ``settings.epochs`` epochs, and, since most iterations fit
    noise in the end, the state after the epoch at which held-out photons are explained best.
    """

    kind = "iterative"
    Settings = IterationSettings
    threaded: ClassVar[bool] = True
    """Whether one epoch keeps several processors busy; else the runs of both results go side by side."""

    @classmethod
    def headings(cls) -> dict[str, str]:
        """Return the label of both results by their names; see `Method.headings`."""
        return {cls.name: cls.label, f"{cls.name}_held_out": f"{cls.label} held-out"}

    def states(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield states for as long as they are asked for; see `Method.states`."""
        yield from super().states(scan, seed)
        raise StudyError(self.label, "run ended before all epochs", "yield states without an end")

    def results(self, scan: Scan, stop: HeldOut) -> Iterator[Result]:
        """Yield the results of the fixed and of the held-out stop."""
        epochs, watch = self.settings.epochs, Stopwatch()
        if self.threaded or not can_fork():
            label, (fit, validation) = f"{self.label}, photons held out", stop.split(scan)
            states = self.states(fit, stop.seed)
            course = follow(states, validation, epochs=epochs, patience=stop.patience, label=label)
            choosing, watch = watch.read(), Stopwatch()
            kept = snapshots(self.states(scan, stop.seed), {epochs, course.epoch}, label=self.label)
        else:
            with beside(self._held_out(scan, stop), self.label) as found:
                states = self.states(scan, stop.seed)
                course, kept, choosing = follow_beside(
                    found, states, epochs=epochs, patience=stop.patience, label=self.label
                )
        running = watch.read()
        stopped = choosing + running.scaled(course.epoch / epochs)
        ends = ((epochs, "fixed", running), (course.epoch, "held-out photons", stopped))
        for (name, label), (epoch, kind, timing) in zip(self.headings().items(), ends, strict=True):
            settings = {**self.settings.model_dump(), "epochs": epoch, "stop": kind}
            settings |= stop.described(course)
            yield Result(name, label, self.kind, kept[epoch], settings, course.deviances, timing)

    def _held_out(self, scan: Scan, stop: HeldOut) -> Iterator[tuple[float, Timing]]:
        """Yield the deviance of held-out photons after every epoch, and the time spent up to then."""
        watch, (fit, validation) = Stopwatch(), stop.split(scan)
        for state in self.states(fit, stop.seed):
            yield deviance(state, validation), watch.read()


class Learned(Method):
    """A method with a model, which `train` makes and `load` takes up.

    Attributes
    ----------
    needs_truth : bool
        Whether `train` is given the true object.
    model : dict
        What results say of the model that they were made with.
    trained_with : dict
        Settings that a loaded model brings, whatever ``settings`` says.
    """

    kind = "learned"
    needs_truth: ClassVar[bool] = False

    def __init__(self, settings: Section | None = None) -> None:
        super().__init__(settings)
        self.model: dict[str, Any] = {}
        self.trained_with: dict[str, Any] = {}

    @abstractmethod
    def train(
        self, scan: Scan, training: Training, truth: NDArray[np.complex64] | None = None
    ) -> tuple[dict[str, Any], Timing]:
        """Train on a scan with groups and write the model; see `learning.trainer.train`.

        Parameters
        ----------
        truth : (y, x) complex64, optional
            The true object, for a method that ``needs_truth`` and for no other.

        Returns
        -------
        outcome : dict
            ``sha256`` and ``size_bytes`` of the model, and figures of the training.
        timing : Timing
        """

    def trained(
        self, scan: Scan, training: Training, truth: NDArray[np.complex64] | None = None
    ) -> tuple[dict[str, Any], Timing]:
        """Train on copies of scan and truth; refuse what `train` gives if it is something else."""
        with one_torch_thread():
            found: Any = self.train(self.taken(scan).lent(), training, deepcopy(truth))
        match found:
            case ({"sha256": str()} as outcome, Timing() as timing) if training.bundle.is_file():
                return outcome, timing
            case _:
                problem = f"train must write {training.bundle} and return outcome and Timing"
                raise StudyError(self.label, f"{problem}, got {shown(found)}")

    @abstractmethod
    def load_model(self, bundle: Path) -> None:
        """Take up a trained model.

        Raises
        ------
        MissingFileError
            If there is no such file.
        StudyError
            If it is damaged, or no model of this method.
        """

    def load(self, bundle: Path) -> None:
        """Take up a trained model, and keep its digest for the results; see `load_model`."""
        self.load_model(bundle)
        self.model = {"model_sha256": sha256_of(bundle)}

    def require_trained_with(self, settings: dict[str, Any]) -> None:
        """Refuse settings that the loaded model brings with another value: they would be ignored."""
        for key, value in settings.items():
            if (own := self.trained_with.get(key, value)) != value:
                problem = f"{key}: the model was trained with {own}, not {value}"
                raise StudyError(self.name, problem, "leave it out, or train another model")

    def results(self, scan: Scan, stop: HeldOut) -> Iterator[Result]:
        """Yield what `run` ends with."""
        state, timing = last_state(self.states(scan, stop.seed), label=self.label)
        yield Result(self.name, self.label, self.kind, state, self.model, timing=timing)
