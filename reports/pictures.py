"""The pictures that a record keeps beside itself: drawings, figures, thumbnails of neighbours, a map of the features.

A drawing or figure is an artifact whose name ends in `.png`, `.jpg` or `.svg`. Its caption stands in the details of a
measurement of its suite, ``{"figures": {"curve.svg": "Loss over epochs"}}``, by the name that the suite gave the file.
Files from a ledger may be of any make: what cannot be shown is left out, and nothing of it is ever run.
"""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from bench.errors import BenchError
from reports.vega import Document, spec

if TYPE_CHECKING:
    from bench.ledger import Ledger
    from bench.record import Record

PICTURES = {".png": "PNG", ".jpg": "JPEG"}
DRAWINGS_AT_MOST = 48
"""Pictures on a page."""
LARGEST = 8 * 2**20
"""Bytes of a picture."""
LARGEST_DRAWING = 2**20
"""Bytes of an SVG, which goes into the page itself."""
WIDEST = 12_000
"""Pixels of a picture's longer side."""
COLOURS = 20


class Sample(BaseModel):
    """A thumbnail: which sample, and what it shows."""

    id: str = Field(max_length=200)
    label: str = Field(max_length=200)
    right: bool


class Neighbour(Sample):
    similarity: FiniteFloat


class Query(Sample):
    prediction: str = Field(max_length=200)
    neighbours: list[Neighbour] = Field(max_length=20)


class Neighbours(BaseModel):
    """``neighbours.json``: a row of `neighbours.jpg`'s thumbnails for each query, the query first."""

    tile: int = Field(ge=16, le=256)
    rows: list[Query] = Field(max_length=100)


class Place(Sample):
    x: FiniteFloat
    y: FiniteFloat
    prediction: str = Field(max_length=200)


class Map(BaseModel):
    """``map.json``: samples in the plane."""

    how: str = Field(max_length=500)
    points: list[Place] = Field(max_length=5_000)


@dataclass
class Pictures:
    """What a page shows, and the files that it needs beside it."""

    drawings: list[Document] = field(default_factory=list)
    """``{"source", "caption", "title"}``."""
    neighbours: list[Document] = field(default_factory=list)
    """``{"title", "sheet", "tile", "rows"}``."""
    charts: list[Document] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    """By name relative to the page."""


Of = TypeVar("Of", bound=BaseModel)


def pictures(records: Sequence[Record], ledger: Ledger, folder: str) -> Pictures:
    """Those of a model's records, oldest first; a newer run's picture takes the place of the same of an older one.

    ``folder``: where the page's own files lie, relative to it.
    """
    found, seen = Pictures(), set[str]()
    for record in reversed(records):
        new = {name: path for name, path in _named(record) if name not in seen}
        seen |= set(new)
        for name, path in sorted(new.items(), key=lambda item: _in_order(item[0])):
            stem, _, ending = name.rpartition(".")
            if name.endswith("-neighbours.json"):
                _neighbours(found, record, ledger, name, new, folder)
            elif name.endswith("-map.json"):
                _map(found, record, ledger, stem.removesuffix("-map"), path)
            elif ending == "svg" and f"{stem}.png" in new:
                continue  # The same figure in another form: shown once.
            elif f".{ending}" in (*PICTURES, ".svg") and not name.endswith("-neighbours.jpg"):
                _drawing(found, record, ledger, name, path, folder)
    return found


def _named(record: Record) -> Iterator[tuple[str, str]]:
    """(name, path) of the artifacts that are files; the name is without the run's own folder."""
    for path in record.artifacts:
        if path.endswith((".png", ".jpg", ".svg", ".json")):
            yield path.rpartition("/")[2], path


