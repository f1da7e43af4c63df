"""The board's tables as plain documents: what the page draws, and what every export says.

A table is ``{"id", "title", "note", "columns", "rows"}``. A column is ``{"key", "title", "group", "kind", "dir"}``; a
row ``{"kind": "published" | "measured", "family", "year", ..., "cells"}``. A text cell is a string; a number is None
(unreported) or an object: ``v`` as shown, ``n`` the number, ``a`` its audit row, ``z`` zero-shot, and for measured ones
``i`` interval, ``d`` details, ``b`` bold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from reports import printed
from reports.board import Board, Cell, Model, Section
from reports.comparable import Column, differences
from reports.distillation import CIFAR100, pairs
from reports.ties import Place, places
from reports.wording import brief, digits

if TYPE_CHECKING:
    from reports.ties import Outcomes

Table = dict[str, Any]
Document = dict[str, Any]

COLUMNS_AT_MOST = 60
"""Columns of a measured table on the board; nobody reads more, and a browser does not draw a thousand."""
SHOWN = 8
"""Columns shown at first of a table without a headline."""
TEXT = ("method", "year", "family", "backbone", "loss", "data")
_TITLES = {
    "method": "Method",
    "year": "Year",
    "family": "Family",
    "backbone": "Backbone",
    "loss": "Loss",
    "data": "Data",
}
SSL = (
    ("in1k_lp", "ImageNet-1k", "LP, paper recipe"),
    ("in1k_lp_uniform", "ImageNet-1k", "LP, uniform"),
    ("in1k_ft", "ImageNet-1k", "FT"),
    ("in1k_knn", "ImageNet-1k", "kNN"),
    ("coco_box", "COCO", "box"),
    ("coco_mask", "COCO", "mask"),
    ("ade_miou", "ADE20K", "mIoU"),
    ("ade_miou_frozen", "ADE20K", "mIoU, frozen"),
    ("voc07_det_map", "VOC 2007", "mAP"),
    ("inat18_lp", "iNat 2018", "LP"),
)
KD = (
    ("cifar100_student", "CIFAR-100", "Student"),
    ("cifar100_teacher", "CIFAR-100", "Teacher"),
    ("cifar100_delta", "CIFAR-100", "Delta"),
    ("glue_avg", "GLUE", "Avg"),
    ("squad11_f1", "SQuAD 1.1", "F1"),
)
ZERO_SHOT = "zeroshot"
"""The suite whose numbers bear the survey's ``*``: nothing was learned from the data set."""
UNIFORM = {"linear/dinov2", "linear/dinov2-cached", "linear/logreg"}
"""One recipe for every network, so that a column of them compares networks; other recipes are each paper's own."""
OTHER_DETECTORS = ("-c4-", "cascade", "fasterrcnn", "frozen")
"""Protocols of COCO whose numbers do not compare with the column's, Mask R-CNN over a pyramid, fine-tuned."""
FAMILIES = {
    "simclr": "contrastive", "moco": "contrastive", "mocov2": "contrastive", "mocov3": "contrastive",
    "byol": "non-contrastive", "simsiam": "non-contrastive", "barlow": "non-contrastive", "vicreg": "non-contrastive",
    "swav": "clustering", "dino": "self-distillation", "ibot": "self-distillation", "dinov2": "self-distillation",
    "mae": "masked modelling", "beit": "masked modelling", "simmim": "masked modelling", "data2vec": "masked modelling",
    "maskfeat": "masked modelling", "clip": "language supervision", "openclip": "language supervision",
    "supervised": "supervised",
    "distilbert": "nlp", "tinybert": "nlp", "mobilebert": "nlp", "minilm": "nlp",
}  # fmt: skip


def survey_key(column: Column) -> str | None:
    """The survey's column that a measured column belongs to, None for most."""
    recipe = column.protocol.partition("+")[0].partition("@")[0]
    wanted = {
        ("knn", "top1", "imagenet"): "in1k_knn" if recipe == "knn/dino" else None,
        ("linear", "top1", "imagenet"): "in1k_lp_uniform" if recipe in UNIFORM else "in1k_lp",
        ("finetune", "top1", "imagenet"): "in1k_ft",
        ("linear", "top1", "inat18"): "inat18_lp",
        ("inat18", "top1", "inat18"): "inat18_lp",
        ("glue", "avg", "glue"): "glue_avg",
        ("squad", "f1", "squad"): "squad11_f1",
    }
    by_data = {
        ("coco", "box_ap"): "coco_box",
        ("coco", "mask_ap"): "coco_mask",
        ("ade20k", "miou"): "ade_miou",
        ("voc07", "box_ap50"): "voc07_det_map",
    }
    data = {"imagenet-1k": "imagenet", "in1k": "imagenet"}.get(column.dataset, column.dataset)
    if column.suite == "coco" and any(word in recipe for word in OTHER_DETECTORS):
        return None
    if (column.suite, column.metric, data) == ("ade20k", "miou", "ade20k") and "linear" in recipe:
        return "ade_miou_frozen"
    return wanted.get((column.suite, column.metric, data)) or by_data.get((data, column.metric))


