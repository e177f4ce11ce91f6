"""Chromium, and MLflow's pages as a person sees them: what they read, press and look at."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE_S = 60  # for a page on a busy machine
WIDTH, HEIGHT = 1280, 900
COLOURS = 256  # of a picture that is kept

# What MLflow's plots hold: of lines by the name of their chart, of parallel coordinates by axis.
LINES = """
return Object.fromEntries([...document.querySelectorAll('.js-plotly-plot')]
  .filter(plot => plot.data?.[0]?.type === 'scatter')
  .map(plot => [plot.data[0].metricKey,
                {x: [...plot.data[0].x], y: [...plot.data[0].y],
                 drawn: Boolean(plot.querySelector('path.js-line[d]'))}]));
"""
AXES = """
const plot = [...document.querySelectorAll('.js-plotly-plot')]
  .find(plot => plot.data?.[0]?.type === 'parcoords');
return plot ? Object.fromEntries(plot.data[0].dimensions.map(d => [d.label, [...d.values]])) : null;
"""
AXIS_LABELS = """
return [...document.querySelectorAll('.parcoords .dimension')].map(d => d.textContent);
"""
# Whether each picture of a page that is there as a whole is drawn; none before that.
DRAWN = """
return document.readyState === 'complete'
  ? [...document.images].map(i => i.complete && i.naturalWidth > 0) : [];
"""
# MLflow opens its assistant once, beside the first page that it shows; a person closes it.
NO_ASSISTANT = """
if (location.protocol === 'http:')
  localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
"""


class Browser:
    """One window of Chromium."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, link: str) -> None:
        """Load a page anew, also where only what is behind its `#` is different."""
        self.driver.get("about:blank")
        self.driver.get(link)

    def forget(self, origin: str) -> None:
        """Have a browser that has never seen this server."""
        self.driver.get("about:blank")
        everything = {"origin": origin, "storageTypes": "all"}
        self.driver.execute_cdp_cmd("Storage.clearDataForOrigin", everything)

    def see(self, *texts: str) -> str:
        """Wait until a page says all of these; return all that it says."""
        return self.wait(
            lambda: text if all(t in (text := self.text) for t in texts) else None,
            lambda: f"{texts} in {self.text!r}",
        )

    @property
    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    def find(self, path: str, text: str | None = None, by: str = By.CSS_SELECTOR) -> WebElement:
        """Wait for a visible element that says this and no more, or anything."""

        def look() -> WebElement | None:
            found = self.driver.find_elements(by, path)
            return next(
                (e for e in found if e.is_displayed() and text in (None, e.text.strip())), None
            )

        return self.wait(look, lambda: f"{path} that says {text!r}")

    def press(self, path: str, text: str | None = None, by: str = By.CSS_SELECTOR) -> None:
        """Press an element as soon as it is there with nothing before it."""
        not_yet = ElementClickInterceptedException, ElementNotInteractableException

        def press() -> bool:
            with contextlib.suppress(*not_yet):
                self.find(path, text, by).click()
                return True
            return False

        self.wait(press, lambda: f"{path} that can be pressed")

    def run(self, script: str) -> Any:
        """Return what a script says about the page."""
        return self.driver.execute_script(script)

    def wait(self, look: Callable[[], Any], what: Callable[[], str] = lambda: "") -> Any:
        """Wait until something is seen, and return it."""
        ignored = (StaleElementReferenceException, NoSuchElementException)
        waiting = WebDriverWait(self.driver, PATIENCE_S, 0.1, ignored_exceptions=ignored)
        try:
            return waiting.until(lambda _: look())
        except Exception as error:
            raise AssertionError(f"not seen: {what()}") from error

    @contextlib.contextmanager
    def inside(self, css: str) -> Iterator[None]:
        """Look into a frame."""
        self.driver.switch_to.frame(self.find(css))
        try:
            yield
        finally:
            self.driver.switch_to.default_content()

    def picture(self, name: str) -> None:
        """Keep a picture for the documentation, where that is asked for."""
        if folder := os.environ.get("TUNER_PICTURES"):
            from PIL import Image

            image = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
            few = image.quantize(COLOURS, dither=Image.Dither.NONE)
            few.save(Path(folder) / f"{name}.png", optimize=True)

    def keep(self, path: Path) -> str:
        """Keep what is shown, for a person who asks why a test failed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(path.with_suffix(".png"))
        said = "\n".join(str(line) for line in self.driver.get_log("browser"))
        return f"{path.with_suffix('.png')}\n{self.driver.current_url}\n{said}\n{self.text}"


@contextlib.contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Start Chromium with a profile of its own and without a window."""
    options = ChromeOptions()
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium
    assert chromedriver
    options.binary_location = chromium
    # A mouse that can hover: without one, plots show their buttons all the time.
    mouse = "primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--no-proxy-server",
        "--hide-scrollbars",
        f"--blink-settings={mouse}",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    driver = Chrome(options=options, service=Service(chromedriver))
    try:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NO_ASSISTANT})
        yield Browser(driver)
    finally:
        driver.quit()
