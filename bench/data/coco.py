"""``coco:PATH``: instances in COCO's JSON, with polygons, run lengths and crowds; and the published set by name."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from bench.data.instances import Checked, DetectionDataset, Instances, instances_from
from bench.data.opening import data_folders, not_found
from bench.dataset import Splits
from bench.errors import BenchError

SPLITS = (("train2017", "val2017"), ("train", "val"))
"""Names of the two splits, as the annotation files have them: published, and anybody's."""


def open_coco(rest: str) -> Splits:
    """``annotations/instances_<split>.json`` and the images, relative to ``<split>/``, ``images/<split>/``,
    ``images/`` or PATH.

    The splits are train2017 and val2017, or train and val. Category numbers may have gaps; images without annotations
    are part of the set (nothing is to be found there). Without a path: ``$BENCH_DATA/coco``.
    Raises `BenchError` for files that are not there, for JSON that is none or lacks what COCO's has, and for
    annotations that cannot be right.
    """
    if not rest:
        looked = data_folders("coco")
        folder = next((path for path in looked if path.is_dir()), None)
        if folder is None:
            provide = "put train2017/, val2017/ and annotations/ there, or give any folder with --data coco:PATH"
            raise not_found("coco", looked, f"set $BENCH_DATA and {provide}")
        return _open(folder, "coco")
    root = Path(rest).expanduser()
    if not root.is_dir():
        raise BenchError(f"coco: {root} is {'not a folder' if root.exists() else 'not there'}")
    return _open(root, root.resolve().name)


def _open(root: Path, name: str) -> Splits:
    folder = root / "annotations"
    for pair in SPLITS:
        files = [folder / f"instances_{split}.json" for split in pair]
        there = [file for file in files if file.is_file()]
        if len(there) == 2:
            documents = [_document(file) for file in files]
            classes = _classes(documents, files)
            train, test = (
                _split(root, name, split, file, document, classes)
                for split, file, document in zip(pair, files, documents, strict=True)
            )
            return Splits(train, test)
        if there:
            missing = next(file for file in files if file not in there)
            raise BenchError(f"coco: {there[0]} is there and {missing} is not: both splits are needed")
    raise BenchError(
        f"coco: {folder} has neither instances_train2017.json and instances_val2017.json nor instances_train.json and "
        f"instances_val.json: put the annotations of both splits there"
    )


