"""The board's charts as Vega-Lite documents over the tables' rows."""

from __future__ import annotations

import math
import statistics
from typing import Any

from reports import printed
from reports.tables import Document, Table, survey_key
from reports.wording import brief

SUPERVISED_RESNET50 = 76.2
WRN_40_2_TEACHER = 75.6


NAMES_PLACED = 60
AREA = (560, 310)
"""Pixels across and up that the points of a chart lie in, about: an axis begins and ends at round numbers."""
LETTER = 6.3
"""Pixels of a letter, about."""
SIDES: dict[str, tuple[Document, float, int, int]] = {
    "above": ({"dy": -11}, 0.0, 0, 1),
    "right": ({"align": "left", "dx": 9}, 0.5, 1, 0),
    "left": ({"align": "right", "dx": -9}, -0.5, -1, 0),
    "below": ({"dy": 13}, 0.0, 0, -1),
}
"""Where a name may stand: how Vega says it; half widths to the right, 9 pixels to the right, 13 pixels up."""


def charts(ssl: Table, kd: Table, board: Any) -> list[Document]:
    """``{"id", "title", "text", "spec"}`` for every chart that has data; ``text`` says in words what it shows.

    A published point carries its value as printed and as audited; the page draws the one that the reader chose.
    """
    found = [
        _timeline("ssl-time", "ImageNet-1k linear probe by year", ssl, "in1k_lp", "in1k_lp_uniform",
                  SUPERVISED_RESNET50, "supervised ResNet-50"),
        _timeline("kd-time", "CIFAR-100 student by year", kd, "cifar100_student", None,
                  WRN_40_2_TEACHER, "WRN-40-2 teacher"),
        _disagreement(ssl),
        _by_size(board),
        _by_speed(board),
        _agreement(board),
    ]  # fmt: skip
    return [chart for chart in found if chart is not None]


def _points(table: Table, x: str, y: str, alternative: str | None = None) -> list[Document]:
    """Rows with both; ``x`` a text or a number column. Zero-shot values are another quantity, and stay out."""
    index = {column["key"]: i for i, column in enumerate(table["columns"])}
    points = []
    for row in table["rows"]:
        cells = row["cells"]
        target = cells[index[y]] or (cells[index[alternative]] if alternative else None)
        across = cells[index[x]]
        if target is None or target.get("z") or across in (None, ""):
            continue
        point = {
            "name": cells[0],
            "family": row["family"],
            "kind": row["kind"],
            "y": target["n"],
            **_audited(target, "ya"),
        }
        if isinstance(across, dict):
            point |= {"x": across["n"], **_audited(across, "xa")}
        else:
            point["x"] = int(across)
        points.append(point)
    return points


def _how_many(points: list[Document]) -> str:
    as_printed = sum(p["y"] is not None and p["x"] is not None for p in points)
    audited = sum(p["ya"] is not None and p.get("xa", p["x"]) is not None for p in points)
    return f"{as_printed} methods as printed, {audited} audited" if as_printed != audited else f"{as_printed} methods"


def _audited(cell: Document, key: str) -> Document:
    """The value that the audit puts in place of the printed one; None where it only takes away."""
    value = cell["n"]
    if "a" in cell:
        audit = printed.audits()[cell["a"]]
        if audit.standing == "corrected":
            value = printed.value_of(audit.audited_value)
    return {key: value}


def _timeline(
    name: str, title: str, table: Table, y: str, alternative: str | None, level: float, called: str
) -> Document | None:
    points = _points(table, "year", y, alternative)
    if not points:
        return None
    line = {"data": {"values": [{"level": level, "label": f"{called}, {level}"}]}}
    ruler = {"type": "rule", "strokeDash": [2, 4], "tooltip": True}
    label = {"type": "text", "align": "left", "dx": 4, "dy": -6}
    at = {"field": "level", "type": "quantitative"}
    span = [min(p["x"] for p in points) - 1, max(p["x"] for p in points) + 1]
    years = {"field": "x", "type": "quantitative", "title": "Year", "scale": {"domain": span, "nice": False}}
    layers = [
        {**line, "mark": ruler, "encoding": {"y": at}},
        {**line, "mark": label, "encoding": {"x": {"value": 0}, "y": at, "text": {"field": "label"}}},
        _marks(points, {**years, "axis": {"format": "d", "tickMinStep": 1}}),
    ]
    text = f"{_how_many(points)}; dotted: {called} at {level}."
    return _chart(name, title, text, layers, "Top-1, %")


