"""One page per model: what it is, where its numbers come from, and the charts that its records have data for."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.board import Model
from reports.reliability import reliability
from reports.vega import NEAR, Document, quantitative, spec
from reports.wording import brief, number, provenance, setting_label

if TYPE_CHECKING:
    from bench.record import Measurement, Record

    Table = Mapping[str, np.ndarray]
    Outcomes = Callable[[str, Measurement], Table | None]

CLASSES_DRAWN = 100
"""Classes in a chart of classes; with more, the best and the worst half of that many."""
CONFUSION_DRAWN = 40
NAME_SHOWN = 32
"""Characters of a class's name in a chart."""
NARROW = {"labelLimit": 80}
"""Pixels of a class's name along an axis, so that a telephone has room for the chart; the tip says all of it."""
ROWS_AT_MOST = 2_000
"""Measurements listed on a page, the newest run's and its headlines first; the CSV has all."""


def slug(model: Model) -> str:
    """A file name for a model: readable, safe, and unlike that of any other model."""
    digest = hashlib.sha256("\0".join(model).encode()).hexdigest()[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", model.name.lower()).strip("-")[:48] or "model"
    return f"{readable}-{digest}"


def facts(record: Record) -> list[tuple[str, str]]:
    """The card, a fact a line; only what is known."""
    card = record.model
    found: list[tuple[str, Any]] = [
        ("Given as", card.spec),
        ("Method", card.method),
        ("Architecture", card.architecture),
        ("Parameters", f"{card.parameters:,}" if card.parameters else None),
        ("Outputs", ", ".join(f"{name} {width:,}" for name, width in card.dims.items())),
        ("Frozen feature", card.feature),
        ("Input transform", card.transform.describe() if card.transform else None),
        ("Container", card.container),
        ("Layout", card.layout),
        ("Weights key", card.weights_key),
        ("Weights", card.weight_digest),
        ("Own classifier", card.classes),
        ("Step", card.step),
        ("Epoch", card.epoch),
    ]
    if card.coverage is not None:
        found.append(("Coverage", f"{card.coverage.filled:,} of {card.coverage.total:,} tensors from the checkpoint"))
        found.append(("Known heads left over", ", ".join(card.coverage.heads)))
        found.append(("Unused tensors", ", ".join(card.coverage.unused)))
    found += [("Hazard", hazard) for hazard in card.hazards] + [("Note", note) for note in card.notes]
    if record.teacher is not None:
        found.append(("Teacher", f"{record.teacher.name}, {record.teacher.architecture}"))
    return [(name, str(value)) for name, value in found if value not in (None, "")]


def runs(records: Sequence[Record]) -> list[Document]:
    """Where the numbers come from, newest run first."""
    found = []
    for record in reversed(records):
        about = record.environment
        libraries = about.get("libraries")
        found.append(
            {
                "run": record.run,
                "created": record.created,
                "seed": record.seed,
                "where": ", ".join(str(about[k]) for k in ("platform", "device", "gpu") if k in about),
                "libraries": ", ".join(f"{k} {v}" for k, v in libraries.items()) if isinstance(libraries, dict) else "",
                "seconds": record.timings.get("total"),
            }
        )  # fmt: skip
    return found


def measurements(records: Sequence[Record]) -> list[Document]:
    """The measurements of every run, newest run first, headlines first within one; `ROWS_AT_MOST` of them."""
    found: list[Document] = []
    for record in reversed(records):
        for m in sorted(record.measurements, key=lambda m: not m.headline)[: ROWS_AT_MOST - len(found)]:
            interval = "none" if m.interval is None else f"{number(m, m.interval[0])} to {number(m, m.interval[1])}"
            notes = [m.interval_note or "", "" if m.verified else "unverified", provenance(m)]
            found.append(
                {
                    "suite": m.suite, "protocol": m.protocol, "data": f"{m.dataset} {m.split}", "metric": m.metric,
                    "setting": setting_label(m), "value": number(m), "interval": interval, "n": f"{m.n:,}",
                    "headline": m.headline, "run": record.run, "notes": "; ".join(filter(None, notes)),
                }
            )  # fmt: skip
    return found


def charts(records: Sequence[Record], outcomes: Outcomes) -> list[Document]:
    """Charts of every measurement's newest run: sweeps, classes, confusion, training curves, maps of a comparison."""
    found: list[Document] = []
    for run, newest in _newest(records):
        found += _sweeps(newest)
        drawn: set[str] = set()
        for m in newest:
            if isinstance(m.details.get("path"), list):
                found += _path(m)
            if isinstance(m.details.get("curve"), list):
                found += _curve(m)
            if m.headline and m.outcomes is not None and m.outcomes not in drawn:
                drawn.add(m.outcomes)
                table = outcomes(run, m)
                if table is not None and {"confidence", "correct"} <= set(table):
                    found += reliability(m, table)
                if table is not None and {"label", "prediction", "correct"} <= set(table):
                    found += _classes(m, table)
                elif table is not None:
                    found += _maps(m, table)
    unique = {(chart["title"], chart["text"]): chart for chart in found}
    return [{**chart, "id": f"c{i}"} for i, chart in enumerate(unique.values())]


def _newest(records: Sequence[Record]) -> list[tuple[str, list[Measurement]]]:
    """(run, its measurements that no newer run of the model repeats), the newest run first."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for record in reversed(records):
        mine = {(m.protocol, m.dataset, m.split, m.fingerprint): m for m in record.measurements}
        new = set(mine) - seen
        seen |= new
        kept = [m for m in record.measurements if (m.protocol, m.dataset, m.split, m.fingerprint) in new]
        if kept:
            found.append((record.run, kept))
    return found


def _sweeps(measurements: Sequence[Measurement]) -> list[Document]:
    """Metrics over k, a line per temperature."""
    groups: dict[tuple[str, str, str], list[Measurement]] = {}
    for m in measurements:
        if isinstance(m.settings.get("k"), int):
            groups.setdefault((m.protocol, m.dataset, m.metric), []).append(m)
    found = []
    for (protocol, dataset, metric), group in groups.items():
        if len({m.settings["k"] for m in group}) < 2:
            continue
        values = [
            {"k": m.settings["k"], "t": str(m.settings.get("temperature", m.settings.get("T", ""))), "y": m.value,
             "low": (m.interval or (m.value, m.value))[0], "high": (m.interval or (m.value, m.value))[1]}
            for m in group
        ]  # fmt: skip
        across = quantitative("k", "k", scale={"type": "log"}, axis={"values": sorted({v["k"] for v in values})})
        colour = {"color": {"field": "t", "title": "Temperature"}} if any(v["t"] for v in values) else {}
        unit = f"{metric}, {group[0].unit}".rstrip(", ")
        layer = [
            {"mark": {"type": "rule", "opacity": 0.6},
             "encoding": {"x": across, "y": quantitative("low", unit, scale=NEAR), "y2": {"field": "high"},
                          **colour}},
            {"mark": {"type": "line", "point": True, "tooltip": True},
             "encoding": {"x": across, "y": quantitative("y", unit, scale=NEAR), **colour}},
        ]  # fmt: skip
        text = f"{protocol} on {dataset}; bars are 95 % intervals."
        found.append(spec(f"{metric} over k", text, data={"values": values}, layer=layer))
    return found


def _path(m: Measurement) -> list[Document]:
    """What was swept and what was chosen: one number of every point over the one that was varied."""
    points = [p for p in m.details["path"] if isinstance(p, dict)]
    swept = next((k for k in ("C", "lr", "penalty", "learning_rate") if all(_number(p.get(k)) for p in points)), None)
    scores = [k for k in (points[0] if points else {}) if k != swept and all(_number(p.get(k)) for p in points)]
    score = next((k for k in scores if "top1" in k or "accuracy" in k), scores[0] if scores else None)
    if swept is None or score is None or len(points) < 2:
        return []
    chosen = m.details.get("chosen")
    positive = all(p[swept] > 0 for p in points)
    across = quantitative(swept, swept, scale={"type": "log"} if positive else NEAR)
    values = [{swept: p[swept], score: p[score]} for p in points]
    layer: list[Document] = [
        {"data": {"values": values}, "mark": {"type": "line", "point": True, "tooltip": True},
         "encoding": {"x": across, "y": quantitative(score, score.replace("_", " "), scale=NEAR)}},
    ]  # fmt: skip
    if _number(chosen):
        rule = {"type": "rule", "strokeDash": [4, 4]}
        layer.append({"data": {"values": [{swept: chosen}]}, "mark": rule, "encoding": {"x": across}})
    text = f"{m.protocol} on {m.dataset}" + (
        "; the dashed line is the point that was chosen." if _number(chosen) else "."
    )
    return [spec(f"{m.suite}: {score.replace('_', ' ')} over {swept}", text, layer=layer)]


_NO_LOSS = ("epoch", "step", "iteration", "lr")
"""Entries of a curve's points that would flatten its losses on one axis."""


def _curve(m: Measurement) -> list[Document]:
    points = [p for p in m.details["curve"] if isinstance(p, dict)]
    across = next((k for k in ("epoch", "step", "iteration") if all(_number(p.get(k)) for p in points)), None)
    if across is None or len(points) < 2:
        return []
    values = [
        {"x": p[across], "y": value, "what": key.replace("_", " ")}
        for p in points
        for key, value in p.items()
        if key not in _NO_LOSS and _number(value)
    ]
    if not values:
        return []
    encoding = {
        "x": quantitative("x", across),
        "y": quantitative("y", "value", scale=NEAR),
        "color": {"field": "what", "title": ""},
    }
    mark = {"type": "line", "tooltip": True}
    return [spec(f"{m.suite}: training", m.protocol, data={"values": values}, mark=mark, encoding=encoding)]


def class_names(m: Measurement, labels: np.ndarray) -> list[str]:
    """What the record calls the classes ``labels``, each unlike the others; their numbers where it says nothing."""
    said = m.details.get("class_names")
    said = said if isinstance(said, dict) else {}
    numbers = [str(int(label)) for label in labels]
    names = [brief(str(said.get(number) or number), NAME_SHOWN) for number in numbers]
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} ({number})" for name, number in zip(names, numbers, strict=True)]