def zero_shot_key(column: Column) -> str | None:
    """The survey's column in which a measured zero-shot number stands, as the printed ones do, with a ``*``."""
    if (column.suite, column.metric) != (ZERO_SHOT, "top1"):
        return None
    return {"imagenet": "in1k_lp", "imagenet-1k": "in1k_lp", "in1k": "in1k_lp", "inat18": "inat18_lp"}.get(
        column.dataset
    )


def survey(
    table: str, title: str, numbers: Iterable[tuple[str, str, str]], board: Board, outcomes: Outcomes | None
) -> tuple[Table, list[str]]:
    """A survey table with the measured models that have a number in any of its columns, and why others have none."""
    numbers = list(numbers)
    keys = [key for key, _, _ in numbers]
    columns: list[Document] = [{"key": k, "title": k.capitalize(), "group": "", "kind": "text"} for k in TEXT]
    columns[TEXT.index("family")]["hidden"] = True  # The coloured dot and the filter say it.
    columns += [{"key": k, "title": t, "group": g, "kind": "number", "dir": "higher"} for k, g, t in numbers]
    rows: list[Document] = []
    for row in printed.rows(table):
        cells: list[Any] = [row[k] for k in TEXT] + [printed_cell(table, row, k) for k in keys]
        rows.append({"kind": "published", **{k: row[k] for k in TEXT[1:]}, "cells": cells})
    chosen, left_out = _chosen(board, keys)
    standing = {
        key: places(board.columns[column], column.direction == "higher", outcomes) for key, column in chosen.items()
    }
    taught = _taught(board) if table == "kd" else {}
    untaught, not_shown = _chosen(board, keys, zero_shot_key)
    left_out += not_shown
    for model, card in board.cards.items():
        found = {key: board.columns[column][model] for key, column in chosen.items() if model in board.columns[column]}
        found.update(taught.get(model, {}))
        for key, column in untaught.items():
            if key not in found and model in board.columns[column]:
                found[key] = board.columns[column][model]
        if not found:
            continue
        about = [model.name, board.years[model], family_of(card.method), card.architecture, card.method or "", ""]
        about = [brief(text) for text in about]
        cells = about + [measured(found[k], standing.get(k, {}).get(model)) if k in found else None for k in keys]
        rows.append({"kind": "measured", **dict(zip(TEXT[1:], about[1:], strict=True)), "cells": cells, "model": model})
    note = "Percent. * zero-shot. A dash is unreported."
    return {"id": table, "title": title, "note": note, "columns": columns, "rows": rows}, left_out


def _taught(board: Board) -> dict[Model, dict[str, Cell]]:
    """What the classifiers of students and their teachers do on CIFAR-100, by the survey's column."""
    found: dict[Model, dict[str, Cell]] = {}
    for pair in pairs(board):
        # A probe's accuracy is not that of the network that was distilled.
        if pair.dataset in CIFAR100 and pair.logits == "own":
            cells = {
                "cifar100_student": pair.cell("agreement", "top1", network="student"),
                "cifar100_teacher": pair.cell("agreement", "top1", network="teacher"),
                "cifar100_delta": pair.cell("agreement", "gain", over="baseline"),
            }
            found[pair.student] = {key: cell for key, cell in cells.items() if cell is not None}
    return found


def family_of(method: str | None) -> str:
    return FAMILIES.get((method or "").lower().replace(" ", "").replace("-", ""), "other")


def printed_cell(table: str, row: dict[str, str], key: str, column: str | None = None) -> Document | None:
    text = row.get(key, "")
    audit = printed.audit_of(table, row["method"], column or key)
    if not text and audit is None:
        return None
    cell: Document = {"v": text, "n": printed.value_of(text)}
    if text.endswith("*"):
        cell["z"] = 1
    if audit is not None:
        cell["a"] = audit
    return cell


def _chosen(
    board: Board, keys: list[str], key_of: Callable[[Column], str | None] = survey_key
) -> tuple[dict[str, Column], list[str]]:
    """One measured column per survey column: the one with most models, the newest protocol among equals."""
    candidates: dict[str, list[Column]] = {}
    for column, cells in board.columns.items():
        key = key_of(column)
        # Of a suite that reports many settings the survey's column is the headline.
        if key in keys and any(cell.newest.headline for cell in cells.values()):
            candidates.setdefault(str(key), []).append(column)
    chosen, left_out = {}, []
    for key, columns in candidates.items():
        size = {c: len(board.columns[c]) for c in columns}
        best = max(columns, key=lambda c: (size[c], c.protocol, c))
        chosen[key] = best
        left_out += [
            f"{size[c]} of {key.replace('_', ' ')} not comparable with the {size[best]} shown: "
            f"{'; '.join(differences(c, best))}"
            for c in sorted(columns)
            if c != best
        ]
    return chosen, left_out


