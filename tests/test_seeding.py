"""Named random streams."""

from __future__ import annotations

import numpy as np
import pytest

from fly64_dose_overlap.seeding import generator, stream_entropy, torch_seed


def test_a_stream_repeats() -> None:
    assert generator(42, "a", 1).random(5).tolist() == generator(42, "a", 1).random(5).tolist()
    assert torch_seed(42, "a", 1) == torch_seed(42, "a", 1)


def test_streams_differ_by_seed_and_by_name() -> None:
    streams = [(1, "a"), (2, "a"), (1, "b"), (1, "a", 0), (1, "a", 1), (1,)]
    draws = [generator(seed, *names).random() for seed, *names in streams]
    assert len(set(draws)) == len(draws)
    assert len({torch_seed(seed, *names) for seed, *names in streams}) == len(streams)


def test_streams_never_change() -> None:
    """Data on disk were drawn from them; pinned, for a change would give every file another hash."""
    assert stream_entropy(42, "simulate", "counts", 1000, 0)[:2] == [42, 2955264840]
    assert int(generator(42, "base", "scan").integers(2**62)) == 2858290578381496843
    assert torch_seed(42, "train", "weights") == 931731197816514873


def test_streams_are_independent() -> None:
    first, second = (generator(7, "block", number).normal(size=20_000) for number in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_seeds_of_params_fit(seed: int) -> None:
    assert 0 <= torch_seed(seed, "x") < 2**63
    assert 0 <= generator(seed, "x").random() < 1
