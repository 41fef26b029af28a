"""The report page in a real browser, at desktop and phone width: every table is there, nothing overflows, nothing is loaded or fails."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from lpm_integrations.bench.report import page, read_result

_BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
_RESULTS = sorted((Path(__file__).parents[1] / "results").glob("*.json"))

pytestmark = pytest.mark.skipif(_BROWSER is None, reason="no Chromium on this machine: install the package chromium to look at the page in a browser")

_MEASURE = """
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const inside = frame.contentDocument, root = inside.documentElement;
  const wide = [...inside.querySelectorAll("body *")].filter(each =>
    !each.closest(".wide, svg") && each.getBoundingClientRect().right > root.clientWidth + 1);
  document.querySelector("pre").textContent = JSON.stringify({
    width: root.clientWidth, scroll: root.scrollWidth, overflowing: wide.map(each => each.tagName + "." + each.className).slice(0, 5),
    tables: inside.querySelectorAll("table").length, empty: [...inside.querySelectorAll("table")].filter(each => each.rows.length < 2).length,
    plots: [...inside.querySelectorAll("svg")].filter(each => each.getBoundingClientRect().height > 40).length,
    scripts: inside.scripts.length, loaded: frame.contentWindow.performance.getEntriesByType("resource").length});
});
frame.srcdoc = document.querySelector("textarea").value;
"""


def _documents() -> list[dict[str, Any]]:
    """The committed results that a report takes."""
    texts = {path: json.loads(path.read_text("utf-8")) for path in _RESULTS}
    return [
        read_result(path, any_kind=True) for path, found in texts.items() if isinstance(found.get("arms"), dict) or found.get("benchmark") in ("mem0", "cost")
    ]


def _measured(html: str, width: int, folder: Path) -> dict[str, Any]:
    """What a browser makes of the page in a viewport of this width: headless windows are no narrower than 500 px, a frame is."""
    assert _BROWSER is not None
    wrapper = folder / f"{width}.html"
    frame = f'<iframe style="border:0;width:{width}px;height:900px"></iframe>'
    wrapper.write_text(f"<!doctype html><meta charset=utf-8><pre></pre>{frame}<textarea hidden>{escape(html)}</textarea><script>{_MEASURE}</script>", "utf-8")
    command = [_BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}"]
    command += ["--window-size=1400,1000", "--timeout=20000", "--virtual-time-budget=5000", "--dump-dom", wrapper.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"<pre>(\{.*?\})</pre>", shown, re.DOTALL)
    assert found, shown[:400]
    return dict(json.loads(unescape(found[1])))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_in_a_browser(width: int, tmp_path: Path) -> None:
    html = page(_documents())

    seen = _measured(html, width, tmp_path)

    assert seen["tables"] == html.count("<table") > 3
    assert seen["empty"] == 0
    assert seen["plots"] == html.count("<svg") > 0
    assert seen["overflowing"] == []
    assert seen["scroll"] <= seen["width"] <= width
    assert seen["scripts"] == seen["loaded"] == 0