def _classes(m: Measurement, table: Table) -> list[Document]:
    label, correct = table["label"], table["correct"].astype(float)
    classes, index = np.unique(label, return_inverse=True)
    counts = np.bincount(index)
    accuracy = 100 * np.bincount(index, weights=correct) / counts
    order = np.argsort(accuracy, kind="stable")
    half = CLASSES_DRAWN // 2
    shown = order if len(order) <= CLASSES_DRAWN else np.concatenate([order[:half], order[-half:]])
    called = class_names(m, classes)
    values = [{"label": called[c], "y": round(float(accuracy[c]), 3), "n": int(counts[c])} for c in shown]
    # The label of a comparison's outcome is what the teacher says.
    pair = m.metric == "agreement"
    group, right = ("Class by the teacher", "Agreed, %") if pair else ("Class", "Right, %")
    encoding = {
        "x": {"field": "label", "type": "nominal", "sort": None, "title": f"{group}, worst first", "axis": NARROW},
        "y": quantitative("y", right, scale={"domain": [0, 100]}),
        "tooltip": [
            {"field": "label", "title": group},
            {"field": "y", "title": right},
            {"field": "n", "title": "n"},
        ],
    }
    what = m.metric if pair else f"{m.suite} {m.metric}"
    text = f"{m.protocol} on {m.dataset} {m.split}; {len(classes)} classes" + (
        "." if len(order) <= CLASSES_DRAWN else ", the worst and best shown."
    )
    found = [
        spec(
            f"{what}: {'by class' if pair else 'accuracy by class'}",
            text,
            data={"values": values},
            mark="bar",
            encoding=encoding,
        )
    ]
    if len(classes) <= CONFUSION_DRAWN:
        found.append(_confusion(what, m, label, table["prediction"]))
    return found


