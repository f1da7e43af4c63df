"""Charts as Vega-Lite documents."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]


def spec(title: str, text: str, **parts: Any) -> Document:
    """A chart: its title, what it shows in words, and its Vega-Lite document."""
    common = {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "width": "container", "height": 280}
    return {"title": title, "text": text, "spec": {**common, "description": f"{title}. {text}", **parts}}


def quantitative(field: str, title: str, **more: Any) -> Document:
    return {"field": field, "type": "quantitative", "title": title, **more}


NEAR = {"zero": False}
"""Axes that need not begin at zero."""
