"""Figures of a comparison as files beside the record: Vega-Lite documents drawn by vl-convert, the same every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.options import Allowed, words

if TYPE_CHECKING:
    from bench.suite import Task

Spec = dict[str, Any]

FORMATS: Allowed = words("svg", "png", "none", once=True)
"""What a suite's option ``figures`` may be: a list of these."""
MOST = 100
"""Classes in a matrix; with more, those that differ most."""
NAMED = 25
"""Classes up to which a matrix names each."""
CONFIG: Spec = {
    "background": "white",
    "font": "sans-serif",
    "axis": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"},
    "legend": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"},
    "title": {"fontSize": 13, "fontWeight": "bold", "anchor": "start"},
    "view": {"stroke": "#cccccc"},
}


def wanted(task: Task) -> list[str]:
    """The formats to draw; none where no record is written, for a figure lies beside one."""
    formats = [name for name in task.settings["figures"] if name != "none"]
    return formats if task.folder is not None else []


def captions(task: Task, said: Mapping[str, str]) -> dict[str, Any]:
    """For a measurement's details: what a page says below each figure, by file name. ``said``: name -> caption."""
    return {"figures": {f"{name}.{suffix}": text for name, text in said.items() for suffix in wanted(task)}}


def keep(task: Task, name: str, make: Callable[[], Spec]) -> None:
    """Draw ``make()`` in every format that is wanted and hand it to the task as ``name.svg`` and ``name.png``.

    A figure that the data do not allow is left out with its sentence.
    """
    formats = wanted(task)
    if not formats:
        return
    try:
        spec = make()
    except BenchError as refusal:
        task.progress.warn(f"{task.protocol.suite}: the figure {name} is left out: {refusal}")
        return
    for suffix in formats:
        task.files[f"{name}.{suffix}"] = drawn(spec, suffix)


def drawn(spec: Spec, suffix: str) -> bytes:
    """The document as SVG or PNG (two pixels a point)."""
    import vl_convert

    whole = {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "config": CONFIG, "padding": 12, **spec}
    if suffix == "svg":
        return _renumbered(str(vl_convert.vegalite_to_svg(whole))).encode()
    return bytes(vl_convert.vegalite_to_png(whole, scale=2))


def _renumbered(svg: str) -> str:
    """Gradients and clips numbered from 0: the renderer counts on through a process, and equal figures would differ."""
    import re

    known: dict[str, str] = {}
    count: dict[str, int] = {}
    for kind, number in re.findall(r'\bid="([a-z]+_?)(\d+)"', svg):
        if kind + number not in known:
            known[kind + number] = f"{kind}{count.setdefault(kind, 0)}"
            count[kind] += 1
    return re.sub(r'(\bid="|url\(#|href="#)([a-z]+_?\d+)', lambda match: match[1] + known.get(match[2], match[2]), svg)


def matrices(
    title: str,
    panels: Mapping[str, np.ndarray],
    classes: Sequence[str],
    axes: tuple[str, str],
    *,
    signed: Sequence[str] = (),
    ends: Mapping[str, float] | None = None,
) -> Spec:
    """Square matrices [C, C] side by side, with their titles; those ``signed`` share one scale around 0.

    ``axes``: what rows and columns are. Others end at ``ends`` (what lies beyond has the last colour), where it names
    them, or at their largest value.
    """
    order = np.arange(len(classes))
    if len(classes) > MOST:
        last = np.abs(list(panels.values())[-1])
        order = np.sort(np.argsort(-(last.sum(axis=0) + last.sum(axis=1)), kind="stable")[:MOST])
        title += f" (the {MOST} of {len(classes)} classes that differ most)"
    size = max(260, min(420, 11 * len(order)))
    names = [classes[int(i)] for i in order]
    together = max((float(np.abs(m).max()) for name, m in panels.items() if name in signed), default=1.0) or 1.0
    parts = []
    for name, matrix in panels.items():
        if name in signed:
            scale = {"scheme": "redblue", "reverse": True, "domain": [-together, together]}
        else:
            end = (ends or {}).get(name) or float(np.abs(matrix).max()) or 1.0
            scale = {"scheme": "viridis", "domain": [0, end], "clamp": True}
        values = [
            {"r": r, "c": c, "v": round(float(matrix[i, j]), 4)}
            for r, i in enumerate(order)
            for c, j in enumerate(order)
        ]
        parts.append(
            {
                "title": name, "width": size, "height": size, "data": {"values": values}, "mark": "rect",
                "encoding": {
                    "x": {"field": "c", "type": "ordinal", "title": axes[1], "axis": _ticks(names, -45)},
                    "y": {"field": "r", "type": "ordinal", "title": axes[0], "axis": _ticks(names, 0)},
                    "color": {"field": "v", "type": "quantitative", "title": None, "scale": scale,
                              "legend": {"gradientLength": min(size, 200)}},
                },
            }
        )  # fmt: skip
    return {"title": {"text": title, "offset": 14}, "hconcat": parts, "spacing": 24, "resolve": _APART}


_APART = {"scale": {"color": "independent", "x": "independent", "y": "independent"}}