def _disagreement(ssl: Table) -> Document | None:
    points = _points(ssl, "in1k_lp", "in1k_ft", None)
    if len(points) < 2:
        return None
    text = (
        f"{_how_many(points)} with both numbers. The two orders disagree: a linear probe and a fine-tune ask for "
        f"different things, so neither ranks representations alone."
    )
    across = {"field": "x", "type": "quantitative", "title": "Linear probe, top-1 %", "scale": {"zero": False}}
    return _chart("lp-ft", "Linear probe against fine-tune", text, [_marks(points, across)], "Fine-tune, top-1 %")


def _largest(board: Any, metric: str = "top1", *, headline: bool = True) -> Any:
    """The measured column with most models: the one chart that compares like with like."""
    columns = [
        column
        for column, cells in board.columns.items()
        if column.metric == metric and (not headline or any(cell.newest.headline for cell in cells.values()))
    ]
    return max(columns, key=lambda c: (len(board.columns[c]), survey_key(c) is not None, c), default=None)


def _measured_points(board: Any, column: Any, across: Any) -> list[Document]:
    from reports.tables import family_of

    points = []
    for model, cell in board.columns[column].items():
        x = across(model)
        if x:
            card = board.cards[model]
            points.append(
                {"name": brief(model.name, 60), "family": family_of(card.method), "kind": "measured",
                 "x": float(f"{x:.6g}"), "y": round(cell.value, 4)}
            )  # fmt: skip
    return points


def _by_size(board: Any) -> Document | None:
    column = _largest(board)
    points = _measured_points(board, column, lambda m: board.cards[m].parameters / 1e6) if column else []
    if len(points) < 2:
        return None
    across = {"field": "x", "type": "quantitative", "title": "Parameters, M", "scale": {"type": "log"}}
    text = f"{len(points)} models measured by {column.protocol} on {column.dataset} {column.split}."
    return _chart("size", "Accuracy against parameters", text, [_marks(points, across)], "Top-1, %")


def _by_speed(board: Any) -> Document | None:
    """Images a second of the forward passes that were really timed; runs from the store tell nothing."""
    column = _largest(board)

    def speed(model: Any) -> float | None:
        rates = []
        for record in board.records[model]:
            seconds = record.timings.get("forward", 0.0)
            images = record.environment.get("images_forwarded")
            # With a teacher in the run, two networks shared those seconds.
            if record.teacher is None and seconds > 0 and isinstance(images, int | float) and images > 0:
                rates.append(images / seconds)
        return statistics.median(rates) if rates else None

    points = _measured_points(board, column, speed) if column else []
    if len(points) < 2:
        return None
    across = {"field": "x", "type": "quantitative", "title": "Images per second", "scale": {"type": "log"}}
    text = f"{len(points)} models; each on the machine that its record names."
    return _chart("speed", "Accuracy against throughput", text, [_marks(points, across)], "Top-1, %")


def _agreement(board: Any) -> Document | None:
    column, accuracy = _largest(board, "agreement", headline=False), _largest(board)
    if column is None or accuracy is None:
        return None

    def agreement(model: Any) -> float | None:
        cell = board.columns[column].get(model)
        return cell.value if cell else None

    points = _measured_points(board, accuracy, agreement)
    if not points:
        return None
    across = {"field": "x", "type": "quantitative", "title": "Agreement with the teacher, %", "scale": {"zero": False}}
    text = f"{len(points)} students."
    return _chart("agreement", "Accuracy against agreement", text, [_marks(points, across)], "Top-1, %")


