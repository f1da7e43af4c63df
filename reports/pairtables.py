"""The board's tables of pairs: DCD's four with measured students among them, what was gained over KD, and every student
beside its teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.errors import BenchError
from bench.improvement import relative_improvement
from reports import printed
from reports.board import Board, Cell, Model
from reports.distillation import (
    CIFAR100,
    IMAGENET,
    RETAINED_AT_MOST,
    Pair,
    cifar_name,
    joined,
    large_name,
    one_family,
    pairs,
)
from reports.tables import Document, Table, measured, printed_cell
from reports.wording import brief

EMPTY = "Percent. A dash is unreported."
SAME, DIFFERENT = "Same architecture", "Different architecture"
Numbers = dict[tuple[Model, str], dict[tuple[tuple[str, ...], str], Document]]
"""(student, the teacher's name) -> (pair of the table, metric) -> the cell."""


def dcd_tables(board: Board | None = None) -> list[Table]:
    """The four tables of the DCD paper, a method a row, and the students of ``board`` whose pair they have; a pair of
    CIFAR-100 that they do not have is a column more."""
    known = pairs(board) if board is not None else []
    pair = ("teacher", "student")
    single, boxes = [("top1", "")], [("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75")]
    accuracy = f"{EMPTY} Measured: the student's own classifier."
    return [
        _wide("dcd1", "DCD table 1: CIFAR-100 top-1", pair, single, _family_of_pair,
              _classified(known, CIFAR100, cifar_name), accuracy, open_=True),
        _wide("dcd2", "DCD table 2: transfer of frozen features, top-1", ("source", "target"), single, lambda p: "",
              _transferred(board, known), f"{EMPTY} Measured: suite transfer, protocol dcd."),
        _wide("dcd3", "DCD table 3: ImageNet top-1", pair, single, lambda p: "",
              _classified(known, IMAGENET, large_name), accuracy),
        _wide("dcd4", "DCD table 4: COCO detection", pair, boxes, " to ".join, _detected(board, known),
              f"{EMPTY} Measured: suite coco, the protocol in the cell's note."),
    ]  # fmt: skip


def improvement_table() -> Table:
    """Relative improvement over KD from the printed cells of table 1: each method with a value for every pair."""
    value: dict[str, dict[tuple[str, str], float]] = {}
    for row in printed.rows("dcd1"):
        if (number := printed.value_of(row["top1"])) is not None:
            value.setdefault(row["method"], {})[row["teacher"], row["student"]] = number
    order = list(value["KD"])
    rows: list[Document] = []
    for method, found in value.items():
        if method in {"Teacher", "Student", "KD"} or set(found) != set(order):
            continue
        try:
            of = relative_improvement(
                *([found_[p] for p in order] for found_ in (found, value["KD"], value["Student"]))
            )
        except BenchError:
            continue
        cells: list[Any] = [
            method,
            *(_shown(v, f"from {len(order)} printed pairs") for v in (of.mean, of.median, of.pooled)),
        ]
        rows.append({"kind": "published", **_BLANK, "cells": cells})
    columns: list[Document] = [{"key": "method", "title": "Method", "group": "", "kind": "text"}]
    columns += [
        {"key": key, "title": key.capitalize(), "group": "", "kind": "number", "dir": "higher"}
        for key in ("mean", "median", "pooled")
    ]
    note = (
        f"Percent of what KD adds to the plain student, (method - KD) / (KD - student), over the {len(order)} pairs of "
        f"table 1. The mean is what the paper prints; one pair with a small denominator (R-32x4 to R-8x4, 0.83 points) "
        f"carries much of it, so the median and the pooled ratio stand beside it."
    )
    return {"id": "improvement", "title": "Relative improvement over KD, DCD table 1", "note": note,
            "columns": columns, "rows": rows}  # fmt: skip


def students(board: Board) -> Table | None:
    """Every measured student beside its teacher: accuracy and gain, agreement, what it keeps and what it saves."""
    known = pairs(board)
    if not known:
        return None
    kept = [dict(pair.retained()) for pair in known]
    more = [joined(board, pair) for pair in known]
    suites = list(dict.fromkeys([name for own in kept for name in own] + [name for other in more for name in other]))
    suites = suites[:RETAINED_AT_MOST]
    columns: list[Document] = [
        {"key": key, "title": title, "group": "", "kind": "text"}
        for key, title in (
            ("model", "Student"),
            ("teacher", "Teacher"),
            ("data", "Data"),
            ("architectures", "Architectures"),
        )
    ]
    columns += [
        {
            "key": f"{group} {title}",
            "title": title,
            "group": group,
            "kind": "number",
            "dir": "lower" if title == "KL" else "higher",
        }
        for group, title, *_ in _NUMBERS
    ]
    columns += [
        {
            "key": f"retention {name}",
            "title": name,
            "group": "Retention, % of the teacher",
            "kind": "number",
            "dir": "higher",
        }
        for name in suites
    ]
    columns += [
        {"key": f"saving {title}", "title": title, "group": "Teacher over student", "kind": "number", "dir": "higher"}
        for title, _ in _SAVINGS
    ]
    rows: list[Document] = []
    for pair, own, other in zip(known, kept, more, strict=True):
        cells: list[Any] = [
            brief(pair.student.name), brief(pair.teacher.name), f"{pair.dataset} {pair.split}",
            f"{pair.teacher.architecture} to {pair.card.architecture}"
            + (" (same)" if _alike(pair) else " (different)"),
        ]  # fmt: skip
        for _, title, suite, metric, settings in _NUMBERS:
            cell = pair.cell(suite, metric, **settings)
            # What distillation lowers is the divergence of the classifiers, not that of probes.
            cells.append(None if cell is None or (title == "KL" and pair.logits == "probe") else _of(cell, pair))
        for name in suites:
            if name in own:
                cells.append(measured(own[name], None))
            else:
                cells.append(_shown(*other[name]) if name in other else None)
        for title, metric in _SAVINGS:
            cells.append(_saving(pair, title, metric))
        rows.append({"kind": "measured", **_BLANK, "backbone": pair.card.architecture, "cells": cells,
                     "model": pair.student})  # fmt: skip
    note = (
        "Delta: the student less the same student without a teacher (agreement.baseline). A single pair says that "
        "these networks differ, not that a method does. Logits of probes are marked in the cell's note. Ratios: the "
        "teacher's size, operations and time over the student's."
    )
    return {"id": "students", "title": "Students beside their teachers", "note": note, "columns": columns, "rows": rows}


_BLANK = {"family": "", "backbone": "", "data": "", "year": ""}
_NUMBERS: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    ("Top-1, %", "Student", "agreement", "top1", {"network": "student"}),
    ("Top-1, %", "Teacher", "agreement", "top1", {"network": "teacher"}),
    ("Top-1, %", "Delta", "agreement", "gain", {"over": "baseline"}),
    ("Fidelity", "Agreement", "agreement", "agreement", {}),
    ("Fidelity", "KL", "agreement", "kl", {}),
    ("Fidelity", "CKA", "similarity", "cka", {}),
    ("Retention, % of the teacher", "classifier", "agreement", "retention", {}),
)
"""(group, title, suite, metric, settings)."""
_SAVINGS = (
    ("parameters", "parameters_ratio"), ("bytes", "bytes_ratio"), ("FLOPs", "flops_ratio"),
    ("latency", "latency_speedup"), ("throughput", "throughput_speedup"),
)  # fmt: skip