def measured(cell: Cell, place: Place | None) -> Document:
    """The document of one measured number."""
    m = cell.newest
    at = digits(m.unit)
    said = [f"n {m.n:,}", f"{len(cell.runs)} runs" if len(cell.runs) > 1 else "1 run"]
    if m.seeds:
        said.append("seeds " + ", ".join(map(str, m.seeds[:8])))
    if cell.sd is not None:
        said.append(f"sd {cell.sd:.{at}f}")
    if place is not None:
        rank = str(place.first) if place.first == place.last else f"{place.first} to {place.last}"
        said.append(f"rank {rank}" + (", not distinguishable from the best" if place.tied else ""))
    said += cell.flags
    zero = m.suite == ZERO_SHOT
    shown = f"{cell.value:.{at}f}{'*' if zero else ''}"
    document: Document = {"v": shown, "n": round(cell.value, 6), "d": brief("; ".join(said), 1_000)}
    if zero:
        document["z"] = 1
    if cell.interval is not None:
        document["i"] = f"{cell.interval[0]:.{at}f} to {cell.interval[1]:.{at}f}"
    if place is not None and place.bold:
        document["b"] = 1
    if cell.flags:
        document["f"] = 1
    return document


def section_table(board: Board, section: Section, number: int, outcomes: Outcomes | None, *, everything: bool) -> Table:
    """All that was measured on one data set; without ``everything`` the headline columns alone."""
    wanted = [h for h in section.heads if everything or h.headline] or section.heads
    heads = wanted[:COLUMNS_AT_MOST]
    columns: list[Document] = [
        {"key": "model", "title": "Model", "group": "", "kind": "text"},
        {"key": "architecture", "title": "Architecture", "group": "", "kind": "text"},
        {"key": "parameters", "title": "Parameters, M", "group": "", "kind": "number", "dir": "lower"},
    ]
    # A set without a headline (a teacher's gain in speed) shows its first numbers.
    shown = {h.column for h in heads if h.headline} or {h.column for h in heads[:SHOWN]}
    for h in heads:
        c = h.column
        about = f"{c.protocol}; {c.engine}; feature {c.feature}; selection {c.selection}; {c.precision}; {c.settings}"
        columns.append(
            {"key": brief(f"{c.suite} {c.metric}"), "title": brief(c.metric), "group": brief(h.subtitle),
             "kind": "number", "dir": c.direction, "tip": brief(about, 1_000), "hidden": c not in shown, "unit": c.unit}
        )  # fmt: skip
    standing = {
        h.column: places(board.columns[h.column], h.column.direction == "higher", outcomes if h.headline else None)
        for h in heads
    }
    rows: list[Document] = []
    for model in section.models:
        card = board.cards[model]
        size = {"v": f"{card.parameters / 1e6:.1f}", "n": card.parameters / 1e6} if card.parameters else None
        cells: list[Any] = [brief(model.name), brief(card.architecture), size]
        for h in heads:
            cell = board.columns[h.column].get(model)
            cells.append(measured(cell, standing[h.column].get(model)) if cell else None)
        if any(cells[3:]):
            row = {"kind": "measured", "family": family_of(card.method), "backbone": brief(card.architecture)}
            rows.append({**row, "cells": cells, "model": model})
    for index, column in enumerate(columns):
        _say_once(column, [row["cells"][index] for row in rows if isinstance(row["cells"][index], dict)])
    title = brief(f"{section.dataset} {section.split}")
    note = f"{section.samples:,} samples, fingerprint {section.fingerprint[:19]}. Intervals are 95 %."
    if any(h.column.suite == ZERO_SHOT for h in heads):
        note += " * zero-shot."
    if len(heads) < len(section.heads):
        note += f" {len(section.heads) - len(heads):,} more columns are in leaderboard.csv and on the models' pages."
    return {"id": f"measured-{number}", "title": title, "note": note, "columns": columns, "rows": rows}


def _say_once(column: Document, cells: list[Document]) -> None:
    """What every cell of a column says (n, runs, seeds) belongs to the column: a long board repeats nothing."""
    told = [cell["d"].split("; ") for cell in cells if "d" in cell]
    if len(told) < 2 or "tip" not in column:
        return
    plain = [text for text in told[0] if text.startswith(("n ", "seeds ")) or text.endswith((" run", " runs"))]
    common = [text for text in plain if all(text in each for each in told)]
    for cell, each in zip((cell for cell in cells if "d" in cell), told, strict=True):
        cell["d"] = "; ".join(text for text in each if text not in common)
    if common:
        column["tip"] = f"{'; '.join(common)}\n{column['tip']}"
