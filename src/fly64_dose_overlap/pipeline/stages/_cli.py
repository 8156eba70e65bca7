"""What the command lines of all stages have in common."""

from __future__ import annotations

import atexit
import functools
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import fly64_dose_overlap
from fly64_dose_overlap.blas import one_blas_thread
from fly64_dose_overlap.errors import StudyError, as_refusal
from fly64_dose_overlap.pipeline.stages._interrupts import (
    EXIT_INTERRUPTED,
    HOW_TO_GO_ON,
    bounded_interrupts,
    first_to_tell,
)
from fly64_dose_overlap.progress import say

# Threads that wait must not spin: two jobs on one machine would take each other's cores.
# OpenMP reads this once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# That of a notebook, from whose terminal a stage may be started, may not be there to be imported.
os.environ["MPLBACKEND"] = "agg"

ParamsOption = Annotated[Path, typer.Option("--params", metavar="FILE", help="Parameters of the study.")]
DoseOption = Annotated[
    int,
    typer.Option("--dose", metavar="PHOTONS", help="Photons per frame; one of `doses` in the parameters."),
]
ViewOption = Annotated[
    str, typer.Option("--view", metavar="NAME", help="Of the sampling in overlap.views of the parameters.")
]
MethodOption = Annotated[str, typer.Option("--method", metavar="NAME", help="A method of section methods.")]

EXIT_REFUSED = 1

LEAST_ADDRESS_SPACE_MIB = 1024
"""With less there is no room for the libraries themselves."""


def require_listed(dose: int, doses: list[int]) -> None:
    """Refuse a dose that ``params.yaml`` does not name, for which DVC has no stage."""
    if dose not in doses:
        problem = f"{dose} is not among doses {doses} of the parameters"
        raise StudyError("--dose", problem, "add it there; it is a whole number of photons per frame")


@contextmanager
def refusals_of(where: str) -> Generator[None]:
    """Have what the block refuses begin with what it was given, such as a view and its frames."""
    try:
        yield
    except StudyError as error:
        raise StudyError(where, f"{error.where}: {error.problem}", error.hint) from None


def run(main: Callable[..., None]) -> None:
    """Run a stage's ``main`` as the command line that its signature describes.

    What the user can put right is one line on standard error and status 1: a
    `StudyError`, a full or protected disk, too little memory. A usage error has status 2,
    an interrupt 130 within five seconds. Every other exception is a bug and keeps its
    traceback.
    """
    try:
        command(main)()
    except SystemExit as end:
        if not end.code:
            # All is written, and only the interpreter is left to end.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if end.code == EXIT_INTERRUPTED:
            # Without the seconds that the interpreter takes to free everything, while no thread
            # can watch the time; exit functions still run.
            atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage] - no public way to run them first
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(EXIT_INTERRUPTED)
        raise


def command(main: Callable[..., None]) -> typer.Typer:
    """Return the command line of a stage's ``main``, for `run` and for tests."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(refusing(main))
    return app


def refusing(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command, so that it answers what the user can put right as `run` says."""

    @functools.wraps(main)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            with bounded_interrupts(), _one_line_messages():
                _require_own_code()
                _prepare_for_limited_memory()
                with one_blas_thread():
                    main(*args, **kwargs)
        except KeyboardInterrupt:
            if first_to_tell():
                say(f"interrupted: {HOW_TO_GO_ON}")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except Exception as error:
            refusal = as_refusal(error)
            if refusal is None:
                raise
            say(f"error: {refusal}")
            raise typer.Exit(EXIT_REFUSED) from None

    return guarded


def _require_own_code() -> None:
    """Refuse to work on one checkout with the code of another.

    DVC's queue runs experiments in copies of the repository. An editable install points
    to the main checkout, whose code would run there unnoticed.
    """
    expected = Path("src") / "fly64_dose_overlap"
    running = Path(fly64_dose_overlap.__file__).parent
    if expected.is_dir() and not expected.samefile(running):
        problem = f"is not the code that would run, which is {running}"
        hint = f"repeat with: env PYTHONPATH=src {Path(sys.executable).name} -m ..."
        raise StudyError(str(expected), problem, hint)


def _prepare_for_limited_memory() -> None:
    """Refuse a limit of the address space too small for the libraries; under any, take OpenBLAS's buffers.

    NumPy's and SciPy's OpenBLAS would later ask for them for ever, or end the process, where
    it should fail.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    if limit < LEAST_ADDRESS_SPACE_MIB * 2**20:
        found = f"limited to {limit // 2**20} MiB, {LEAST_ADDRESS_SPACE_MIB} are needed"
        hint = "raise the limit (ulimit -v) and repeat the command"
        raise StudyError("memory", f"the address space is {found}", hint)
    import numpy as np
    from scipy.linalg import get_blas_funcs

    square = np.eye(64)
    (multiply,) = get_blas_funcs(["gemm"])
    multiply(1.0, square, square @ square)


@contextmanager
def _one_line_messages() -> Generator[None]:
    """Show a warning as its message alone, without the line of code that it came from.

    Nothing is shown of memory that was missing while Python cleared up: what it was missing for says so.
    """

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        say(f"warning: {' '.join(str(message).split())}")

    def ignore(found: Any) -> None:
        if not issubclass(found.exc_type, MemoryError):
            before(found)

    before, sys.unraisablehook = sys.unraisablehook, ignore
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        sys.unraisablehook = before
