"""``text:PATH``: a folder with a train and a test table of texts and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.data.choices import with_choices
from bench.data.texts import TextDataset
from bench.data.texttables import SUFFIXES, TextTable, files_of, read_table
from bench.dataset import Splits, Text
from bench.errors import BenchError
from bench.files import at_home
from bench.registry import nearest

TEST = ("test", "validation", "val", "dev", "valid")
"""Names of the split that is reported on, the first that is there."""
_FIRST = ("text", "sentence", "text1", "sentence1", "premise", "question1", "question")
_SECOND = ("text2", "sentence2", "hypothesis", "question2")
_LABEL = ("label", "labels", "class", "target")


def open_text(rest: str) -> Splits:
    """``text:FOLDER``: ``train`` and ``test`` (or ``validation``, ``dev``) as TSV, CSV, JSON, JSON lines or Parquet.

    Columns ``text``, ``text2`` (where samples are pairs) and ``label``, or GLUE's usual names for them;
    ``?text=COLUMN&text2=COLUMN&label=COLUMN`` chooses others. Labels are whole numbers or names.
    """
    path, choices = with_choices("text", rest, ("text", "text2", "label"))
    if not path:
        raise BenchError("text needs a folder: --data text:/data/mine with train.tsv and test.tsv (text, label)")
    folder = at_home(path)
    if not folder.is_dir():
        raise BenchError(f"text: there is no folder {folder}")
    tables = []
    for splits in (("train",), TEST):
        found = next(((split, files) for split in splits if (files := files_of(folder, split))), None)
        if found is None:
            raise BenchError(
                f"text: {folder} has no {' or '.join(splits)} table (one of {', '.join(SUFFIXES)}): put one there"
            )
        tables.append((found[0], read_table(found[1])))
    name = folder.resolve().name
    (train_name, train), (test_name, test) = tables
    train_texts, train_labels = _content(train, choices)
    test_texts, test_labels = _content(test, choices)
    kinds = [{one.second is None for one in found} for found in (train_texts, test_texts)]
    if all(kinds) and kinds[0] != kinds[1]:
        raise BenchError(f"text: of {folder}, one split has pairs of texts and the other single ones")
    classes, ids, numbers = class_numbers([train_labels, test_labels], _stated(train, choices), (train, test))
    return Splits(
        TextDataset(name, train_name, train_texts, numbers[0], classes, ids),
        TextDataset(name, test_name, test_texts, numbers[1], classes, ids),
    )


def column(table: TextTable, wanted: str | None, usual: Sequence[str], what: str) -> list[Any]:
    """The values of a column by the name asked for, else by the first of the usual ones that is there."""
    if wanted is not None:
        if wanted not in table.columns:
            raise BenchError(f"{table.path} has no column '{wanted}'{nearest(wanted, list(table.columns))}")
        return table.columns[wanted]
    found = next((name for name in usual if name in table.columns), None)
    if found is None:
        raise BenchError(
            f"{table.path} has no column for the {what} ({', '.join(usual)}); its columns are "
            f"{', '.join(list(table.columns)[:12])}: choose one with ?{what}=COLUMN"
        )
    return table.columns[found]


def texts(values: Sequence[Any], table: TextTable) -> list[str]:
    """The values as texts; refused where one is none."""
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise BenchError(f"{table.path}: row {row} (from 0) has {value!r:.40} where a text is expected")
    return list(values)


def class_numbers(
    columns: Sequence[Sequence[Any]], stated: Sequence[str] | None, tables: Sequence[TextTable]
) -> tuple[tuple[str, ...], tuple[int, ...], list[list[int]]]:
    """(class names, class numbers, labels of every column as numbers): whole numbers stay, names are numbered in order.

    Raises `BenchError` for a label that is missing, hidden (-1), or of another kind than the rest.
    """
    given = [value for one in columns for value in one if value is not None and value != ""]
    whole = all(_whole(value) is not None for value in given)
    for one, table in zip(columns, tables, strict=True):
        if not whole and one and all(_whole(value) is not None for value in one):
            raise BenchError(f"{table.path} has numbers for labels, and the other split has names: give one of the two")
    for one, table in zip(columns, tables, strict=True):
        for row, value in enumerate(one):
            if value is None or value == "" or (whole and _whole(value) == -1):
                raise BenchError(f"{table.path}: row {row} (from 0) has no label: a set without labels judges nothing")
            if not whole and not isinstance(value, str):
                raise BenchError(f"{table.path}: row {row} (from 0) has the label {value!r:.40}: give numbers or names")
    if whole:
        numbers = [[int(_whole(value)) for value in one] for one in columns]  # type: ignore[arg-type]
        ids = tuple(sorted({label for one in numbers for label in one}))
        if stated and all(0 <= label < len(stated) for label in ids):
            return tuple(stated), tuple(range(len(stated))), numbers
        return tuple(str(label) for label in ids), ids, numbers
    names = sorted(set(given))
    where = {name: number for number, name in enumerate(names)}
    return tuple(names), tuple(range(len(names))), [[where[value] for value in one] for one in columns]


def _content(table: TextTable, choices: dict[str, str]) -> tuple[list[Text], list[Any]]:
    first = texts(column(table, choices.get("text"), _FIRST, "text"), table)
    second: list[str] | None = None
    if "text2" in choices or any(name in table.columns for name in _SECOND):
        second = texts(column(table, choices.get("text2"), _SECOND, "text2"), table)
    labels = column(table, choices.get("label"), _LABEL, "label")
    samples = (
        [Text(one) for one in first] if second is None else [Text(*pair) for pair in zip(first, second, strict=True)]
    )
    return samples, list(labels)


def _stated(table: TextTable, choices: dict[str, str]) -> list[str] | None:
    name = choices.get("label") or next((one for one in _LABEL if one in table.columns), "")
    return table.names.get(name)


def _whole(value: Any) -> int | None:
    """``value`` as a whole number, None when it is none."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return int(value) if isinstance(value, float) and value.is_integer() else None
