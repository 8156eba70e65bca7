"""The page in a real browser: pictures load, nothing is fetched, the layout holds on a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from fly64_dose_overlap.report.page import page
from report_runs import METHODS, full_study, new_run, pictured_run, study_of

pytestmark = pytest.mark.slow

TIMEOUT_S = 240
PROBE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll(".scroll")].find(box => box.scrollWidth > box.clientWidth);
  if (wide) wide.scrollLeft = 100;
  const left = item => item.getBoundingClientRect().left;
  const shown = (root, what) => [...root.querySelectorAll(what)].filter(item => item.checkVisibility());
  const report = {
    loaded: performance.timing.loadEventStart - performance.timing.navigationStart,
    pictures: [...document.images].map(image => image.complete && image.naturalWidth),
    fetched: performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith("data:")),
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - innerWidth,
    sticky: wide ? left(wide.querySelector("tbody th")) - left(wide) : null,
    open: shown(document, "table").length,
    on: [...document.querySelectorAll(".lines :checked")].map(box => box.parentElement.textContent),
  };
  const chart = document.querySelector(".panels svg");
  if (chart) {
    const lines = () => [...chart.querySelectorAll("[class^=line-]")];
    const drawn = line => getComputedStyle(line).display !== "none";
    const count = () => new Set(lines().filter(drawn).map(line => line.classList[0])).size;
    report.lines = [count()];
    const boxes = [...document.querySelectorAll(".lines input")];
    boxes.find(box => !box.checked)?.click();
    report.lines.push(count());
    boxes.forEach(box => box.checked && box.click());
    report.lines.push(count());
  }
  const stage = document.querySelector(".stage");
  if (stage) {
    const seen = () => shown(stage, "img").map(({dataset}) => `${dataset.method} ${dataset.quantity}`);
    report.seen = [seen()];
    document.querySelector("[value='phase error']").click();
    const choice = document.querySelector("[name=left]");
    choice.value = "truth";
    choice.dispatchEvent(new Event("change", {bubbles: true}));
    document.querySelector("[value=amplitude]").click();
    report.seen.push(seen());
    report.caption = document.querySelector("[data-side=left]").textContent;
    const slider = stage.querySelector("[type=range]");
    slider.value = 25;
    slider.dispatchEvent(new Event("input"));
    report.cut = getComputedStyle(stage.querySelector(".right")).clipPath;
    slider.focus();
    report.keyboard = document.activeElement === slider && slider.tabIndex === 0;
  }
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(report);
  document.body.append(out);
});</script>"""


def _browse(html: str, folder: Path, width: int) -> dict[str, Any]:
    """Load a page with the probe; return what it reports, the console's messages too."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser, "this test needs Chromium; on Debian: apt-get install chromium"
    path = folder / "probed.html"
    path.write_text(html.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    line = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"),
        *(f"--window-size={width},900", path.as_uri()),
    ]
    found = subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    probe = re.search(r'<pre id="probe">(.*?)</pre>', found.stdout, flags=re.DOTALL)
    assert probe, found.stderr[-2000:]
    console = [text for text in found.stderr.splitlines() if "CONSOLE" in text]
    return {**json.loads(unescape(probe[1])), "console": console}


def test_report_of_a_whole_study_works_and_asks_for_nothing(tmp_path: Path) -> None:
    study = study_of(pictured_run(tmp_path), *full_study((1000, "dense")).runs)
    found = _browse(page([study], {}), tmp_path, 1280)
    assert found["console"] == []
    assert found["fetched"] == []
    assert found["pictures"]
    assert all(found["pictures"])
    assert found["overflow"] <= 0
    assert found["open"] == 1, "all tables but the first are folded"
    assert found["on"] == ["limit", "network", "LSQML", "rPIE", "flat object"]
    assert found["lines"] == [5, 5, 0]
    assert sorted(found["seen"][0]) == ["network phase", "truth phase"]
    assert sorted(found["seen"][1]) == ["network amplitude", "truth amplitude"]
    assert found["caption"] == "truthwhat was simulated"
    assert "25%" in found["cut"]
    assert found["keyboard"]


def test_further_lines_are_switched_on_by_the_reader(tmp_path: Path) -> None:
    many = {**METHODS, **{f"m{number}": ("iterative", 10.0 + number, 0.1) for number in range(12)}}
    runs = [new_run(dose, "dense", methods=many) for dose in (1000, 10000)]
    found = _browse(page([study_of(*runs)], {}), tmp_path, 1280)
    assert found["console"] == []
    assert len(found["on"]) == 6
    assert found["lines"] == [6, 7, 0]


def test_phone_scrolls_tables_and_not_the_page(tmp_path: Path) -> None:
    study = study_of(pictured_run(tmp_path), *full_study((1000, "dense")).runs)
    found = _browse(page([study], {}), tmp_path, 400)
    assert found["width"] <= 500
    assert found["overflow"] <= 0
    assert found["sticky"] == pytest.approx(1, abs=1)


def test_probe_notices_faults(tmp_path: Path) -> None:
    html = page([study_of(pictured_run(tmp_path))], {})
    broken = html.replace("data:image/png;base64,", "data:image/png;base64,x", 1)
    broken = broken.replace("</body>", '<script>console.error("fault")</script></body>')
    found = _browse(broken, tmp_path, 1280)
    assert [bool(width) for width in found["pictures"]].count(False) == 1
    assert len(found["console"]) == 1