def _document(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        document: dict[str, list[dict[str, Any]]] = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BenchError(f"coco: {file} is not JSON ({error}): write it again") from None
    for key in ("images", "annotations", "categories"):
        rows = document.get(key) if isinstance(document, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise BenchError(
                f"coco: {file} has no list '{key}' of objects: it is no instance annotation of COCO's form"
            )
    return document


def _classes(documents: Sequence[dict[str, Any]], files: Sequence[Path]) -> dict[int, str]:
    """Category number -> name over both splits, ascending."""
    found: dict[int, str] = {}
    for document, file in zip(documents, files, strict=True):
        for row in document["categories"]:
            number, name = _number(row, "id", f"coco: a category of {file}"), str(row.get("name", row.get("id")))
            if found.setdefault(number, name) != name:
                raise BenchError(f"coco: category {number} is '{found[number]}' and '{name}' (in {file}): choose one")
    if not found:
        raise BenchError(f"coco: {files[0]} has no categories: there is nothing to detect")
    return dict(sorted(found.items()))


def _split(
    root: Path, name: str, split: str, file: Path, document: dict[str, Any], classes: dict[int, str]
) -> DetectionDataset:
    where = f"coco: {file}"
    images: dict[int, dict[str, Any]] = {}
    for row in document["images"]:
        number = _number(row, "id", f"{where}: an image")
        if number in images:
            raise BenchError(f"{where}: two images have the id {number}: give each its own")
        images[number] = row
    if not images:
        raise BenchError(f"{where} lists no images: the split is empty")
    paths = {number: _path(row, number, where) for number, row in images.items()}
    sizes = {n: (_number(row, "height", f"{where}: image {n}"), _number(row, "width", f"{where}: image {n}"))
             for n, row in images.items()}  # fmt: skip
    folder = _images(root, split, list(paths.values()), where)
    position = {number: index for index, number in enumerate(classes)}
    checked = Checked(where)
    grouped: dict[int, list[tuple[Any, ...]]] = {number: [] for number in images}
    seen: set[int] = set()
    for row in document["annotations"]:
        mine = _annotation(row, images, sizes, position, checked)
        if (number := int(row.get("id", -1))) in seen and number >= 0:
            raise BenchError(f"{where}: two annotations have the id {number}: give each its own")
        seen.add(number)
        if mine is not None:
            grouped[row["image_id"]].append(mine)
    flat = checked.judge()
    order = list(images)
    dataset = DetectionDataset(
        name, split, folder, [paths[n] for n in order], [_gathered(grouped[n], sizes[n]) for n in order], classes, order
    )
    dataset.passed_over = flat
    return dataset


def _annotation(
    row: dict[str, Any],
    images: dict[int, dict[str, Any]],
    sizes: dict[int, tuple[int, int]],
    position: dict[int, int],
    checked: Checked,
) -> tuple[Any, ...] | None:
    """(box, label, area, crowd, segment), or None for one without area."""
    where = checked.where
    what = f"annotation {row.get('id', '?')}"
    image = row.get("image_id")
    if image not in images:
        raise BenchError(f"{where}: {what} is of image {image}, which is not listed: list the image or remove it")
    category = row.get("category_id")
    if category not in position:
        raise BenchError(f"{where}: {what} is of category {category}, which is not listed: list it")
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_real(value) for value in box):
        raise BenchError(f"{where}: {what} has no bbox of four numbers (left, top, width, height): give it one")
    crowd = bool(row.get("iscrowd", 0))
    segment = _segment(row.get("segmentation"), sizes[image], f"{where}: {what}")
    if not checked.keep(box, sizes[image], what):
        return None
    area = row.get("area")
    if area is None:
        area = _area(segment, sizes[image]) if segment is not None else box[2] * box[3]
    if not _real(area) or area < 0:
        raise BenchError(f"{where}: {what} has the area {area!r}: give it the number of its pixels")
    return box, position[category], float(area), crowd, segment


def _segment(raw: Any, size: tuple[int, int], what: str) -> Any:
    """Polygons with at least three corners, an RLE dictionary, or None where there is no mask."""
    if raw is None or raw == []:
        return None
    if isinstance(raw, dict):
        counts = raw.get("counts")
        if list(raw.get("size", [])) != list(size) or not isinstance(counts, str | list):
            raise BenchError(f"{what} has run lengths of another size than its image ({size[1]}x{size[0]}): mend it")
        return {"size": list(size), "counts": counts}
    if isinstance(raw, list) and all(isinstance(p, list) and len(p) % 2 == 0 and all(map(_real, p)) for p in raw):
        # Two corners are a line; the published set holds a few, and every engine drops them.
        return [polygon for polygon in raw if len(polygon) >= 6] or None
    raise BenchError(f"{what} has a segmentation that is neither polygons nor run lengths: mend it")


def _area(segment: Any, size: tuple[int, int]) -> float:
    from bench.data.masks import mask_of

    return float(mask_of(segment, size).sum())


def _gathered(rows: list[tuple[Any, ...]], size: tuple[int, int]) -> Instances:
    boxes, labels, areas, crowd, segments = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return instances_from(size, boxes, labels, areas=areas, crowd=crowd, segments=segments)


def _path(row: dict[str, Any], number: int, where: str) -> str:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise BenchError(f"{where}: image {number} has no file_name: give it one")
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise BenchError(f"{where}: the file_name {name!r} of image {number} leads out of the folder: make it relative")
    return name


def _images(root: Path, split: str, names: list[str], where: str) -> Path:
    """The folder that all the images are relative to."""
    places = [root / split, root / "images" / split, root / "images", root]
    folder = next((place for place in places if (place / names[0]).is_file()), None)
    if folder is None:
        looked = ", ".join(str(place) for place in places)
        raise BenchError(f"{where} lists {names[0]}, which is in none of {looked}: put the images there")
    listed = {entry.name for entry in os.scandir(folder)}
    for name in names:
        if name not in listed and not (folder / name).is_file():
            raise BenchError(f"{where} lists {name}, which is not in {folder}: put it there or remove its entry")
    return folder


def _number(row: dict[str, Any], key: str, what: str) -> int:
    value = row.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BenchError(f"{what} has no whole number '{key}': give it one")
    return value


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
