"""Model bundles on disk."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fly64_dose_overlap.learning.supervised import SupervisedInfo, build_supervised
from safetensors.torch import save_file

from fly64_dose_overlap import provenance
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.learning.bundle import (
    DIGEST,
    FORMAT,
    METADATA_KEY,
    SUPERVISED_FORMAT,
    BundleInfo,
    bundle_digest,
    load_bundle,
    load_supervised,
    save_bundle,
)
from fly64_dose_overlap.learning.corrector import build_corrector

INFO = BundleInfo(
    width=4,
    start="groups",
    start_iterations=2,
    start_weight=0.0,
    coarse_photons=None,
    frame_side_px=32,
    support_side_px=28,
    gridsize=2,
    photons_per_frame=1003.5,
    training={"seed": 1, "loss": "poisson", "val_loss": 0.5},
    record=provenance.new_record("test"),
)
SUPERVISED_INFO = SupervisedInfo(4, 32, 28, 1003.5, {"seed": 1}, provenance.new_record("test"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_bundle(path, build_corrector(4, seed=1), INFO)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(StudyError) as caught:
        load_bundle(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def write_foreign(path: Path, content: Any, **tensors: torch.Tensor) -> None:
    """Write weights with any metadata; those of a mapping get their right digest."""
    weights = {**build_corrector(4, seed=1).state_dict(), **tensors}
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    if isinstance(content, dict):
        content = json.dumps({**content, DIGEST: bundle_digest(content, weights)})
    save_file(weights, path, {METADATA_KEY: content})


def test_the_smallest_support_is_read_back(tmp_path: Path) -> None:
    info = replace(INFO, support_side_px=4)
    save_bundle(tmp_path / "model.safetensors", build_corrector(4, seed=1), info)
    assert load_bundle(tmp_path / "model.safetensors")[1] == info


def test_round_trip_keeps_weights_info_and_bytes(bundle: Path, tmp_path: Path) -> None:
    network, info = load_bundle(bundle)
    assert info == INFO
    assert not network.training
    wanted = build_corrector(4, seed=1).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in network.state_dict().items())
    save_bundle(tmp_path / "again.safetensors", network, info)
    assert (tmp_path / "again.safetensors").read_bytes() == bundle.read_bytes()


def test_bundle_is_readable_by_whom_the_umask_lets(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    assert bundle.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_nothing_is_written_of_info_that_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        save_bundle(tmp_path / "bundle", build_corrector(4, 1), replace(INFO, photons_per_frame=float("nan")))
    assert not list(tmp_path.iterdir())


def test_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(
        MissingFileError, match=r"none: no such model bundle; train one with: dvc repro train"
    ):
        load_bundle(tmp_path / "none")


@pytest.mark.parametrize("part", [slice(0, 0), slice(0, 5), slice(0, -7), slice(40, None)])
def test_damaged_bundle(bundle: Path, part: slice) -> None:
    bundle.write_bytes(bundle.read_bytes()[part])
    assert "is not a readable model bundle" in refusal(bundle)
    assert refusal(bundle).endswith("restore it: dvc pull")


class _Payload:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('executed').touch()",)


def test_a_pickle_is_never_executed(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundle.write_bytes(pickle.dumps(_Payload()))
    assert "is not a readable model bundle" in refusal(bundle)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    "content",
    ["null", "[]", '{"format": "fly64-dose-overlap/0"}', json.dumps({"width": 4})],
)
def test_another_format_is_refused(bundle: Path, content: str) -> None:
    write_foreign(bundle, content)
    assert f"is no model bundle of format {FORMAT}; train again" in refusal(bundle)


def test_weights_without_metadata_are_refused(bundle: Path) -> None:
    save_file({"w": torch.ones(2)}, bundle)
    assert f"is no model bundle of format {FORMAT}; train again" in refusal(bundle)


VALID: dict[str, Any] = {"format": FORMAT, **vars(INFO)}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{not json", "Expecting property name"),
        ({"format": FORMAT, "width": 4}, "start: key is missing (and 9 more)"),
        ({**VALID, "width": 8}, "is not as its network has it"),
        ({**VALID, "width": "4"}, "width: input should be a valid integer, got '4'"),
        ({**VALID, "width": 10**9}, "width: input should be less than or equal to 512, got 1000000000"),
        ({**VALID, "frame_side_px": True}, "frame_side_px: input should be a valid integer, got True"),
        ({**VALID, "gridsize": 3}, "gridsize: input should be less than or equal to 2, got 3"),
        ({**VALID, "photons_per_frame": 0.0}, "photons_per_frame: input should be greater than 0, got 0.0"),
        ({**VALID, "extra": 1}, "extra: "),
    ],
)
def test_metadata_that_do_not_fit_are_refused(bundle: Path, content: Any, why: str) -> None:
    write_foreign(bundle, content)
    assert "is not a readable model bundle (" in refusal(bundle)
    assert why in refusal(bundle)


@pytest.mark.parametrize(
    ("name", "tensor", "why"),
    [
        ("more", torch.ones(2), "'more' is not as its network has it"),
        ("stem.bias", torch.ones(4, dtype=torch.float64), "'stem.bias' is not as its network has it"),
        ("stem.bias", torch.ones(5), "'stem.bias' is not as its network has it"),
        ("stem.bias", torch.full((4,), torch.nan), "'stem.bias' has NaN or infinite values"),
    ],
)
def test_weights_that_do_not_fit_are_refused(bundle: Path, name: str, tensor: torch.Tensor, why: str) -> None:
    write_foreign(bundle, VALID, **{name: tensor})
    assert f"is not a readable model bundle ({why})" in refusal(bundle)


@pytest.mark.parametrize("where", ["a weight", "the metadata"])
def test_a_change_that_leaves_the_format_whole_is_found(bundle: Path, where: str) -> None:
    content = bundle.read_bytes()
    if where == "a weight":
        content = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    else:
        content = content.replace(b"1003.5", b"1003.6")
    assert content != bundle.read_bytes()
    bundle.write_bytes(content)
    assert "its SHA-256 differs from the one it carries" in refusal(bundle)
    assert refusal(bundle).endswith("restore it: dvc pull")


# The supervised network


@pytest.fixture
def supervised_bundle(tmp_path: Path) -> Path:
    path = tmp_path / "supervised.safetensors"
    save_bundle(path, build_supervised(SUPERVISED_INFO, seed=1), SUPERVISED_INFO)
    return path


def test_supervised_round_trip_keeps_weights_info_and_bytes(supervised_bundle: Path, tmp_path: Path) -> None:
    network, info = load_supervised(supervised_bundle)
    assert info == SUPERVISED_INFO
    assert not network.training
    wanted = build_supervised(SUPERVISED_INFO, seed=1).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in network.state_dict().items())
    save_bundle(tmp_path / "again.safetensors", network, info)
    assert (tmp_path / "again.safetensors").read_bytes() == supervised_bundle.read_bytes()


def test_the_bundle_of_another_arm_is_refused(bundle: Path, supervised_bundle: Path) -> None:
    with pytest.raises(StudyError, match=f"is no model bundle of format {FORMAT}; train again"):
        load_bundle(supervised_bundle)
    with pytest.raises(StudyError, match=f"is no model bundle of format {SUPERVISED_FORMAT}; train again"):
        load_supervised(bundle)


def test_missing_supervised_bundle(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such model bundle; train one with: dvc repro supervise"):
        load_supervised(tmp_path / "none")
