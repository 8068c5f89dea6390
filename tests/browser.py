"""A browser for the tests of pages, where one is installed."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Driver = Any  # selenium's types need selenium, which may not be here

_CHROMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def browser(folder: Path) -> Iterator[Driver]:
    """Chromium without a window; the test is skipped where it, chromedriver or selenium is missing.

    Args:
        folder: empty, for its profile.
    """
    chrome = next(filter(None, map(shutil.which, _CHROMES)), None)
    control = shutil.which("chromedriver")
    missing = [
        name
        for name, found in (
            ("selenium", importlib.util.find_spec("selenium")),
            ("chromium", chrome),
            ("chromedriver", control),
        )
        if not found
    ]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: the page is not tested in a browser")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chrome or ""
    for argument in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
        f"--user-data-dir={folder}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(control))
    try:
        yield driver
    finally:
        driver.quit()


def view(driver: Driver, page: Path, width: int = 1300, scheme: str = "light") -> None:
    """Open a page in a window so wide, light or dark."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    driver.get_log("browser")
    driver.get(page.as_uri())


def check_drawn(driver: Driver, scheme: str) -> None:
    """The page drew itself without a word on the console, in the right colours, and is no wider than the window."""
    assert driver.execute_script("return document.querySelectorAll('h1').length") == 1
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert driver.execute_script(overflow) == 0
    assert driver.get_log("browser") == []
    colour = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert colour == ("rgb(17, 21, 28)" if scheme == "dark" else "rgb(246, 247, 249)")


def column(driver: Driver, table: str, title: str) -> list[str]:
    """The texts of a column of a table, from the top."""
    return list(
        driver.execute_script(
            """const table = document.querySelector(`table[aria-label="${arguments[0]}"]`);
            const index = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === arguments[1]);
            return [...table.tBodies[0].rows].map(row => row.cells[index].textContent);""",
            table,
            title,
        )
    )


def head(driver: Driver, table: str, title: str) -> Any:
    """The heading of a column."""
    return driver.find_element("xpath", f"//table[@aria-label='{table}']//th[button[text()='{title}']]")
