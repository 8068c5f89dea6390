"""Self-contained HTML pages: one file that needs nothing but a browser, and no network."""

import html
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

_FRAME = Path(__file__).with_suffix(".html")


def render_page(title: str, data: Any, style: str, script: str) -> str:
    """A page that draws itself from data.

    The frame, `page.html`, brings the house style, light and dark, and functions that build elements, numbers and
    tables that sort. All text reaches the page as JSON, and its script puts it there as text, never as markup: names
    come from model files.

    Args:
        title: of the window.
        data: what `json.dumps` takes; the script finds it as `DATA`.
        style: CSS beside the frame's.
        script: JavaScript after the frame's functions.
    """
    filling = {
        "@TITLE@": html.escape(title),
        "@STYLE@": style,
        "@DATA@": json.dumps(finite(data), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c"),
        "@SCRIPT@": script,
    }
    return re.sub("|".join(filling), lambda place: filling[place[0]], _FRAME.read_text(encoding="utf-8"))


def finite(value: Any) -> Any:
    """The value as JSON can hold it: scalars of numpy plain, what is no number "NaN", "Infinity" or "-Infinity".

    Both `Number` of JavaScript and `float` of Python read these texts.
    """
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
