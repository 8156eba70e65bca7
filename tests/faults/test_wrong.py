"""Valid files that are wrong in one fact: none passes in silence, and a gauge changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import wrong


def test_some_facts_turned_are_noticed_and_a_gauge_is_harmless(tmp_path: Path) -> None:
    names = [*list(wrong.WRONG)[::4], "factor and ramp between object and probe"]
    assert [problem for name in names if (problem := wrong.try_case(name, 0, tmp_path))] == []


def test_the_long_form_tries_more_than_five_hundred() -> None:
    assert wrong.ROUNDS * len(wrong.WRONG) > 500


def test_silence_is_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wrong.WRONG, "nothing", (lambda rng, arrays: None, "its own object"))
    assert wrong.try_case("nothing", 0, tmp_path) == "silent about it: []"
    monkeypatch.setitem(wrong.HARMLESS, "a wrong fact", wrong.WRONG["x and y swapped"][0])
    assert wrong.try_case("a wrong fact", 0, tmp_path).startswith("not harmless: [")


@pytest.mark.slow
def test_no_fact_turned_is_passed_over_in_silence() -> None:
    for outcome in wrong.run(quick=False):
        assert list(outcome.lost) == []
        assert outcome.survived == outcome.tried > 0
