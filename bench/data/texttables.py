"""Tables of texts in local files: TSV, CSV, JSON, JSON lines and Parquet, each as rows with named columns."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import BenchError, brief
from bench.files import regular

SUFFIXES = (".tsv", ".csv", ".jsonl", ".json", ".parquet")
_SHARD = re.compile(r"-(\d+)-of-(\d+)(?:-[0-9a-f]+)?$")


class TextTable(NamedTuple):
    """``columns`` name -> values of every row. ``short``: lines left out because they have too few columns."""

    columns: dict[str, list[Any]]
    path: Path
    names: dict[str, list[str]]
    """Class names by column, where a Parquet file says them."""
    short: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def files_of(folder: Path, split: str) -> list[Path]:
    """The files of ``split`` in ``folder`` (or its ``data``): ``train.tsv``, or every one of ``train-*-of-*.parquet``.

    Raises `BenchError` when some of the numbered ones are missing, or when two forms of one split lie side by side.
    """
    for place in (folder, folder / "data"):
        if not place.is_dir():
            continue
        single = [place / f"{split}{suffix}" for suffix in SUFFIXES if (place / f"{split}{suffix}").is_file()]
        numbered = sorted(
            path
            for path in place.iterdir()
            if path.suffix in SUFFIXES and _SHARD.search(path.stem) and _SHARD.sub("", path.stem) == split
        )
        if len(single) > 1 or (single and numbered):
            names = ", ".join(path.name for path in [*single, *numbered][:4])
            raise BenchError(f"{place} holds the split '{split}' more than once ({names}): leave one of them there")
        if single:
            return single
        if numbered:
            totals = {int(_SHARD.search(path.stem)[2]) for path in numbered}  # type: ignore[index]
            if totals != {len(numbered)}:
                raise BenchError(
                    f"{len(numbered)} files of the split '{split}' are in {place}, and they speak of "
                    f"{max(totals)}: provide the others"
                )
            return numbered
    return []


def read_table(paths: Sequence[Path], header: Sequence[str] | None = None, *, lenient: bool = False) -> TextTable:
    """The rows of ``paths``, one after the other. ``header``: the columns of TSV files that have no first line.

    A TSV is never quoted: a line is a row, a tab ends a field, as in GLUE's files; a CSV is quoted as usual. With
    ``lenient`` lines with too few fields are left out and counted, otherwise they are refused.
    """
    tables = [_read(path, header, lenient) for path in paths]
    first = tables[0]
    for other in tables[1:]:
        if list(other.columns) != list(first.columns):
            raise BenchError(f"{other.path} has other columns than {first.path.name}: they are not of one split")
    joined = {name: [value for table in tables for value in table.columns[name]] for name in first.columns}
    return TextTable(joined, first.path, first.names, sum(table.short for table in tables))


def _read(path: Path, header: Sequence[str] | None, lenient: bool) -> TextTable:
    regular(path)
    suffix = path.suffix
    if suffix == ".parquet":
        return _parquet(path)
    if suffix in (".json", ".jsonl"):
        return _json(path)
    return _separated(path, header if suffix == ".tsv" else None, lenient)


def _separated(path: Path, header: Sequence[str] | None, lenient: bool) -> TextTable:
    rows: list[list[str]]
    with open(path, encoding="utf-8-sig", newline="") as stream:
        if path.suffix == ".tsv":
            # Only \n and \r\n end a line: a text may hold any of Unicode's other separators.
            rows = [line.rstrip("\r").split("\t") for line in stream.read().split("\n")]
            if rows and rows[-1] == [""]:
                rows.pop()
        else:
            csv.field_size_limit(min(sys.maxsize, 1 << 30))
            try:
                rows = list(csv.reader(stream))
            except csv.Error as error:
                raise BenchError(f"{path} is no readable CSV: {error}") from None
    names = list(header) if header is not None else (rows.pop(0) if rows else [])
    if len(set(names)) < len(names) or not names:
        raise BenchError(f"{path} has no first line of distinct column names: {brief(', '.join(names))}")
    whole, short = [], 0
    for number, row in enumerate(rows, 1 if header is not None else 2):
        if len(row) < len(names) and lenient:
            short += 1
            continue
        if len(row) != len(names) and not (lenient and len(row) > len(names)):
            raise BenchError(f"{path} line {number} has {len(row)} fields, and its columns are {len(names)}: mend it")
        whole.append(row)
    columns = {name: [row[at] for row in whole] for at, name in enumerate(names)}
    return TextTable(columns, path, {}, short)


def _json(path: Path) -> TextTable:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            rows = json.loads(text)
            if isinstance(rows, dict) and isinstance(rows.get("data"), list):
                rows = rows["data"]
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise BenchError(f"{path} is no readable JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BenchError(f"{path} is no list of objects, one a sample")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return TextTable({name: [row.get(name) for row in rows] for name in names}, path, {})


def _parquet(path: Path) -> TextTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise BenchError(f"{path} is no readable Parquet: {str(error).partition(chr(10))[0]}") from None
    names: dict[str, list[str]] = {}
    try:
        said = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        for name, feature in said.get("info", {}).get("features", {}).items():
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
                names[name] = [str(one) for one in feature.get("names", [])]
    except (ValueError, AttributeError, TypeError):
        names = {}
    return TextTable({name: table.column(name).to_pylist() for name in table.column_names}, path, names)
