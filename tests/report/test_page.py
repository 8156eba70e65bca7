"""The page: complete in itself, escaped, honest about what is not there."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fly64_dose_overlap.report.figures import response_charts
from fly64_dose_overlap.report.findings import by_interest, conventions, headline
from fly64_dose_overlap.report.page import divide, markdown_text, page, write_page
from fly64_dose_overlap.report.study import Study
from report_runs import COMMIT, METHODS, evaluation, full_study, new_run, pictured_run, small_study, study_of


class _Balance(HTMLParser):
    """Collect the tags that are opened and not closed in order."""

    VOID = frozenset({"meta", "link", "img", "br", "input"})

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
    return study_of(new_run(1000, "baseline"), new_run(1000, "dense", state="failed"))


@pytest.fixture(scope="module")
def whole() -> str:
    return page([full_study()], {"network": 2.0})


def test_page_is_well_formed_and_asks_for_nothing_else(whole: str) -> None:
    parser = _Balance()
    parser.feed(whole)
    assert (parser.open, parser.wrong) == ([], [])
    assert parser.sources
    assert all(source.startswith(("data:", "#")) for source in parser.sources)
    assert not re.search(r"<script [^>]*src|@import|url\((?!#)", whole)


def test_links_within_the_page_have_their_target_and_no_name_comes_twice(whole: str) -> None:
    targets = re.findall(r'href="#([^"]+)"', whole)
    names = re.findall(r' id="([^"]+)"', whole)
    assert targets
    assert {*targets} <= {*names}
    assert len(names) == len({*names})


def test_names_are_escaped() -> None:
    name = "<script>alert(1)</script> & 'co'"
    runs = [new_run(dose, "dense", methods={**METHODS, name: METHODS["network"]}) for dose in (1000, 10000)]
    html = page([study_of(*runs)], {})
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#39;co&#39;" in html


def test_page_opens_with_one_sentence_then_pictures_then_curves(tmp_path: Path) -> None:
    study = study_of(pictured_run(tmp_path), new_run(10000, "dense"))
    html = page([study], {})
    sentence = "Network leads in phase PSNR in all 2 cells of dose and overlap: 1.00 dB above the best"
    places = [html.index(text) for text in (sentence, 'class="stage"', "against dose", "<table>")]
    assert places == sorted(places)


def test_incomplete_matrix_is_said_once_and_not_shown_as_empty_columns(incomplete: Study) -> None:
    html, text = page([incomplete], {}), markdown_text([incomplete], {})
    for content in (html, text):
        assert "incomplete: 1 of 9 cells; failed: 1000-dense; missing: 1000-sparse, 10000-baseline" in content
    assert "<td" in html
    assert 'class="absent">missing' not in html


def test_trials_are_rows_of_one_table() -> None:
    trials = [
        study_of(new_run(1000, "dense", state="failed"), variant="ab12cd", changes=("train.epochs: 5 → 9",)),
        study_of(new_run(1000, "sparse"), variant="ef34ab"),
    ]
    studies = [small_study(1000), *trials]
    assert divide(studies) == ([studies[0]], trials)
    html = page(studies, {})
    section = html[html.index('<section id="trials">') :]
    assert section.count('<tr><th scope="row">') == 2
    assert "train.epochs: 5 → 9" in section
    assert "## Trials" in markdown_text(studies, {})


def test_runs_with_errors_of_the_instrument_are_drawn_with_and_without_refinement() -> None:
    def run(error: float, probe: bool) -> Study:
        there = new_run(1000, "dense")
        told = {"calibration": {"defocus_error_um": error}, "refine": {"probe": probe}}
        changed = ("calibration.defocus_error_um: 0.0 → 273.0",) if error else ()
        return study_of(
            replace(there, params=there.params | told), variant=f"{error}{probe}", changes=changed
        )

    html = page([small_study(1000), run(273.0, False), run(273.0, True)], {})
    section = html[html.index('<section id="trials">') :]
    assert "Robustness against errors of the instrument" in section
    assert "defocus error (um)" in section
    assert "Robustness" not in page([small_study(1000), run(0.0, True)], {})


def test_trials_alone_have_a_report_too() -> None:
    nothing = study_of(new_run(1000, "dense", state="failed"))
    trial = study_of(new_run(1000, "sparse"), variant="ef34ab")
    assert divide([nothing, trial]) == ([trial], [nothing])
    assert "Network leads at 1,000 photons per frame, sparse" in page([nothing, trial], {})


def test_data_are_those_of_the_results_and_come_from_a_remote_that_has_them(whole: str) -> None:
    place = whole.index("What these results depend on, with its hash in dvc.lock (MD5).")
    assert "restores the files from a remote that has them" in whole[place:]
    assert "7c40  data/base/base.npz" in whole[place:]
    assert f"The experiments start from commit <code>{COMMIT}</code>" in whole


def test_results_that_are_not_committed_come_first_and_are_marked() -> None:
    own = study_of(new_run(10000, "dense"), committed=False)
    own = replace(own, title="working tree, not committed")
    html = page([own, small_study()], {})
    assert html.index('<section id="s1">') < html.index("your own cell: 10,000 photons per frame, dense")
    assert html.index("your own cell") < html.index('<section id="s2">')
    assert "leads in phase PSNR in all 2 cells" in html[: html.index("<nav")], (
        "the sentence is about the larger study"
    )


def test_conventions_stand_with_the_numbers() -> None:
    text = conventions(full_study().conventions)
    assert "Test half only" in text
    assert "1,200 pixels lit by more than 0.1" in text
    assert "amplitude 0.250, phase 1.000 rad" in text
    assert "sub-pixel shift, complex factor, linear phase ramp" in text


def test_conventions_that_differ_are_given_as_a_range() -> None:
    other = new_run(1000, "sparse")
    other.evaluation["conventions"]["peak"]["phase"] = 0.9
    assert "phase 0.900 to 1.000 rad" in conventions(study_of(new_run(1000, "dense"), other).conventions)


def test_headline_says_who_leads_by_how_much_and_how_far_from_the_limit() -> None:
    assert headline(full_study()) == (
        "Network leads in phase PSNR in all 9 cells of dose and overlap: 1.00 dB above the best iterative "
        "method (LSQML) and 4.00 dB below the physical limit."
    )
    assert headline(study_of(new_run(1000, "dense"))) == (
        "Network leads at 1,000 photons per frame, dense, with a phase PSNR of 24.00 dB: "
        "1.00 dB above the best iterative method (LSQML) and 4.00 dB below the physical limit."
    )


def test_headline_says_who_has_the_smaller_complex_error() -> None:
    smaller = {**METHODS, "rPIE": ("iterative", 21.0, 0.02)}
    other = {**METHODS, "MAP": ("iterative", 22.0, 0.03)}
    assert headline(study_of(new_run(1000, "dense", methods=smaller))).endswith(
        "below the physical limit. rPIE has the smaller complex NRMSE in that cell."
    )
    runs = [new_run(1000, view, methods=smaller) for view in ("dense", "sparse")]
    runs += [new_run(10000, "dense", methods=other), new_run(10000, "sparse")]
    assert headline(study_of(*runs)).endswith(
        ". rPIE has the smaller complex NRMSE in 2 of those 4 cells, MAP in 1."
    )


def test_headline_compares_with_the_bayesian_limit_where_the_unbiased_one_does_not_apply() -> None:
    runs = [new_run(1000, "dense"), new_run(10000, "dense")]
    for run, limit in zip(runs, (20.0, 28.0), strict=True):
        bayesian = {"phase_psnr_db": limit + 5, "amplitude_psnr_db": 9.0, "nrmse": 0.1}
        run.evaluation["limit"] = {**evaluation()["limit"], "phase_psnr_db": limit, "bayesian": bayesian}
    text = headline(study_of(*runs))
    assert text.endswith("and 9.00 to 1.00 dB below the Bayesian limit (limit with prior).") or text.endswith(
        "and 1.00 to 9.00 dB below the Bayesian limit (limit with prior)."
    )
    html = page([study_of(runs[0])], {})
    assert "A method above it brings prior knowledge" in html
    assert "Above 1 a prior replaces photons" in html


def test_headline_names_what_the_leader_is_compared_with() -> None:
    strong = {**METHODS, "MAP": ("iterative", 30.0, 0.04)}
    text = headline(study_of(new_run(1000, "dense", methods=strong), new_run(1000, "sparse")))
    assert text.startswith("MAP leads in phase PSNR in 1 of 2 cells") or text.startswith(
        "Network leads in phase PSNR in 1 of 2 cells"
    )
    only = {"LSQML": METHODS["LSQML"], "flat object": METHODS["flat object"]}
    assert headline(study_of(new_run(1000, "dense", methods=only))) == (
        "LSQML leads at 1,000 photons per frame, dense, with a phase PSNR of 23.00 dB: "
        "5.00 dB below the physical limit."
    )


def test_shown_first_are_the_leader_its_rival_and_methods_that_readers_know() -> None:
    methods = {**METHODS, "refined": ("learned", 20.0, 0.1)}
    study = study_of(new_run(1000, "dense", methods=methods))
    assert by_interest(study)[:4] == ["network", "LSQML", "refined", "rPIE"]


def test_pictures_are_part_of_the_page_with_a_scale_bar(tmp_path: Path) -> None:
    html = page([study_of(pictured_run(tmp_path))], {})
    stage = html[html.index('class="stage"') : html.index('class="sides"')]
    shown = re.findall(r'data-quantity="([^"]+)" data-method="([^"]+)"', stage)
    assert shown == [
        ("amplitude", "truth"),
        ("phase", "truth"),
        *((quantity, "network") for quantity in ("amplitude", "phase", "phase error")),
    ]
    assert re.search(r'style="width: 25\.000%">500 nm<', stage)


def test_without_reconstructions_one_line_says_how_to_get_them(capsys: pytest.CaptureFixture[str]) -> None:
    html = page([small_study(1000)], {})
    assert html.count("The reconstructions are not on this machine") == 1
    assert "dvc exp pull" in html
    assert capsys.readouterr().err.count("no reconstructions are here") == 1


def test_files_of_the_report_and_the_same_bytes_again(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_page([small_study()], tmp_path / folder, seconds={})
    names = ["dose_response.svg", "index.html", "table.csv", "table.md"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_versions_of_a_package_are_named(whole: str) -> None:
    assert re.search(r"Python 3\.\d+\.\d+, fly64-dose-overlap \S+, torch 2\.", whole)


def test_a_reference_may_lead_and_a_rival_may_be_absent() -> None:
    flat = {"flat object": ("reference", 30.0, 0.02)}
    study = study_of(new_run(1000, "dense", methods=flat))
    assert headline(study).startswith("Flat object leads at 1,000 photons per frame, dense")
    other = {"rPIE": METHODS["rPIE"]}
    text = headline(study_of(new_run(1000, "dense", methods=flat), new_run(10000, "dense", methods=other)))
    assert "iterative" not in text


def test_scores_without_a_phase_are_told_and_shown(tmp_path: Path) -> None:
    flat = {name: (kind, None, nrmse) for name, (kind, _, nrmse) in METHODS.items()}
    one, two = (new_run(dose, "dense", methods=flat) for dose in (1000, 10000))
    told = "No method has a phase score: the phase of the truth is flat."
    assert headline(study_of(one)) == headline(study_of(one, two)) == told
    write_page([study_of(one)], tmp_path, seconds={})
    for name in ("index.html", "table.md"):
        assert told in (tmp_path / name).read_text(encoding="utf-8")
    assert len(response_charts(study_of(one, two))) == 2
