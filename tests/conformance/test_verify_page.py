"""The page of a validation in a browser: it draws without errors, sorts, answers to keys, and fits narrow and wide."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.verify.reports.page import render
from tests.conformance import verify_reports

selenium = pytest.importorskip("selenium", reason="selenium is not installed: the page is not tested in a browser")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

_CHROMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_REPORTS = {
    "passing": verify_reports.passing,
    "failing": verify_reports.failing,
    "empty": verify_reports.empty,
    "hostile": verify_reports.hostile,
    "many": lambda: verify_reports.many(3000),
}
Driver = Any  # selenium's own types need selenium
Open = Callable[..., Driver]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    browser = next(filter(None, map(shutil.which, _CHROMES)), None)
    control = shutil.which("chromedriver")
    if browser is None or control is None:
        pytest.skip("no chromium with chromedriver on the PATH: the page is not tested in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
        f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(control))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    found = {name: folder / f"{name}.html" for name in _REPORTS}
    for name, path in found.items():
        path.write_bytes(render(_REPORTS[name]()).encode(errors="backslashreplace"))
    return found


@pytest.fixture
def open_page(driver: Driver, pages: dict[str, Path]) -> Open:
    def opened(name: str, width: int = 1300, scheme: str = "light") -> Driver:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        driver.get_log("browser")
        driver.get(pages[name].as_uri())
        return driver

    return opened


def column(driver: Driver, table: str, title: str) -> list[str]:
    """The texts of a column, from the top."""
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
    return driver.find_element(By.XPATH, f"//table[@aria-label='{table}']//th[button[text()='{title}']]")


def figure(text: str) -> float:
    return -1.0 if text == "\N{EN DASH}" else float(text.replace(",", ""))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1300])
@pytest.mark.parametrize("name", _REPORTS)
def test_the_page_draws_without_errors_and_fits(open_page: Open, name: str, width: int, scheme: str) -> None:
    driver = open_page(name, width, scheme)
    assert driver.find_elements(By.TAG_NAME, "h1"), "it drew itself"
    if name != "empty":
        for tab in driver.find_elements(By.CSS_SELECTOR, "[role=tab]"):
            tab.click()
            overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert driver.execute_script(overflow) == 0
    assert driver.get_log("browser") == []
    dark = driver.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(17, 21, 28)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("title", ["#", "bytes", "MACs", "cycles", "cycles a MAC", "mismatches", "SQNR, dB"])
def test_a_click_sorts_and_another_turns_round(open_page: Open, title: str) -> None:
    driver = open_page("failing")
    shown = [figure(text) for text in column(driver, "Layers", title)]
    if title == "#":
        assert shown == sorted(shown)
        head(driver, "Layers", title).find_element(By.TAG_NAME, "button").click()
        assert column(driver, "Layers", title) == [str(n) for n in range(41, -1, -1)]
        return
    head(driver, "Layers", title).find_element(By.TAG_NAME, "button").click()
    assert head(driver, "Layers", title).get_attribute("aria-sort") == "descending"
    assert len(driver.find_elements(By.CSS_SELECTOR, "table[aria-label=Layers] th[aria-sort]")) == 1
    first = [figure(text) for text in column(driver, "Layers", title)]
    assert first == sorted(shown, reverse=True)
    head(driver, "Layers", title).find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert head(driver, "Layers", title).get_attribute("aria-sort") == "ascending"
    second = [figure(text) for text in column(driver, "Layers", title)]
    if title == "cycles a MAC":  # what has none comes last either way
        known = [value for value in second if value >= 0]
        assert known == sorted(known) and all(value < 0 for value in second[len(known) :])
    else:
        assert second == sorted(shown)


def test_what_failed_comes_first(open_page: Open) -> None:
    driver = open_page("failing")
    outcomes = column(driver, "Checks", "outcome")
    assert [text.split(" ", 1)[1] for text in outcomes] == ["failed"] * 3 + ["not run"] + ["passed"] * 26
    verdict = driver.find_element(By.CSS_SELECTOR, ".verdict").text
    assert "Do not flash: 3 of 30 checks failed" in verdict and "image is 18,304 bytes too large" in verdict
    assert "Safe to flash" in open_page("passing").find_element(By.CSS_SELECTOR, ".verdict").text


def test_the_first_divergence_is_told_in_full(open_page: Open) -> None:
    text = open_page("failing").find_element(By.CSS_SELECTOR, ".divergence").text
    for expected in ("linear_3", "[0, 5, 17]", "-12", "-11", "-48,211", "product -12125", "reproducer_stm32f746.c"):
        assert expected in text


def test_regions_are_drawn_to_scale(open_page: Open) -> None:
    driver = open_page("failing")
    region = verify_reports.failing().builds[0].memory[0]
    drawing, *parts = (
        driver.execute_script("return arguments[0].getBoundingClientRect().width", element)
        for element in driver.find_elements(By.CSS_SELECTOR, ".region:first-child svg, .region:first-child rect")
    )
    assert len(parts) == len(region.parts)
    for width, part in zip(parts, region.parts, strict=True):
        assert width / drawing == pytest.approx(part.bytes / region.size, abs=0.002)
    driver.find_elements(By.CSS_SELECTOR, "[role=tab]")[1].click()
    over = driver.find_element(By.CSS_SELECTOR, ".region").text
    assert "18,304 too many" in over and driver.find_elements(By.CSS_SELECTOR, ".region .limit")


def test_images_are_chosen_by_keys(open_page: Open) -> None:
    driver = open_page("failing")
    tabs = driver.find_elements(By.CSS_SELECTOR, "[role=tab]")
    assert [tab.get_attribute("aria-selected") for tab in tabs] == ["true", "false", "false", "false"]
    tabs[0].send_keys(Keys.ARROW_RIGHT)
    assert tabs[1].get_attribute("aria-selected") == "true"
    assert driver.switch_to.active_element == tabs[1]
    assert "rp2040" in driver.find_element(By.CSS_SELECTOR, "#build").text
    tabs[1].send_keys(Keys.ARROW_LEFT)
    assert tabs[0].get_attribute("aria-selected") == "true"


def test_layers_of_a_large_program_are_drawn_on_request(open_page: Open) -> None:
    driver = open_page("many")
    assert len(column(driver, "Layers", "#")) == 500
    more = driver.find_element(By.XPATH, "//button[text()='Show all 3,000 rows']")
    driver.execute_script("arguments[0].click()", more)
    assert column(driver, "Layers", "#") == [str(n) for n in range(3000)]
    assert not more.is_displayed()


def test_names_and_pictures_cannot_run_code(open_page: Open) -> None:
    driver = open_page("hostile")
    name = "return document.querySelector('h1').textContent.startsWith(arguments[0])"
    assert driver.execute_script(name, verify_reports.EVIL.split("\x00", maxsplit=1)[0])
    assert len(driver.find_elements(By.TAG_NAME, "script")) == 2
    drawn = driver.execute_script(
        "return [...document.querySelector('.arena').shadowRoot.querySelectorAll('*')].map("
        "e => [e.tagName, ...[...e.attributes].map(a => a.name)])"
    )
    assert drawn == [["svg", "viewBox"], ["rect", "width", "height"], ["STYLE"]], "its own style alone is added"


def test_every_picture_and_table_has_a_name_and_every_heading_its_level(open_page: Open) -> None:
    driver = open_page("failing")
    unnamed = driver.execute_script(
        """return [...document.querySelectorAll("svg, table, [role=region], [role=img], [role=tablist]")]
        .filter(e => !e.getAttribute("aria-label")).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    levels = driver.execute_script("return [...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
