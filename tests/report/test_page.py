"""The page: complete in itself, escaped, honest about what is not there."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from fly64_dose_overlap.report.figures import draw_charts, embedded
from fly64_dose_overlap.report.images import shown_methods
from fly64_dose_overlap.report.page import conventions, findings, markdown_text, page
from fly64_dose_overlap.report.study import Study, make_study
from report_runs import BASELINE, COMMIT, DOSES, METHODS, VIEWS, full_study, new_run


class _Balance(HTMLParser):
    """Collect the tags that are opened and not closed in order."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def incomplete() -> Study:
    runs = [new_run(1000, "baseline"), new_run(1000, "dense", state="failed")]
    return make_study(COMMIT, "", runs, baseline=BASELINE)


@pytest.fixture(scope="module")
def whole() -> str:
    study = full_study()
    return page([study], {study: draw_charts(study)}, {}, {"network": 2.0})


def test_page_is_well_formed_and_asks_for_nothing_else(whole: str) -> None:
    parser = _Balance()
    parser.feed(whole)
    assert (parser.open, parser.wrong) == ([], [])
    assert parser.sources
    assert all(source.startswith(("data:", "#")) for source in parser.sources)
    assert not re.search(r"<script|@import|url\(", whole)


def test_links_within_the_page_have_their_target(whole: str) -> None:
    targets = re.findall(r'href="#([^"]+)"', whole)
    assert targets
    assert set(targets) <= set(re.findall(r'id="([^"]+)"', whole))


def test_every_cell_has_its_section(whole: str) -> None:
    sections = re.findall(r'<h2 id="s1-(\d+-[a-z]+)">', whole)
    assert sections == [f"{dose}-{view}" for dose in DOSES for view in VIEWS]


def test_names_are_escaped() -> None:
    name = "<script>alert(1)</script> & 'co'"
    study = make_study(
        COMMIT, "", [new_run(1000, "dense", methods={**METHODS, name: METHODS["rPIE"]})], baseline=BASELINE
    )
    html = page([study], {}, {}, {})
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#39;co&#39;" in html


def test_incomplete_matrix_and_failed_jobs_are_said(incomplete: Study) -> None:
    html, text = page([incomplete], {}, {}, {}), markdown_text([incomplete], {})
    for content in (html, text):
        assert "incomplete: 1 of 9 cells; failed: 1000-dense; missing: 1000-sparse, 10000-baseline" in content
    assert '<span class="status incomplete">failed</span>' in html
    assert html.count('<span class="status incomplete">missing</span>') == 7


def test_variant_without_any_result_is_shown_as_such() -> None:
    failed = make_study(
        COMMIT, "ab12cd", [new_run(1000, "dense", state="failed", epochs=9)], baseline=BASELINE
    )
    html = page([full_study(), failed], {}, {}, {})
    assert html.index("complete: 9 of 9 cells") < html.index("incomplete: 0 of 9 cells")
    assert "<code>train.epochs: 5 → 9</code>" in html


def test_conventions_stand_with_the_numbers() -> None:
    text = conventions(full_study())
    assert "Test half only" in text
    assert "1,200 pixels lit by more than 0.1" in text
    assert "amplitude 0.250, phase 1.000 rad" in text
    assert "sub-pixel shift, complex factor, linear phase ramp" in text


def test_conventions_that_differ_are_given_as_a_range() -> None:
    other = new_run(1000, "sparse")
    other.evaluation["conventions"]["peak"]["phase"] = 0.9
    study = make_study(COMMIT, "", [new_run(1000, "dense"), other], baseline=BASELINE)
    assert "phase 0.900 to 1.000 rad" in conventions(study)


def test_findings_count_wins_and_print_signs() -> None:
    assert findings(full_study()) == [
        "Highest phase PSNR, of 9 cells: network in 9.",
        "Network minus the best iterative method of each cell, phase PSNR: "
        "+1.00 to +1.00 dB (positive is better).",
        "Network minus the physical limit for unbiased estimators: -4.00 to -4.00 dB (positive is better).",
    ]


def test_findings_name_the_learned_method_that_is_best() -> None:
    methods = {**METHODS, "refined": ("learned", 25.5, 0.04)}
    study = make_study(COMMIT, "", [new_run(1000, "dense", methods=methods)], baseline=BASELINE)
    assert findings(study)[0] == "Highest phase PSNR, of 1 cells: refined in 1."
    assert "Refined minus the best iterative method of each cell, phase PSNR: +2.50 to +2.50 dB" in " ".join(
        findings(study)
    )
    assert " ".join(findings(study)) in markdown_text([study], {})


def test_reconstructions_shown_are_the_learned_ones_and_the_best_iterative() -> None:
    methods = {**METHODS, "refined": ("learned", 20.0, 0.1)}
    study = make_study(COMMIT, "", [new_run(1000, "dense", methods=methods)], baseline=BASELINE)
    assert shown_methods(study.cells[1000, "dense"]) == ["network", "refined", "LSQML"]


def test_pictures_are_part_of_the_page() -> None:
    study = full_study()
    picture = embedded(b"RIFF", "image/webp", 'a "caption"')
    html = page([study], {}, {study.cells[1000, "dense"]: picture}, {})
    assert html.count('<img src="data:image/webp;base64,UklGRg==" alt="a &#34;caption&#34;">') == 1
    assert html.count("The reconstructions are not here") == 8


def test_versions_of_a_package_are_named(whole: str) -> None:
    assert re.search(r"Python 3\.\d+\.\d+, fly64-dose-overlap \S+, torch 2\.", whole)
