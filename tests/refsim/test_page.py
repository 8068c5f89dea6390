"""The frame of self-contained pages: data stay data, numbers stay JSON."""

import json
import math
import re

import numpy as np
import pytest

from refsim.page import finite, render_page


def embedded(page: str) -> object:
    return json.loads(page.split('type="application/json">')[1].split("</script>", maxsplit=1)[0])


@pytest.mark.parametrize(
    "text", ["</script><script>", "<!--", "@SCRIPT@ @DATA@ @STYLE@ @TITLE@", "\u2028 \x00 \U0001f600", '"\\']
)
def test_text_stays_data(text: str) -> None:
    page = render_page(text, {text: [text]}, "", "")
    assert embedded(page) == {text: [text]}
    assert page.count("<script") == 2 and page.count("</script>") == 2 and page.count("<!--") == 0


def test_a_page_loads_nothing() -> None:
    page = render_page("t", {}, ".own { color: red; }", "show(h('h1', {}, 'own'));")
    assert ".own { color: red; }" in page and "show(h('h1', {}, 'own'));" in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|@import|url\(|<link|src=|@[A-Z]+@", page)


def test_numbers_that_json_lacks_become_texts() -> None:
    given = {"a": (math.nan, [math.inf, -math.inf]), "b": np.float32(1.5), "c": np.int8(-3), "d": np.float64("nan")}
    assert finite(given) == {"a": ["NaN", ["Infinity", "-Infinity"]], "b": 1.5, "c": -3, "d": "NaN"}
    json.dumps(finite(given), allow_nan=False)
