"""The page of a profile in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.profile import compare_profiles
from conformance.profile_report import page
from tests.browser import Driver, browser, check_drawn, column, head, view
from tests.conformance.test_profile import EVIL, layer, profile


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = profile(layer(0, EVIL, cycles=100), layer(1, "gone", cycles=7))
    after = profile(layer(0, EVIL, EVIL, 400), layer(1, "b", cycles=900), layer(2, "c", cycles=60, macs=0))
    path = tmp_path_factory.mktemp("pages") / "profile.html"
    path.write_text(page(after, compare_profiles(before, after)), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1300, "light")])
def test_the_page_draws_without_errors_and_fits(driver: Driver, drawn: Path, width: int, scheme: str) -> None:
    view(driver, drawn, width, scheme)
    check_drawn(driver, scheme)


def test_a_click_sorts(driver: Driver, drawn: Path) -> None:
    view(driver, drawn)
    head(driver, "Layers", "cycles").find_element("tag name", "button").click()
    assert column(driver, "Layers", "cycles") == ["900", "400", "60"]
    head(driver, "Layers", "cycles").find_element("tag name", "button").click()
    assert column(driver, "Layers", "cycles") == ["60", "400", "900"]