def _in_order(name: str) -> tuple[Any, ...]:
    """Numbers in names count as numbers: drawn-2 before drawn-10."""
    import re

    return tuple((part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d{1,9})", name))


def _content(record: Record, ledger: Ledger, path: str, most: int) -> bytes | None:
    try:
        return ledger.file(record, path, most)
    except BenchError:  # `bench publish --check` says which.
        return None


def _drawing(found: Pictures, record: Record, ledger: Ledger, name: str, path: str, folder: str) -> None:
    if len(found.drawings) >= DRAWINGS_AT_MOST:
        return
    suite, caption = _caption(record, name)
    about = {"title": suite, "caption": caption}
    if name.endswith(".svg"):
        content = _content(record, ledger, path, LARGEST_DRAWING)
        if content is not None and b"<svg" in content[:4096]:
            # Inside an image element no script of an SVG runs and nothing is loaded.
            coded = base64.b64encode(content).decode()
            found.drawings.append({**about, "source": f"data:image/svg+xml;base64,{coded}"})
        return
    content = _content(record, ledger, path, LARGEST)
    ending = name[-4:]
    if content is not None and _is_picture(content, PICTURES[ending]):
        file = f"{folder}/{len(found.files)}{ending}"
        found.files[file] = content
        found.drawings.append({**about, "source": file})


def _caption(record: Record, name: str) -> tuple[str, str]:
    """(suite, caption) of a picture: the longest name that a measurement's details give a caption for."""
    suites = sorted({m.suite for m in record.measurements}, key=len, reverse=True)
    suite = next((s for s in suites if name.startswith(f"{s}-")), "")
    for m in record.measurements:
        captions = m.details.get("figures")
        if isinstance(captions, dict) and m.suite == suite:
            for short, caption in captions.items():
                if name == f"{suite}-{short}" or (name.endswith(f"-{short}") and name.startswith(f"{suite}-")):
                    return suite, str(caption)[:500]
    return suite, name.rpartition(".")[0].removeprefix(f"{suite}-").replace("-", " ")


def _is_picture(content: bytes, form: str) -> bool:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # A size beyond reason is refused just below.
            with Image.open(io.BytesIO(content), formats=[form]) as image:
                return max(image.size) <= WIDEST
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _neighbours(found: Pictures, record: Record, ledger: Ledger, name: str, files: dict[str, str], folder: str) -> None:
    sheet = name.removesuffix(".json") + ".jpg"
    if sheet not in files:
        return
    document = _document(Neighbours, _content(record, ledger, files[name], LARGEST))
    content = _content(record, ledger, files[sheet], LARGEST)
    if document is None or content is None or not document.rows or not _is_picture(content, "JPEG"):
        return
    file = f"{folder}/{len(found.files)}.jpg"
    found.files[file] = content
    about = {"title": name.removesuffix("-neighbours.json"), "sheet": file, "tile": document.tile}
    found.neighbours.append({**about, "rows": [row.model_dump() for row in document.rows]})


def _map(found: Pictures, record: Record, ledger: Ledger, suite: str, path: str) -> None:
    document = _document(Map, _content(record, ledger, path, LARGEST))
    if document is None or len(document.points) < 2:
        return
    labels = sorted({point.label for point in document.points}, key=_in_order)
    values = [{**p.model_dump(), "what": "right" if p.right else "wrong"} for p in document.points]
    hidden = {"title": None, "axis": {"labels": False, "ticks": False, "grid": False}, "scale": {"zero": False}}
    encoding: Document = {
        "x": {"field": "x", "type": "quantitative", **hidden},
        "y": {"field": "y", "type": "quantitative", **hidden},
        "shape": {"field": "what", "title": "Predicted", "scale": {"domain": ["right", "wrong"],
                                                                   "range": ["circle", "cross"]}},
        "tooltip": [{"field": k, "title": t} for k, t in (("id", "Sample"), ("label", "Class"),
                                                          ("prediction", "Predicted"))],
    }  # fmt: skip
    if len(labels) <= COLOURS:
        legend = {"columns": 4, "labelLimit": 120}
        encoding["color"] = {"field": "label", "title": "Class", "sort": labels, "legend": legend,
                             "scale": {"domain": labels, "scheme": "tableau20"}}  # fmt: skip
    found.charts.append(
        spec(f"{suite}: map of the features", f"{document.how}; a cross was predicted wrongly. Only nearness means "
             f"something: neither axes nor distances between groups do.", height=420, data={"values": values},
             mark={"type": "point", "filled": True, "size": 36, "opacity": 0.85}, encoding=encoding)
    )  # fmt: skip


def _document(form: type[Of], content: bytes | None) -> Of | None:
    try:
        return None if content is None else form.model_validate(json.loads(content))
    except (ValidationError, ValueError, RecursionError):
        return None