def _confusion(what: str, m: Measurement, label: np.ndarray, prediction: np.ndarray) -> Document:
    known, codes = np.unique(np.concatenate([label, prediction]), return_inverse=True)
    pairs = np.bincount(codes[: len(label)] * len(known) + codes[len(label) :], minlength=len(known) ** 2)
    counts = pairs.reshape(len(known), len(known))
    totals = counts.sum(axis=1)
    names = class_names(m, known)
    values = [
        {"t": names[t], "p": names[p], "n": int(counts[t, p]), "share": round(100 * float(counts[t, p] / totals[t]), 2)}
        for t, p in np.argwhere(counts)
    ]
    rows, columns = ("Teacher", "Student") if m.metric == "agreement" else ("True", "Predicted")
    encoding = {
        "x": {"field": "p", "type": "nominal", "sort": names, "title": columns, "axis": NARROW},
        "y": {"field": "t", "type": "nominal", "sort": names, "title": rows, "axis": NARROW},
        "color": quantitative("share", "% of the class", legend={"orient": "right"}),
        "tooltip": [{"field": k, "title": v} for k, v in (("t", rows), ("p", columns), ("n", "Samples"))],
    }
    row = "a class that the teacher says" if m.metric == "agreement" else "a true class"
    text = f"{m.protocol} on {m.dataset} {m.split}; a row is {row} and sums to 100 %."
    return spec(
        f"{what}: {'classes' if m.metric == 'agreement' else 'confusion'}",
        text,
        data={"values": values},
        mark="rect",
        encoding=encoding,
    )