def _of(cell: Cell, pair: Pair) -> Document:
    document = measured(cell, None)
    if cell.newest.suite == "agreement" and pair.logits == "probe":
        document |= {"d": f"logits of probes; {document['d']}", "f": 1}
    return document


def _saving(pair: Pair, title: str, metric: str) -> Document | None:
    cell = pair.cell("compression", metric)
    if cell is not None:
        m = cell.newest
        where = "; ".join(f"{k} {v}" for k, v in sorted(m.settings.items()) if k != "teacher")
        document = measured(cell, None)
        interval = {"i": f"{m.interval[0]:.2f} to {m.interval[1]:.2f}"} if m.interval else {}
        return {**document, "v": f"{m.value:.2f}", **interval, "d": "; ".join(filter(None, (where, document["d"])))}
    if title == "parameters" and pair.card.parameters and pair.teacher.parameters:
        about = f"from the cards: {pair.teacher.parameters:,} over {pair.card.parameters:,}, classifiers left out"
        return _shown(pair.teacher.parameters / pair.card.parameters, about)
    return None


def _alike(pair: Pair) -> bool:
    return one_family(cifar_name(pair.teacher.architecture), cifar_name(pair.card.architecture))


def _shown(value: float, how: str) -> Document:
    return {"v": f"{value:.2f}", "n": round(value, 6), "d": how}


def _classified(known: list[Pair], datasets: set[str], called: Callable[[str], str]) -> Numbers:
    """Top-1 of the students' own classifiers, by the names of the table."""
    found: Numbers = {}
    for pair in known:
        if pair.dataset not in datasets or pair.logits != "own":
            continue
        cell = pair.cell("agreement", "top1", network="student")
        if cell is None:
            continue
        document = measured(cell, None)
        said = [
            f"{name} {other.value:.2f}"
            for name, other in (
                ("teacher", pair.cell("agreement", "top1", network="teacher")),
                ("plain student", pair.cell("agreement", "top1", network="baseline")),
            )
            if other is not None
        ]
        document["d"] = "; ".join([*said, document["d"]])
        names = called(pair.teacher.architecture), called(pair.card.architecture)
        found.setdefault((pair.student, pair.teacher.name), {})[names, "top1"] = document
    return found


