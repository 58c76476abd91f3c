"""A browser of the distribution without a screen and without a network, and what tests ask of it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ALONE = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-default-apps"),
    # whatever is asked of a network leads nowhere
    *("--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND"),
)

SHIFTS = """
window.__shifts = [];
new PerformanceObserver((list) => { for (const e of list.getEntries()) window.__shifts.push([e.value, e.hadRecentInput]); })
  .observe({ type: "layout-shift", buffered: true });
"""

READY = """
const root = document.querySelector('[data-ready=true]');
return Boolean(root && root.querySelector('.stage') && root.querySelector('.stage').dataset.shown !== undefined);
"""

PATIENCE = 240
"""Seconds that a script may take: looking for barriers takes a busy machine more than the usual 30."""


def need_browser() -> None:
    """Skip, or fail where a browser is asked for by BNPROBE_BROWSER=required, when there is none."""
    if BROWSER and DRIVER:
        return
    why = "no chromium and chromedriver here: apt-get install chromium chromium-driver"
    if os.environ.get("BNPROBE_BROWSER") == "required":
        pytest.fail(why)
    pytest.skip(why)


class Reader:
    """One who opens pages and looks."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.run = driver.execute_script
        self.command("Page.enable")
        self.command("Page.addScriptToEvaluateOnNewDocument", source=SHIFTS)

    def command(self, name: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)

    def look(self, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """The window's size and the system's style."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, page: Path, address: str = "", wait: bool = True) -> float:
        """Open a page from its file and wait until it can be used; the seconds that took, of the page's own clock."""
        self.driver.get("about:blank")
        self.messages()
        self.requests()
        self.driver.get(page.as_uri() + address)
        if wait:
            self.until(READY, 20)
        after = self.run("return document.querySelector('[data-ready]')?.dataset.after") if wait else None
        return float(after or "nan") / 1000

    def until(self, script: str, seconds: float = 5) -> Any:
        """What the script returns once it is true."""
        end = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < end, f"did not come true in {seconds} s: {script}"
            time.sleep(0.02)
        return found

    def messages(self) -> list[str]:
        """What the console said since last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses asked for since last asked, but for what stands in the page itself."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return [url for url in found if not url.startswith(("about:", "data:"))]

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def words(self, selector: str) -> str:
        """The text of an element as it is shown."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def choose(self, label: str, value: str) -> None:
        """Choose from the list with this label."""
        self.run(
            """
            const label = [...document.querySelectorAll('label')].find((l) => l.textContent.startsWith(arguments[0]));
            const field = label.querySelector('select, input');
            field.value = arguments[1];
            field.dispatchEvent(new Event(field.tagName === 'SELECT' ? 'change' : 'input', { bubbles: true }));
            """,
            label,
            value,
        )

    def point(self, selector: str, x: float, y: float) -> ActionChains:
        """The pointer on a place of an element, from its upper left corner."""
        element = self.one(selector)
        self.run("arguments[0].scrollIntoView({ block: 'center' })", element)
        box = element.size
        return ActionChains(self.driver, duration=50).move_to_element_with_offset(
            element, int(x - box["width"] / 2), int(y - box["height"] / 2)
        )

    def print(self, path: Path) -> Path:
        """The page as it comes out on paper."""
        printed = self.command("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)
        path.write_bytes(base64.b64decode(printed["data"]))
        return path


@contextmanager
def reader(profile: Path) -> Iterator[Reader]:
    """A browser with a fresh profile, ended afterwards."""
    need_browser()
    options = Options()
    options.binary_location = str(BROWSER)
    for argument in (*ALONE, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    driver.set_script_timeout(PATIENCE)
    try:
        yield Reader(driver)
    finally:
        driver.quit()
