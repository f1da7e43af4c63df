"""``glue:TASK``: the nine tasks of GLUE in the layout of its own archive, or as Hugging Face stores them.

The archive's TSV files have columns of their own in every task, no first line in CoLA, and lines in QQP that lack
fields, which the published readers leave out. The test labels are private: what is reported on is the development set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.data.opening import data_folders, not_found
from bench.data.textfolder import column, texts
from bench.data.texts import TextDataset
from bench.data.texttables import TextTable, files_of, read_table
from bench.dataset import Splits, Text
from bench.errors import BenchError
from bench.files import at_home
from bench.registry import nearest

_ENTAILED = ("entailment", "not_entailment")


class Task(NamedTuple):
    """One task: where it lies in the archive, its columns, and its classes in the order of their numbers."""

    folder: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    label: tuple[str, ...]
    classes: tuple[str, ...]
    """Empty where what is learned is a number."""
    header: tuple[str, ...] | None = None
    """Columns of the archive's files that have no first line."""


TASKS = {
    "cola": Task("CoLA", ("sentence",), (), ("label",), ("unacceptable", "acceptable"),
                 ("source", "label", "mark", "sentence")),
    "sst2": Task("SST-2", ("sentence",), (), ("label",), ("negative", "positive")),
    "mrpc": Task("MRPC", ("#1 String", "sentence1"), ("#2 String", "sentence2"), ("Quality", "label"),
                 ("not_equivalent", "equivalent")),
    "stsb": Task("STS-B", ("sentence1",), ("sentence2",), ("score", "label"), ()),
    "qqp": Task("QQP", ("question1",), ("question2",), ("is_duplicate", "label"), ("not_duplicate", "duplicate")),
    "mnli": Task("MNLI", ("sentence1", "premise"), ("sentence2", "hypothesis"), ("gold_label", "label"),
                 ("entailment", "neutral", "contradiction")),
    "qnli": Task("QNLI", ("question",), ("sentence",), ("label",), _ENTAILED),
    "rte": Task("RTE", ("sentence1",), ("sentence2",), ("label",), _ENTAILED),
    "wnli": Task("WNLI", ("sentence1",), ("sentence2",), ("label",), ("not_entailment", "entailment")),
}  # fmt: skip
_PARTS = {"mnli": ("matched",), "mnli-mm": ("mismatched",), "mnli-both": ("matched", "mismatched")}
"""Which development sets of MNLI; the ids of ``mnli-both`` begin with their names."""
_MOST_SHORT = 1e-3
"""Share of QQP's lines that may lack fields."""


def open_glue(rest: str) -> Splits:
    """``glue:rte`` (``$BENCH_DATA/glue/RTE``), ``glue:rte@PATH`` (GLUE's folder, or the task's).

    ``glue:mnli`` reports on the matched development set, ``glue:mnli-mm`` on the other, ``glue:mnli-both`` on both.
    STS-B has `TextDataset.targets` (0 to 5) and no classes.
    """
    name, _, place = rest.partition("@")
    key = "mnli" if name in _PARTS else name
    if key not in TASKS:
        names = [*TASKS, *_PARTS]
        raise BenchError(f"GLUE has no task '{name[:40]}'{nearest(name, names)}; write glue:rte or glue:rte@FOLDER")
    task = TASKS[key]
    folder = _folder(name, task, key, place)
    train = _split(folder, task, key, ("train",), "train")
    parts = [_split(folder, task, key, _names(part), _names(part)[0]) for part in _PARTS.get(name, ("",))]
    return Splits(_dataset(name, key, "train", task, [("", train)]), _dataset(name, key, "dev", task, [
        (f"{part}/" if len(parts) > 1 else "", table)
        for part, table in zip(_PARTS.get(name, ("",)), parts, strict=True)
    ]))  # fmt: skip


def _names(part: str) -> tuple[str, ...]:
    return (f"dev_{part}", f"validation_{part}") if part else ("dev", "validation")


def _folder(name: str, task: Task, key: str, place: str) -> Path:
    roots = [at_home(place)] if place else data_folders("glue")
    looked = [folder for root in roots for folder in (root / task.folder, root / key, *([root] if place else []))]
    for folder in looked:
        if folder.is_dir() and files_of(folder, "train"):
            return folder
    raise not_found(
        f"glue:{name}", looked,
        f"put its train and dev tables there (GLUE's {task.folder}/train.tsv and dev.tsv, or Hugging Face's Parquet "
        f"files), or give a folder with --data glue:{name}@FOLDER",
    )  # fmt: skip


def _split(folder: Path, task: Task, key: str, names: Sequence[str], called: str) -> TextTable:
    for name in names:
        files = files_of(folder, name)
        if files:
            table = read_table(files, task.header, lenient=key == "qqp")
            if table.short > _MOST_SHORT * (len(table) + table.short) and table.short > 3:
                raise BenchError(f"{table.path}: {table.short} lines lack fields, more than published: get it again")
            return table
    raise BenchError(f"{folder} has no table {called} (or {names[-1]}): put {called}.tsv there")


def _dataset(name: str, key: str, split: str, task: Task, tables: Sequence[tuple[str, TextTable]]) -> TextDataset:
    samples: list[Text] = []
    ids: list[str] = []
    labels: list[Any] = []
    for part, table in tables:
        first = texts(column(table, None, task.first, "text"), table)
        if task.second:
            second = texts(column(table, None, task.second, "text2"), table)
            samples += [Text(*pair) for pair in zip(first, second, strict=True)]
        else:
            samples += [Text(one) for one in first]
        ids += [f"{part}{split}/{row}" for row in range(len(first))]
        values = column(table, None, task.label, "label")
        read = _number if not task.classes else _class
        labels += [read(value, task.classes, table, row) for row, value in enumerate(values)]
    called = "glue-" + name
    if not task.classes:
        # No class says anything of them; what there is to learn is the number.
        nothing = np.zeros((len(samples), 1), dtype=np.int64)
        targets = np.array(labels, dtype=np.float64)
        return TextDataset(called, split, samples, nothing, ("score",), ids=ids, targets=targets)
    return TextDataset(called, split, samples, labels, task.classes, ids=ids)


def _class(value: Any, classes: tuple[str, ...], table: TextTable, row: int) -> int:
    """The number of a class that is written as its name or its number."""
    text = str(value).strip()
    if text in classes:
        return classes.index(text)
    if text in {str(number) for number in range(len(classes))}:
        return int(text)
    hidden = (
        " (labels of GLUE's test sets are private: give the development set)" if text in ("-1", "None", "-") else ""
    )
    raise BenchError(
        f"{table.path}: row {row} (from 0) has the label {text[:40]!r}, none of {', '.join(classes)}{hidden}"
    )


def _number(value: Any, classes: tuple[str, ...], table: TextTable, row: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 5:
        raise BenchError(f"{table.path}: row {row} (from 0) has the score {str(value)[:40]!r}, which is none of 0 to 5")
    return number
