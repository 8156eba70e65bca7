"""Numbers and tables of the documents are those that parameters, metrics and code determine."""

from __future__ import annotations

import inspect
import math
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from fly64_dose_overlap.config import Params
from fly64_dose_overlap.learning.correction import KEPT_REALISATIONS
from fly64_dose_overlap.methods import posterior
from fly64_dose_overlap.methods.map import GOING_ON, WEIGHT_FACTOR
from fly64_dose_overlap.methods.registry import method_class
from fly64_dose_overlap.pipeline import cli
from fly64_dose_overlap.pipeline.matrix import cluster, node, plan
from fly64_dose_overlap.pipeline.stages import _cli, _interrupts
from fly64_dose_overlap.scores.align import MAX_SHIFT_PX
from fly64_dose_overlap.scores.scores import MS_SSIM_BETAS, PSNR_CEILING_DB, WINDOW_SIGMA_PX, WINDOW_TAPS
from fly64_dose_overlap.study import geometry, overlap
from fly64_dose_overlap.study.views import VIEW_MAPPING_VERSION
from fly64_dose_overlap.trust import SHARED_FRC
from tiny_study import ROOT

VIEWS = ("baseline", "dense", "sparse")
LEARNED = ("network", "refined", "supervised")


def recorded(name: str) -> Any:
    """Return parameters or metrics as staged or committed: an experiment of one's own changes the files."""
    shown = subprocess.run(
        ["git", "show", f":./{name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return yaml.safe_load(shown.stdout if shown.returncode == 0 else document(name))


def recorded_params() -> dict[str, Any]:
    return recorded("params.yaml")


def document(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def keys(content: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of all values."""
    found: list[str] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        found += keys(value, f"{name}.") if isinstance(value, dict) else [name]
    return found


def table(text: str) -> dict[str, list[str]]:
    """Return the cells behind each key of a Markdown table."""
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, re.MULTILINE)
    return {key: re.split(r" *\| *", cells) for key, cells in rows}


def test_every_parameter_is_in_the_table_with_its_default() -> None:
    text = document("docs/parameters.md").partition("\n## Methods")[0]
    rows = {key: cells[0] for key, cells in table(text).items()}
    content = recorded_params()
    del content["methods"]
    views = content["overlap"].pop("views")
    expected = {name: _value(content, name) for name in keys(content)}
    for key in ("s_img", "n_groups", "gridsize"):
        expected[f"overlap.views.<view>.{key}"] = ", ".join(_text(views[name][key]) for name in VIEWS)
    assert rows == expected


def test_every_setting_of_the_learned_methods_is_in_the_table_with_its_default() -> None:
    text = document("docs/parameters.md").partition("\n## Methods")[2]
    rows = {key: tuple(cells[: len(LEARNED)]) for key, cells in table(text).items()}
    methods = recorded_params()["methods"]
    names = {key for name in LEARNED for key in methods[name]}
    blank = dict.fromkeys(names, "")
    shown = [blank | {key: _text(value) for key, value in methods[name].items()} for name in LEARNED]
    assert rows == {key: tuple(each[key] for each in shown) for key in names}


def _value(content: dict[str, Any], name: str) -> str:
    value: Any = content
    for part in name.split("."):
        value = value[part]
    return ", ".join(map(_text, value)) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


RANGE = re.compile(r"(above|between|) ?(-?[\d.]+(?:e\d+)?)(?:,? (?:up to|to|and) (-?[\d.]+(?:e\d+)?)| up)")
IN_WORDS = {"dose", "base.step_px", "base.jitter_px", "overlap.neighbor_count"}
"""Parameters whose range other parameters narrow, which the table says in words."""


def ranges(schema: Any, definitions: dict[str, Any], name: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield every number of a JSON schema with its range, as `RANGE` finds it in the table."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if schema.get("type") in ("integer", "number") and "enum" not in schema:
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        kind = "" if "minimum" in schema else "above" if "maximum" in schema else "between"
        if kind and schema["type"] == "integer":
            kind, low = "", low + 1
        yield name, (kind, low, None if high == 2**63 else high)
    for key, part in schema.get("properties", {}).items():
        yield from ranges(part, definitions, f"{name}.{key}".lstrip("."))
    for part in [schema.get("items"), *schema.get("anyOf", ())]:
        if part:
            yield from ranges(part, definitions, name)
    for part in schema.get("patternProperties", {}).values():
        yield from ranges(part, definitions, f"{name}.<view>")


def told_range(text: str) -> tuple[Any, ...]:
    found = RANGE.search(text)
    assert found, text
    return (found[1], float(found[2]), float(found[3]) if found[3] else None)


def test_the_ranges_of_the_parameters_are_those_that_are_checked() -> None:
    text, _, of_methods = document("docs/parameters.md").partition("\n## Methods")
    schema = Params.model_json_schema()
    found = dict(ranges(schema, schema["$defs"]))
    told = {key: cells[1] for key, cells in table(text).items()}
    assert IN_WORDS <= found.keys() <= told.keys()
    for name in found.keys() - IN_WORDS:
        assert told_range(told[name]) == found[name], name
    told = {key: cells[len(LEARNED)] for key, cells in table(of_methods).items()}
    for method in LEARNED:
        schema = method_class(method).Settings.model_json_schema()
        for name, checked in ranges(schema, schema.get("$defs", {})):
            assert told_range(told[name]) == checked, f"{method}: {name}"
    of_raar = dict(ranges(method_class("raar").Settings.model_json_schema(), {}))
    for key, low, high in re.findall(r"`(epochs|beta)`[^()]*?\(([\d.]+) to ([\d.]+)\)", _joined(of_methods)):
        assert ("", float(low), float(high)) == of_raar.pop(key)
    assert of_raar == {}


def _joined(text: str) -> str:
    return " ".join(text.split())


WORDS = {"a tenth": 0.1, "third": 1 / 3, "two": 2, "twice": 2, "five": 5, "six": 6, "nine": 9, "sixty": 60}
NUMBER = rf"(-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?|{'|'.join(WORDS)})"


def told(name: str, sentence: str) -> list[tuple[float, int | None]]:
    """Return the numbers in the place of each # of a sentence of a document, and the decimals given."""
    found = re.search(re.escape(sentence).replace(r"\#", NUMBER), _joined(document(name)), re.IGNORECASE)
    assert found, f"{name}: {sentence}"
    texts = [text.lower().replace(",", "") for text in found.groups()]
    exact = {text for text in texts if text in WORDS or "e" in text}
    return [
        (WORDS.get(text) or float(text), None if text in exact else len(text.partition(".")[2]))
        for text in texts
    ]


def test_numbers_in_sentences_are_those_of_parameters_metrics_and_code() -> None:
    params, halves = recorded_params(), recorded("metrics/dose/10000.json")
    base, methods, overlaps = params["base"], params["methods"], params["overlap"]
    kappa = [recorded(f"metrics/limit/{view}.json")["kappa"] for view in VIEWS]
    diameter = recorded("metrics/overlap/10000-dense.json")["test"]["probe_diameter_px"]
    raster = [base["step_px"], base["jitter_px"], base["field_px"]]
    frames, cells = halves["test"]["frames"], len(params["doses"]) * len(VIEWS)
    kept = [methods[name]["epochs"] for name in ("network", "refined")]
    group = max(view["gridsize"] for view in overlaps["views"].values()) ** 2
    near, gap = overlaps["neighbor_count"], halves["split"]["guard_gap_px"]
    example = [
        document(f"examples/amplitude_flow/{file}") for file in ("amplitude_flow.py", "pyproject.toml")
    ]
    workers = inspect.signature(cli.matrix).parameters["workers"].default
    leads = re.findall(
        r"^Refined leads in phase PSNR .*?: ([\d.]+) to ([\d.]+) dB",
        document("docs/results.md"),
        re.MULTILINE,
    )
    taps, backgrounds = WINDOW_TAPS, [background for background, _ in posterior.BACKGROUNDS]
    for name, sentence, values in (
        ("README.md", "three doses (#, # and # photons per frame) times", params["doses"]),
        ("README.md", "runs all # cells", [cells]),
        ("docs/index.md", "all nine cells too, by # to # dB above MAP", map(float, leads[1])),
        ("docs/study.md", "There are # cells for each kind", [cells]),
        ("docs/study.md", "averaged over the scan: #, # or #.", params["doses"]),
        ("docs/study.md", "raster of # px pitch with # px jitter over a square of # px", raster),
        ("docs/study.md", "with frames of # x # pixels", [base["frame_side_px"]] * 2),
        ("docs/getting-started.md", "the default cell (# photons per frame, view dense)", [params["dose"]]),
        ("docs/matrix.md", "runs all # cells as DVC experiments, # at a time", [cells, workers]),
        ("docs/matrix.md", "# digits that stand for the difference", [plan.DIGEST_DIGITS]),
        ("docs/cluster.md", "each up to # times with growing pauses", [node.PUSHES]),
        ("docs/cluster.md", "The cell is run again, up to # (`retries`)", [cluster.RETRIES]),
        ("docs/cluster.md", "The default scan has # frames after the guard gap", [2 * frames]),
        ("docs/metrics.md", "searched within # px", [MAX_SHIFT_PX]),
        ("docs/metrics.md", "20 log10(peak / RMSE), at most # dB", [PSNR_CEILING_DB]),
        ("docs/metrics.md", "window of # taps and sigma # px", [taps, WINDOW_SIGMA_PX]),
        ("docs/metrics.md", "the exponents #, #, #, # and #", MS_SSIM_BETAS),
        ("docs/metrics.md", "side is # px or more; else four from #", [16 * taps, 9 * taps]),
        ("docs/metrics.md", "three from #, two from # and one below", [4 * taps, 2 * taps]),
        ("docs/methods.md", "falls in steps from # photon to #", backgrounds[::2]),
        ("docs/methods.md", "in factors of # from a first one", [WEIGHT_FACTOR]),
        ("docs/methods.md", "go on from there for a # of them", [GOING_ON]),
        ("docs/methods.md", "# of the photons is held out", [params["stops"]["held_out_fraction"]]),
        ("docs/methods.md", "# joint iterations of maximum", [methods["refined"]["iterations"]]),
        ("docs/methods.md", "reconstructed by # amplitude proj", [methods["network"]["iterations"]]),
        ("docs/methods.md", "has # lines in # files", [sum(t.count("\n") for t in example), len(example)]),
        ("docs/physics.md", "on the dose: # for the baseline view, # for the dense", kappa[:2]),
        ("docs/physics.md", "and at least # for the sparse one", kappa[2:]),
        ("docs/own-data.md", "strip is less than # px high", [taps]),
        ("docs/own-data.md", "lies more than # above that of halves", [SHARED_FRC]),
        ("docs/data-contract.md", "last # epochs (the study has # and #)", [KEPT_REALISATIONS, *kept]),
        ("docs/data-contract.md", "# kB for a frame of # x #", [64 * 64 * 4 / 1024, 64, 64]),
        ("docs/reliability.md", "ends a command within # seconds", [math.ceil(_interrupts.ORDERLY_END_S)]),
        ("docs/reliability.md", "(`ulimit -v`) under # GiB", [_cli.LEAST_ADDRESS_SPACE_MIB / 1024]),
        ("docs/design/views.md", "Mapping, version #", [float(VIEW_MAPPING_VERSION)]),
        ("docs/design/views.md", "N = #, raster of # px pitch", [base["frame_side_px"], base["step_px"]]),
        ("docs/design/views.md", "# px jitter over # px, # um", [*raster[1:], base["defocus_um"]]),
        ("docs/design/views.md", "# frames on either side of a gap of # px", [frames, gap]),
        ("docs/design/views.md", "D = # px from the probe", [diameter]),
        ("docs/design/views.md", "its # nearest other positions", [overlaps["metric_neighbor_count"]]),
        ("docs/design/views.md", "(# for K = #, C = #)", [math.comb(near, group), near, group]),
        ("docs/design/views.md", "is min(#, area of", [overlap.MAX_ACCEPTANCE]),
        ("docs/design/views.md", "with a floor of #", [overlap.ACCEPTANCE_FLOOR]),
        ("docs/design/views.md", "its frame counts as # N wide", [geometry.DEFAULT_DIAMETER_FRACTION]),
    ):
        for (number, decimals), value in zip(told(name, sentence), values, strict=True):
            assert number == (value if decimals is None else round(value, decimals)), f"{name}: {sentence}"


def test_a_sentence_with_another_number_would_be_noticed() -> None:
    assert told("docs/study.md", "raster of # px pitch with # px jitter") == [(5, 0), (0.5, 1)]
    with pytest.raises(AssertionError, match=r"study\.md: raster of # mm"):
        told("docs/study.md", "raster of # mm")


def table_rows(name: str, head: str) -> dict[str, list[str]]:
    """Return the rows of the table below a head, by their first column, or first two where it repeats."""
    block = document(name).partition(f"| {head} |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in block.splitlines()[2:]]
    names = [row[0] for row in rows]
    return {row[0] if names.count(row[0]) == 1 else " ".join(row[:2]): row for row in rows}


def test_the_tables_of_the_views_are_those_of_parameters_and_metrics() -> None:
    views = recorded_params()["overlap"]["views"]
    measured = {view: recorded(f"metrics/overlap/10000-{view}.json") for view in VIEWS}
    groups = {"one per frame": None, "one per kept frame": None}
    for view, row in table_rows("docs/design/views.md", "view | `s_img` (fraction of frames kept)").items():
        n_groups = groups[row[2]] if row[2] in groups else int(row[2])
        assert views[view] == {"s_img": float(row[1]), "n_groups": n_groups, "gridsize": int(row[3])}
    for view, row in table_rows("docs/study.md", "view | frames kept").items():
        part, overlap_ = views[view]["s_img"], measured[view]["test"]["metric_2_image_based_avg"]
        assert row[1:] == [
            "all" if part == 1 else f"{100 * part:g} %",
            str(views[view]["gridsize"]),
            f"{overlap_:.2f}",
        ]
    rows = table_rows("docs/design/views.md", "view | half | frames")
    assert list(rows) == [f"{view} {half}" for view in VIEWS for half in ("train", "test")]
    for name, row in rows.items():
        view, half = name.split()
        found = measured[view][half]
        fluence = found["fluence"]
        overlaps = [
            found[f"metric_{key}_avg"] for key in ("1_group_based", "2_image_based", "3_group_to_group")
        ]
        assert row[2:] == [
            str(found["n_images_subsampled"]),
            *("" if value is None else f"{value:.3f}" for value in overlaps),
            f"{fluence['photons_per_pixel_mean']:.3g}",
            f"{fluence['photons_per_pixel_max']:.3g}",
            f"{fluence['covered_fraction']:.2f}",
            f"{found['geometry_acceptance_bound']:.3f}",
            str(found["n_frames_in_no_group"]),
        ]
    printed = re.findall(r"^([\d.]+) (\d+) (0\.\d+)$", document("docs/design/views.md"), re.MULTILINE)
    total = measured["baseline"]["train"]["n_images_total"]
    assert [int(frames) for _, frames, _ in printed] == [int(float(part) * total) for part, _, _ in printed]
    same = {
        str(views[view]["s_img"]): f"{measured[view]['train']['metric_2_image_based_avg']:.3f}"
        for view in VIEWS
    }
    assert {part: value for part, _, value in printed if part in same}.items() <= same.items()
