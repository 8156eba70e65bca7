"""Errors that a user can act on: where, which rule, the value found, what to do."""

from __future__ import annotations


class StudyError(ValueError):
    """Refuse bad input in one line.

    Command-line entry points print the message and exit with status 1; every
    other exception is a bug and keeps its traceback.

    Parameters
    ----------
    where : str
        File, key or argument at fault, as the user knows it.
    problem : str
        The rule that was broken and the value found.
    hint : str, optional
        What to do next.
    """

    def __init__(self, where: str, problem: str, hint: str = "") -> None:
        self.where = where
        self.problem = problem
        self.hint = hint
        message = f"{where}: {problem}" + (f"; {hint}" if hint else "")
        super().__init__(" ".join(message.split()))


class MissingFileError(StudyError, FileNotFoundError):
    """A file that the study needs is not there."""

    def __str__(self) -> str:
        return str(self.args[0])
