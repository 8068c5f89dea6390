"""The page of a validation in a browser: it draws without errors, sorts, answers to keys, and fits narrow and wide."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance.verify.reports.page import render
from tests.browser import Driver, browser, check_drawn, column, head, view
from tests.conformance import verify_reports

_ENTER, _LEFT, _RIGHT = "\ue007", "\ue012", "\ue014"
"""Keys as WebDriver codes them."""

_REPORTS = {
    "passing": verify_reports.passing,
    "failing": verify_reports.failing,
    "empty": verify_reports.empty,
    "hostile": verify_reports.hostile,
    "many": lambda: verify_reports.many(3000),
}
Open = Callable[..., Driver]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


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
        view(driver, pages[name], width, scheme)
        return driver

    return opened


def figure(text: str) -> float:
    return -1.0 if text == "\N{EN DASH}" else float(text.replace(",", ""))


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1300, "light")])
@pytest.mark.parametrize("name", _REPORTS)
def test_the_page_draws_without_errors_and_fits(open_page: Open, name: str, width: int, scheme: str) -> None:
    driver = open_page(name, width, scheme)
    check_drawn(driver, scheme)
    for tab in driver.find_elements("css selector", "[role=tab]"):
        tab.click()
        check_drawn(driver, scheme)


@pytest.mark.parametrize("title", ["#", "bytes", "MACs", "cycles", "cycles a MAC", "mismatches", "SQNR, dB"])
def test_a_click_sorts_and_another_turns_round(open_page: Open, title: str) -> None:
    driver = open_page("failing")
    shown = [figure(text) for text in column(driver, "Layers", title)]
    if title == "#":
        assert shown == sorted(shown)
        head(driver, "Layers", title).find_element("tag name", "button").click()
        assert column(driver, "Layers", title) == [str(n) for n in range(41, -1, -1)]
        return
    head(driver, "Layers", title).find_element("tag name", "button").click()
    assert head(driver, "Layers", title).get_attribute("aria-sort") == "descending"
    assert len(driver.find_elements("css selector", "table[aria-label=Layers] th[aria-sort]")) == 1
    first = [figure(text) for text in column(driver, "Layers", title)]
    assert first == sorted(shown, reverse=True)
    head(driver, "Layers", title).find_element("tag name", "button").send_keys(_ENTER)
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
    verdict = driver.find_element("css selector", ".verdict").text
    assert "Do not flash: 3 of 30 checks failed" in verdict and "image is 18,304 bytes too large" in verdict
    assert "Safe to flash" in open_page("passing").find_element("css selector", ".verdict").text


def test_the_first_divergence_is_told_in_full(open_page: Open) -> None:
    text = open_page("failing").find_element("css selector", ".divergence").text
    for expected in ("linear_3", "[0, 5, 17]", "-12", "-11", "-48,211", "product -12125", "reproducer_stm32f746.c"):
        assert expected in text


def test_regions_are_drawn_to_scale(open_page: Open) -> None:
    driver = open_page("failing")
    region = verify_reports.failing().builds[0].memory[0]
    drawing, *parts = (
        driver.execute_script("return arguments[0].getBoundingClientRect().width", element)
        for element in driver.find_elements("css selector", ".region:first-child svg, .region:first-child rect")
    )
    assert len(parts) == len(region.parts)
    for width, part in zip(parts, region.parts, strict=True):
        assert width / drawing == pytest.approx(part.bytes / region.size, abs=0.002)
    driver.find_elements("css selector", "[role=tab]")[1].click()
    over = driver.find_element("css selector", ".region").text
    assert "18,304 too many" in over and driver.find_elements("css selector", ".region .limit")


def test_images_are_chosen_by_keys(open_page: Open) -> None:
    driver = open_page("failing")
    tabs = driver.find_elements("css selector", "[role=tab]")
    assert [tab.get_attribute("aria-selected") for tab in tabs] == ["true", "false", "false", "false"]
    tabs[0].send_keys(_RIGHT)
    assert tabs[1].get_attribute("aria-selected") == "true"
    assert driver.switch_to.active_element == tabs[1]
    assert "rp2040" in driver.find_element("css selector", "#build").text
    tabs[1].send_keys(_LEFT)
    assert tabs[0].get_attribute("aria-selected") == "true"


def test_layers_of_a_large_program_are_drawn_on_request(open_page: Open) -> None:
    driver = open_page("many")
    assert len(column(driver, "Layers", "#")) == 500
    more = driver.find_element("xpath", "//button[text()='Show all 3,000 rows']")
    driver.execute_script("arguments[0].click()", more)
    assert column(driver, "Layers", "#") == [str(n) for n in range(3000)]
    assert not more.is_displayed()


def test_names_and_pictures_cannot_run_code(open_page: Open) -> None:
    driver = open_page("hostile")
    name = "return document.querySelector('h1').textContent.startsWith(arguments[0])"
    assert driver.execute_script(name, verify_reports.EVIL.split("\x00", maxsplit=1)[0])
    assert len(driver.find_elements("tag name", "script")) == 2
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