def _marks(points: list[Document], x: Document) -> Document:
    tooltip = [
        {"field": "name", "title": "Method"},
        {"field": "family", "title": "Family"},
        {"field": "kind", "title": "Number"},
        {"field": "x", "title": x["title"]},
        {"field": "y", "title": "Value"},
    ]
    x = {**x, "scale": {**x.get("scale", {}), **_around({p["x"] for p in points})}}
    encoding = {
        "x": x,
        "y": {"field": "y", "type": "quantitative", "scale": {"zero": False, **_around({p["y"] for p in points})}},
        "color": {"field": "family", "title": "Family"},
        "shape": {"field": "family", "title": "Family"},
        "tooltip": tooltip,
    }  # fmt: skip
    point = {"type": "point", "size": 90, "strokeWidth": 2}
    # Published points are open, measured ones filled: told apart without colour.
    layers: list[Document] = [
        {"mark": {**point, "filled": kind == "measured", "opacity": 1}, "transform": [_of(kind)], "encoding": encoding}
        for kind in sorted({p["kind"] for p in points})
    ]
    sides = _sides(points, logarithmic=x["scale"].get("type") == "log", span=x["scale"].get("domain"))
    named = {"x": x, "y": encoding["y"], "text": {"field": "name"}}
    for side in dict.fromkeys(sides):
        mark = {"type": "text", "fontSize": 11, **SIDES[side][0]}
        layers.append({"mark": mark, "transform": [{"filter": {"field": "side", "equal": side}}], "encoding": named})
    values = [{**point, "side": side} for point, side in zip(points, sides, strict=True)]
    return {"data": {"name": "points", "values": values}, "layer": layers}


def _sides(points: list[Document], *, logarithmic: bool, span: list[float] | None = None) -> list[str]:
    """Where every point's name stands: above, or where it covers fewest names and points, on a chart as a desk has it.

    ``span``: the ends of the axis across, where they are not those of the points.
    Of more than `NAMES_PLACED` points all stand above: there is no room for them anyway.
    """
    known = [p for p in points if p["x"] is not None and p["y"] is not None]
    if not known or len(points) > NAMES_PLACED:
        return ["above"] * len(points)
    scaled = {id(p): (math.log10(p["x"]) if logarithmic else p["x"], p["y"]) for p in known}
    low, high = ([f(at[i] for at in scaled.values()) for i in (0, 1)] for f in (min, max))
    if span is not None and not logarithmic:
        low[0], high[0] = span
    pixels = {
        key: tuple(size * (at[i] - low[i]) / ((high[i] - low[i]) or 1) for i, size in enumerate(AREA))
        for key, at in scaled.items()
    }
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in pixels.values()]
    sides = []
    for point in points:
        if id(point) not in pixels:
            sides.append("above")
            continue
        (x, y), wide = pixels[id(point)], LETTER * len(point["name"])
        boxes = {}
        for side, (_, right, dx, up) in SIDES.items():
            middle, height = x + right * wide + 9 * dx, y + 13 * up
            boxes[side] = (middle - wide / 2, height - 6, middle + wide / 2, height + 6)
        covered = {side: sum(_shared(box, other) for other in taken) for side, box in boxes.items()}
        best = min(covered, key=lambda side: covered[side])
        taken.append(boxes[best])
        sides.append(best)
    return sides


def _shared(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The area that two boxes (left, bottom, right, top) have in common."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _around(values: set[float]) -> Document:
    """A scale's domain where there is a single value, whose axis would have one tick, rounded to a whole number."""
    if len(values) != 1 or None in values:
        return {}
    (value,) = values
    return {"domain": [value / 2, value * 2] if 0 < value <= 1 else [value - 1, value + 1]}


def _of(kind: str) -> Document:
    return {"filter": {"field": "kind", "equal": kind}}


def _chart(name: str, title: str, text: str, layers: list[Document], y_title: str) -> Document:
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": 360,
        "description": f"{title}. {text}",
        "encoding": {"y": {"type": "quantitative", "title": y_title, "scale": {"zero": False}}},
        "layer": layers,
    }
    return {"id": name, "title": title, "text": text, "spec": spec}