def _maps(m: Measurement, table: Table) -> list[Document]:
    """Heat maps of a comparison's matrices: layers against layers, classes against classes."""
    where = f"{m.protocol} on {m.dataset} {m.split}"
    if {"similarity", "teacher_widths"} <= set(table):
        names = [[f"{i + 1}" for i in range(size)] for size in table["similarity"].shape]
        text = f"{where}; {m.metric}, {m.settings.get('teacher', 'teacher')} in rows."
        return [_heat("Layers: student against teacher", text, table["similarity"], names,
                      ("Layer of the teacher", "Layer of the student"), signed=False)]  # fmt: skip
    if {"difference", "classes"} <= set(table) and len(table["classes"]) <= CONFUSION_DRAWN:
        names = [class_names(m, table["classes"])] * 2
        return [_heat("Class logits: difference of teacher and student", f"{where}; {m.metric}, absolute values.",
                      table["difference"], names, ("True class", "Logit of class"), signed=False)]  # fmt: skip
    return []


def _heat(
    title: str, text: str, matrix: np.ndarray, names: list[list[str]], axes: tuple[str, str], *, signed: bool
) -> Document:
    values = [
        {"r": row, "c": column, "v": round(float(matrix[i, j]), 4)}
        for i, row in enumerate(names[0])
        for j, column in enumerate(names[1])
        if math.isfinite(matrix[i, j])
    ]
    scale = {"scheme": "blueorange", "domainMid": 0} if signed else {"scheme": "viridis"}
    encoding = {
        "x": {"field": "c", "type": "ordinal", "sort": names[1], "title": axes[1], "axis": NARROW},
        "y": {"field": "r", "type": "ordinal", "sort": names[0], "title": axes[0], "axis": NARROW},
        "color": quantitative("v", "Value", scale=scale, legend={"orient": "right"}),
        "tooltip": [{"field": "r", "title": axes[0]}, {"field": "c", "title": axes[1]}, quantitative("v", "Value")],
    }
    return spec(title, text, data={"values": values}, mark="rect", encoding=encoding)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