def _ticks(names: Sequence[str], angle: int) -> Spec:
    """Every class by name where there is room, else every tenth by number."""
    if len(names) > NAMED:
        step = 10 if len(names) > 40 else 5
        return {"values": list(range(0, len(names), step)), "labelAngle": 0, "ticks": False}
    quoted = ", ".join(_quoted(name if len(name) <= 16 else name[:15] + "\N{HORIZONTAL ELLIPSIS}") for name in names)
    return {"labelExpr": f"[{quoted}][datum.value]", "labelAngle": angle, "ticks": False}


def _quoted(text: str) -> str:
    """A string of Vega's expression language."""
    import json

    return json.dumps(text)


def reliability(title: str, networks: Mapping[str, tuple[np.ndarray, np.ndarray]], bins: int) -> Spec:
    """Accuracy over confidence in bins of equal width, the shares of samples below.

    ``networks``: title -> (confidence [N], correct [N]).
    """
    from suites.fidelity import confidence_bins

    parts = []
    most = max(
        float(np.bincount(confidence_bins(confidence, bins)).max() / len(confidence))
        for confidence, _ in networks.values()
    )
    for name, (confidence, correct) in networks.items():
        bin_of = confidence_bins(confidence, bins)
        counts = np.bincount(bin_of, minlength=bins)
        right = np.bincount(bin_of, weights=correct, minlength=bins)
        sure = np.bincount(bin_of, weights=confidence, minlength=bins)
        values = [
            {"low": b / bins, "high": (b + 1) / bins, "accuracy": float(right[b] / counts[b]),
             "confidence": float(sure[b] / counts[b]), "share": float(counts[b] / len(confidence))}
            for b in range(bins)
            if counts[b]
        ]  # fmt: skip
        gap = sum(v["share"] * abs(v["accuracy"] - v["confidence"]) for v in values)
        unit: Spec = {"scale": {"domain": [0, 1]}, "type": "quantitative", "axis": {"labelFlush": False}}
        across = {"x": {"field": "low", "title": None, **unit}, "x2": {"field": "high"}}
        above: list[Spec] = [
            {"mark": {"type": "bar", "color": "#4c78a8", "stroke": "white", "strokeWidth": 0.5},
             "encoding": {**across, "y": {"field": "accuracy", "title": "Accuracy", **unit}, "y2": {"datum": 0}}},
            {"data": {"values": [{"a": 0}, {"a": 1}]}, "mark": {"type": "line", "strokeDash": [4, 4], "color": "#555"},
             "encoding": {"x": {"field": "a", **unit}, "y": {"field": "a", **unit}}},
            {"mark": {"type": "point", "filled": True, "size": 28, "color": "#d62728"},
             "encoding": {"x": {"field": "confidence", **unit}, "y": {"field": "accuracy", **unit}}},
        ]  # fmt: skip
        share = {"field": "share", "type": "quantitative", "title": "Share", "scale": {"domain": [0, most]},
                 "axis": {"format": "%", "tickCount": 3}}  # fmt: skip
        below: Spec = {
            "width": 280, "height": 70, "mark": {"type": "bar", "color": "#9d9d9d", "stroke": "white"},
            "encoding": {
                "x": {**across["x"], "title": "Confidence"}, "x2": across["x2"], "y": share, "y2": {"datum": 0}
            },
        }  # fmt: skip
        parts.append(
            {
                "title": f"{name}: ECE {gap:.3f}", "data": {"values": values}, "spacing": 8,
                "vconcat": [{"width": 280, "height": 280, "layer": above}, below],
            }
        )  # fmt: skip
    subtitle = "bars: accuracy in each bin; red: at the mean confidence of the bin; dashed: calibrated"
    return {"title": {"text": title, "subtitle": subtitle, "offset": 14}, "hconcat": parts, "spacing": 40}


def embedding(title: str, subtitle: str, points: np.ndarray, networks: Sequence[str], labels: Sequence[str]) -> Spec:
    """``points`` [M, 2] by network (shape) and class (colour)."""
    values = [
        {"x": round(float(x), 3), "y": round(float(y), 3), "network": network, "class": label}
        for (x, y), network, label in zip(points, networks, labels, strict=True)
    ]
    plain = {"type": "quantitative", "axis": None, "scale": {"zero": False, "padding": 8}}
    order = list(dict.fromkeys(networks))
    encoding = {
        "x": {"field": "x", **plain},
        "y": {"field": "y", **plain},
        "color": {"field": "class", "type": "nominal", "title": "Class", "sort": list(dict.fromkeys(sorted(labels))),
                  "scale": {"scheme": "tableau10" if len(set(labels)) <= 10 else "tableau20"}},
        "shape": {"field": "network", "type": "nominal", "title": "Network", "sort": order,
                  "scale": {"domain": order, "range": ["circle", "cross"][: len(order)]}},
    }  # fmt: skip
    mark = {"type": "point", "size": 34, "opacity": 0.75, "strokeWidth": 1.2}
    return {
        "title": {"text": title, "subtitle": subtitle, "offset": 14}, "width": 520, "height": 440,
        "data": {"values": values}, "mark": mark, "encoding": encoding,
    }  # fmt: skip