def _transferred(board: Board | None, known: list[Pair]) -> Numbers:
    """Top-1 on the target sets of the students of the pair that the table is of, batch statistics moving as in the
    script that the printed numbers are of; the headline, with frozen ones, where there is no other."""
    targets = {"stl10": "STL-10", "tinyimagenet": "Tiny ImageNet"}
    found: Numbers = {}
    for pair in known:
        names = cifar_name(pair.teacher.architecture), cifar_name(pair.card.architecture)
        if board is None or names != ("W-40-2", "W-16-2"):
            continue
        for column, cells in board.columns.items():
            target = targets.get(column.dataset.partition("[")[0])
            if target and column.protocol == "transfer/dcd@1" and column.metric == "top1" and pair.student in cells:
                place = found.setdefault((pair.student, pair.teacher.name), {})
                mode = cells[pair.student].newest.settings.get("batch_norm")
                if (key := (("CIFAR-100", target), "top1")) in place and mode != "dcd-compat":
                    continue
                place[key] = _by(cells[pair.student], f"batch norm {mode}" if mode else "")
    return found


def _detected(board: Board | None, known: list[Pair]) -> Numbers:
    """Box AP of the students that a record compares with a teacher, whatever that was compared on; by the table's own
    detector where there are several."""
    metrics = {"box_ap": "ap", "box_ap50": "ap50", "box_ap75": "ap75"}
    found: Numbers = {}
    for pair in known:
        names = large_name(pair.teacher.architecture), large_name(pair.card.architecture)
        for column, cells in board.columns.items() if board is not None else ():
            if column.suite == "coco" and column.metric in metrics and pair.student in cells:
                place = found.setdefault((pair.student, pair.teacher.name), {})
                key = names, metrics[column.metric]
                if key not in place or "dcd-fasterrcnn" in column.protocol:
                    place[key] = _by(cells[pair.student])
    return found


def _by(cell: Cell, how: str = "") -> Document:
    """A cell that says its protocol, and ``how`` by it, where the table does not."""
    document = measured(cell, None)
    return {**document, "d": "; ".join(filter(None, (cell.newest.protocol, how, document["d"])))}


def _family_of_pair(pair: tuple[str, ...]) -> str:
    return SAME if pair in printed.SAME_ARCHITECTURE or one_family(*pair) else DIFFERENT


def _wide(
    table: str,
    title: str,
    by: tuple[str, str],
    metrics: list[tuple[str, str]],
    group: Callable[[tuple[str, ...]], str],
    numbers: Numbers,
    note: str,
    *,
    open_: bool = False,
) -> Table:
    """``open_``: a measured pair that is not printed becomes a column, in its group."""
    rows = printed.rows(table)
    found = {(row["method"], *(row[k] for k in by)): row for row in rows}
    columns_of = list(dict.fromkeys(tuple(row[k] for k in by) for row in rows))
    if open_:
        new = dict.fromkeys(pair for cells in numbers.values() for pair, _ in cells if pair not in columns_of)
        columns_of = sorted([*columns_of, *new], key=lambda pair: (group(pair) != SAME, pair in new))
    columns: list[Document] = [{"key": "method", "title": "Method", "group": "", "kind": "text"}]
    for pair in columns_of:
        for metric, called in metrics:
            columns.append(
                {"key": f"{'->'.join(pair)} {metric}", "title": called or " to ".join(pair), "group": group(pair),
                 "kind": "number", "dir": "higher"}
            )  # fmt: skip
    out: list[Document] = []
    for method in dict.fromkeys(row["method"] for row in rows):
        cells: list[Any] = [method]
        for pair in columns_of:
            printed_row = found.get((method, *pair), {"method": method})
            # The audit names a pair, and means its first metric.
            cells += [
                printed_cell(
                    table, printed_row, metric, "->".join(pair) if index == 0 else f"{'->'.join(pair)} {metric}"
                )
                for index, (metric, _) in enumerate(metrics)
            ]
        out.append(
            {"kind": "published", **_BLANK, "cells": cells, "reference": method in {"Teacher", "Student"}}
        )  # fmt: skip
    for (model, teacher), mine in numbers.items():
        cells = [brief(model.name)] + [mine.get((pair, metric)) for pair in columns_of for metric, _ in metrics]
        if any(cells[1:]):
            out.append({"kind": "measured", **_BLANK, "cells": cells, "model": model, "teacher": teacher})
    return {"id": table, "title": title, "note": note, "columns": columns, "rows": out}
