"""The synthetic base set: sizes, positions and provenance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap import provenance
from fly64_dose_overlap.config import BaseParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.study.base import make_synthetic_base, object_side_px


def base_params(**changes: Any) -> BaseParams:
    values: dict[str, Any] = {
        "source": "synthetic",
        "frames": "auto",
        "fields": None,
        "counts_per_photon": None,
        "mend": {"turn": [], "bad_pixels": [], "leave_out": []},
        "noise": "counts",
        "seed": 42,
        "frame_side_px": 64,
        "object_kind": "star",
        "field_px": 40.0,
        "step_px": 5.0,
        "jitter_px": 0.5,
        "defocus_um": 850.0,
    }
    return BaseParams.model_validate(values | changes)


def test_the_default_scan_holds_some_nine_thousand_frames() -> None:
    base = make_synthetic_base(base_params(field_px=480.0))
    assert base.positions_px.shape == (97 * 97, 2)
    assert base.obj.shape == (548, 548)
    assert base.obj.dtype == base.probe.dtype == np.complex64
    assert base.positions_px.dtype == np.float64
    np.testing.assert_array_equal(base.scan_index, np.arange(97 * 97))
    assert base.scan_index.dtype == np.int64
    assert base.amplitude is None


@pytest.mark.parametrize("frame_side_px", [64, 128])
@pytest.mark.parametrize("field_px", [40.0, 40.3, 41.0])
def test_every_window_lies_inside_the_object(frame_side_px: int, field_px: float) -> None:
    base = make_synthetic_base(base_params(frame_side_px=frame_side_px, field_px=field_px))
    side = base.obj.shape[0]
    assert base.obj.shape == (side, side)
    assert side % 2 == 0
    assert base.probe.shape == (1, frame_side_px, frame_side_px)
    assert np.floor(base.positions_px - frame_side_px / 2).min() >= 0
    assert np.ceil(base.positions_px + frame_side_px / 2 - 1).max() <= side - 1


def test_the_scan_is_centred_on_the_object() -> None:
    base = make_synthetic_base(base_params(jitter_px=0.0))
    np.testing.assert_allclose(base.positions_px.mean(axis=0), np.array(base.obj.shape) / 2)


def test_object_side_is_even_and_leaves_a_margin() -> None:
    assert object_side_px(480.0, 64) == 548
    assert object_side_px(480.5, 64) == 550


def test_equal_params_give_equal_arrays() -> None:
    first, second = (make_synthetic_base(base_params()) for _ in range(2))
    for name in ("obj", "probe", "positions_px", "scan_index"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.record == second.record


def test_object_and_scan_draw_from_streams_of_their_own() -> None:
    base = make_synthetic_base(base_params())
    other_object = make_synthetic_base(base_params(object_kind="texture"))
    other_scan = make_synthetic_base(base_params(jitter_px=0.4))
    other_seed = make_synthetic_base(base_params(seed=43))
    np.testing.assert_array_equal(base.positions_px, other_object.positions_px)
    np.testing.assert_array_equal(base.obj, other_scan.obj)
    assert not np.array_equal(base.obj, other_object.obj)
    assert not np.array_equal(base.positions_px, other_scan.positions_px)
    assert not np.array_equal(base.obj, other_seed.obj)
    assert not np.array_equal(base.positions_px, other_seed.positions_px)


def test_the_record_names_what_the_set_was_made_from() -> None:
    record = make_synthetic_base(base_params()).record
    physics = record["physics_parameters"]
    assert physics["object_pixel_m"] == pytest.approx(57.2e-9, rel=2e-3)
    assert physics["defocus_m"] == pytest.approx(850e-6)
    assert physics["energy_ev"] == 8800.0
    assert physics["detector_distance_m"] == 1.95
    assert (physics["frame_side_px"], physics["step_px"], physics["jitter_px"]) == (64, 5.0, 0.5)
    assert record["additional_parameters"] == {"source": "synthetic", "seed": 42, "object_kind": "star"}
    assert record["creation_info"]["script"] == "base"
    assert '"schema_version"' in provenance.dumps(record)


def test_a_source_that_is_a_file_is_refused() -> None:
    with pytest.raises(
        StudyError, match=r"base.source: must be 'synthetic' to make a base set, got 'scan.npz'"
    ):
        make_synthetic_base(base_params(source="scan.npz"))


def test_a_field_smaller_than_the_pitch_is_refused() -> None:
    with pytest.raises(StudyError, match=r"step_px: must be positive and at most field_px=4.0, got 5.0"):
        make_synthetic_base(base_params(field_px=4.0))
