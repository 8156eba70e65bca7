"""``dvc.lock`` as DVC writes it, and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.lock import parse_lock

ROOT = Path(__file__).resolve().parents[2]
CHECKSUM = "0123456789abcdef0123456789abcdef"


def test_the_studys_own_lock() -> None:
    stages = parse_lock((ROOT / "dvc.lock").read_text(encoding="utf-8"))
    assert stages["base"].outs[0].path == "data/base/base.npz"
    assert stages["reconstruct@map"].outs[0].md5 is not None
    assert stages["reconstruct@map"].outs[0].md5.endswith(".dir")
    assert stages["train@refined"].params["params.yaml"]["dose"] == 10000


def test_a_lock_may_have_no_stage() -> None:
    assert parse_lock("schema: '2.0'\n") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [", "is not valid YAML"),
        ("", "is damaged (input should be a valid dictionary or instance of _Lock, got None); git restore"),
        ("- a", "is damaged (input should be a valid dictionary or instance of _Lock"),
        ("stages: 3", "is damaged (stages: input should be a valid dictionary, got 3)"),
        ("stages: {a: {outs: [{md5: x}]}}", "is damaged (stages.a.outs.0.path: key is missing (and 1 more))"),
        (
            f"stages: {{a: {{outs: [{{path: x, md5: ../{CHECKSUM[3:]}}}]}}}}",
            "is damaged (stages.a.outs.0.md5: ",
        ),
        ("stages: {a: {}, a: {}}", "is not valid YAML (the key 'a' comes twice, line 1)"),
        ("stages:\n<<<<<<< HEAD\n  a: {}\n", "holds marks of a merge conflict; settle it, then: dvc repro"),
    ],
)
def test_a_damaged_lock_is_refused(text: str, message: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse_lock(text, where="1000-sparse: dvc.lock")
    assert str(caught.value).startswith(f"1000-sparse: dvc.lock: {message}")
