"""The last digits of a stage's results do not depend on how many threads the libraries would take."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import scipy.linalg  # noqa: F401  # pyright: ignore[reportUnusedImport] - brings the second OpenBLAS
import threadpoolctl
from typer.testing import CliRunner

from fly64_dose_overlap.arguments import checked_call
from fly64_dose_overlap.pipeline.stages._cli import command

THREADS = 2


def blas_threads() -> dict[str, int]:
    """Return the number of threads of each OpenBLAS of this process, by its file."""
    found: list[dict[str, Any]] = threadpoolctl.threadpool_info()
    return {each["filepath"]: each["num_threads"] for each in found if each["user_api"] == "blas"}


@pytest.fixture
def two_threads() -> Generator[None]:
    with threadpoolctl.threadpool_limits(THREADS, user_api="blas"):
        yield


@pytest.mark.usefixtures("two_threads")
def test_a_stage_has_one_thread_of_blas_and_gives_the_others_back() -> None:
    seen: dict[str, int] = {}

    def main() -> None:
        seen.update(blas_threads())

    before = blas_threads()
    assert len(before) > 1
    assert set(before.values()) == {THREADS}
    assert CliRunner().invoke(command(main)).exit_code == 0
    assert seen == dict.fromkeys(before, 1)
    assert blas_threads() == before


@pytest.mark.usefixtures("two_threads")
def test_so_has_a_function_of_the_front_door() -> None:
    @checked_call
    def seen() -> dict[str, int]:
        return blas_threads()

    before = blas_threads()
    assert seen() == dict.fromkeys(before, 1)
    assert blas_threads() == before
