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
from fly64_dose_overlap.report.metrics import PHASE_PSNR

from fly64_dose_overlap.report.figures import Charts, dose_response
from fly64_dose_overlap.report.page import page, write_report
from report_runs import DOSES, METHODS, VIEWS, full_study
from study_copy import StudyCopy

pytestmark = pytest.mark.slow

TIMEOUT_S = 240
PROBE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll(".scroll")].find(box => box.querySelector("table") &&
    box.scrollWidth > box.clientWidth);
  if (wide) wide.scrollLeft = 100;
  const left = item => item.getBoundingClientRect().left;
  const report = {
    pictures: [...document.images].map(image => image.complete && image.naturalWidth),
    fetched: performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith("data:")),
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - innerWidth,
    sticky: wide ? left(wide.querySelector("tbody th")) - left(wide) : null,
    heads: [...document.querySelector("tbody").querySelectorAll("th")].map(cell => cell.textContent),
    columns: [...document.querySelector("thead").rows[1].cells].slice(1).map(cell => cell.textContent),
    entries: [...document.querySelector("tbody").rows].map(row => row.cells.length - 1),
  };
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


def test_report_of_real_experiments_is_whole(experiments: StudyCopy, tmp_path: Path) -> None:
    write_report(experiments.root, tmp_path)
    found = _browse((tmp_path / "index.html").read_text(encoding="utf-8"), tmp_path, 1280)
    assert found["console"] == []
    assert found["fetched"] == []
    assert len(found["pictures"]) > 10
    assert all(found["pictures"])
    assert found["heads"] == ["limit", "network", "LSQML", "rPIE", "flat object"]
    assert found["columns"] == VIEWS * len(DOSES)
    assert found["entries"] == [9] * (len(METHODS) + 1)
    assert found["overflow"] <= 0


def test_phone_scrolls_tables_and_not_the_page(tmp_path: Path) -> None:
    found = _browse(page([full_study()], {}, {}, {}), tmp_path, 500)
    assert found["width"] <= 500
    assert found["overflow"] <= 0
    assert found["sticky"] == pytest.approx(1, abs=1)


def test_probe_notices_faults(tmp_path: Path) -> None:
    study = full_study()
    chart = dose_response(study, PHASE_PSNR)
    html = page([study], {study: Charts((chart, chart))}, {}, {})
    broken = html.replace("data:image/svg+xml;base64,", "data:image/svg+xml;base64,x", 1)
    broken = broken.replace("</body>", '<script>console.error("fault")</script></body>')
    found = _browse(broken, tmp_path, 1280)
    assert [bool(width) for width in found["pictures"]] == [False, True]
    assert len(found["console"]) == 1
