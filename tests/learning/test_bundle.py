"""Model bundles on disk."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fly64_dose_overlap import provenance
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.learning.bundle import (
    DIGEST,
    METADATA_KEY,
    bundle_digest,
    load_bundle,
    save_bundle,
)
from fly64_dose_overlap.learning.correction import CorrectorInfo, bundle_name, load_corrector
from fly64_dose_overlap.learning.corrector import Corrector, build_corrector
from fly64_dose_overlap.learning.layers import build_seeded
from fly64_dose_overlap.learning.mosaic import GroupStart

FORMAT = "fly64-dose-overlap/network/7"
INFO = CorrectorInfo(
    width=4,
    coarse_photons=None,
    frame_side_px=32,
    support_side_px=28,
    gridsize=2,
    photons_per_frame=1003.5,
    start={"iterations": 2},
    training={"seed": 1, "loss": "poisson", "val_loss": 0.5},
    record=provenance.new_record("test"),
)


def save(path: Path, info: CorrectorInfo = INFO, network: Corrector | None = None) -> None:
    save_bundle(path, network or build_corrector(4, seed=1), info, bundle_name("network"))


def load(path: Path) -> tuple[Corrector, CorrectorInfo, GroupStart]:
    network, info, start = load_corrector(path, "network", GroupStart)
    assert isinstance(start, GroupStart)
    return network, info, start


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save(path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(StudyError) as caught:
        load(path)
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
    save(tmp_path / "model.safetensors", info)
    assert load(tmp_path / "model.safetensors")[1] == info


def test_round_trip_keeps_weights_info_and_bytes(bundle: Path, tmp_path: Path) -> None:
    network, info, start = load(bundle)
    assert info == INFO
    assert start == GroupStart(2)
    assert not network.training
    wanted = build_corrector(4, seed=1).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in network.state_dict().items())
    save(tmp_path / "again.safetensors", info, network)
    assert (tmp_path / "again.safetensors").read_bytes() == bundle.read_bytes()


def test_bundle_is_readable_by_whom_the_umask_lets(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    assert bundle.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_nothing_is_written_of_info_that_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        save(tmp_path / "bundle", replace(INFO, photons_per_frame=float("nan")))
    assert not list(tmp_path.iterdir())


def test_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none: no such model bundle; train the method first$"):
        load(tmp_path / "none")


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
        ({"format": FORMAT, "width": 4}, "frame_side_px: key is missing (and 7 more)"),
        ({**VALID, "width": 8}, "is not as its network has it"),
        ({**VALID, "width": "4"}, "width: input should be a valid integer, got '4'"),
        ({**VALID, "width": 10**9}, "width: input should be less than or equal to 512, got 1000000000"),
        ({**VALID, "frame_side_px": True}, "frame_side_px: input should be a valid integer, got True"),
        ({**VALID, "gridsize": 3}, "gridsize: input should be less than or equal to 2, got 3"),
        ({**VALID, "photons_per_frame": 0.0}, "photons_per_frame: input should be greater than 0, got 0.0"),
        ({**VALID, "extra": 1}, "extra: "),
        ({**VALID, "start": [2]}, "start: input should be"),
        ({**VALID, "start": {}}, "start.iterations: key is missing"),
        ({**VALID, "start": {"iterations": -1}}, "start.iterations: input should be greater than"),
        ({**VALID, "start": {"iterations": 2.5}}, "start.iterations: input should be"),
        ({**VALID, "start": {"iterations": 2, "weight": 0.4}}, "start.weight: "),
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


def test_the_bundle_of_another_method_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"is no model bundle of format fly64-dose-overlap/refined/7; train"):
        load_corrector(bundle, "refined", GroupStart)
    save_bundle(tmp_path / "other", build_corrector(4, seed=1), INFO, "other/1")
    assert f"is no model bundle of format {FORMAT}; train again" in refusal(tmp_path / "other")


def test_any_network_and_what_it_belongs_to_can_be_kept(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class LineInfo:
        inputs: int

    def build(info: LineInfo) -> torch.nn.Linear:
        return build_seeded(lambda: torch.nn.Linear(info.inputs, 1), seed=0)

    line = build_seeded(lambda: torch.nn.Linear(3, 1), seed=5)
    save_bundle(tmp_path / "line", line, LineInfo(3), "line/1")
    network, info = load_bundle(tmp_path / "line", "line/1", LineInfo, build)
    assert info == LineInfo(3)
    assert torch.equal(network.weight, line.weight)
