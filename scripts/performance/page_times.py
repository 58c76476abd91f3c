"""How long does a page take in a browser: until its map is drawn, to color it again, and to open a layer?

    python -m scripts.performance.page_budget --keep DIR         # makes the pages of ResNet-50 and DenseNet-201
    python -m scripts.performance.page_times DIR/*.html          # milliseconds, and ratios to LIMITS

Needs chromium and chromedriver. Every time is the median of some runs by the page's own clock; layout shift is the largest
of all runs. A table for people: what a machine needs depends on what else it does, so that no test asserts these times.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

LIMITS = {"drawn": 500.0, "recolored": 50.0, "opened": 150.0, "shift": 0.01}
"""Milliseconds that a reader should wait at most; of layout shift the share of the window, as browsers count it."""

ALONE = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-default-apps"),
)

SHIFTS = """
window.__shift = 0;
new PerformanceObserver((list) => { for (const e of list.getEntries()) if (!e.hadRecentInput) window.__shift += e.value; })
  .observe({ type: "layout-shift", buffered: true });
"""

CHANGED = """
const [kind, done] = [arguments[0], arguments[arguments.length - 1]];
const colors = [...document.querySelectorAll("label")].find((label) => label.textContent.startsWith("Color"));
const field = kind === "recolored" ? colors.querySelector("select") : document.querySelector("select[aria-label=Layer]");
const other = [...field.options].filter((o) => !o.disabled && o.value !== field.value);
field.value = other[Math.floor(other.length / 2)].value;
const stage = document.querySelector(".stage");
const begin = performance.now();
const end = () => requestAnimationFrame(() => setTimeout(() => done(performance.now() - begin)));
if (kind === "recolored") end();
else {
  const shown = new MutationObserver(() => { shown.disconnect(); end(); });
  shown.observe(stage, { attributes: true, attributeFilter: ["data-shown"] });
}
field.dispatchEvent(new Event("change", { bubbles: true }));
"""
"""Chooses another measure or layer, and waits until what follows is painted."""


def times(page: Path, runs: int) -> dict[str, float]:
    """Medians in milliseconds, and the largest layout shift, of `runs` openings of the page."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in (*ALONE, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.binary_location = str(shutil.which("chromium"))
        driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
        try:
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SHIFTS})
            found = [_run(driver, page) for _ in range(runs)]
        finally:
            driver.quit()
    medians = {name: statistics.median(run[name] for run in found) for name in LIMITS}
    return {**medians, "shift": max(run["shift"] for run in found)}


def _run(driver: Any, page: Path) -> dict[str, float]:
    """One opening: the page's own clock for the drawing, then another color, then another layer."""
    driver.get("about:blank")
    driver.get(page.resolve().as_uri())
    end = time.monotonic() + 60
    while not driver.execute_script(
        "return document.querySelector('[data-ready=true] .stage')?.dataset.shown"
    ):
        if time.monotonic() > end:
            raise TimeoutError(f"{page} was not drawn within a minute.")
        time.sleep(0.05)
    drawn = float(driver.execute_script("return document.querySelector('[data-ready]').dataset.after"))
    changed = {kind: float(driver.execute_async_script(CHANGED, kind)) for kind in ("recolored", "opened")}
    return {"drawn": drawn, **changed, "shift": float(driver.execute_script("return window.__shift"))}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    parser.add_argument("--runs", type=int, default=5, help="openings of each page")
    parser.add_argument("--json", action="store_true", help="numbers for a machine")
    options = parser.parse_args()
    for page in options.pages:
        found = times(page, options.runs)
        if options.json:
            print(json.dumps({"page": page.name, "bytes": page.stat().st_size, **found}))
            continue
        words = "  ".join(
            f"{name} {value:.3f} ({value / LIMITS[name]:.2f})"
            if name == "shift"
            else f"{name} {value:.0f} ms ({value / LIMITS[name]:.2f})"
            for name, value in found.items()
        )
        print(f"{page.name:<22} {page.stat().st_size / 1e6:5.2f} MB  {words}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
