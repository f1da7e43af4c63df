"""Published sets whose archive lists its images in text or JSON files, under ``$BENCH_DATA/<name>``.

Each is read as its archive unpacks. A list that names a file which is not there is no fault of the list: the image is
counted as missing by the extractor when it is asked for, except for Birdsnap, whose images had to be fetched one by one
from links of which many are dead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.data.decoding import EXTENSIONS
from bench.data.files import FileDataset
from bench.data.opening import data_folders, not_found
from bench.dataset import Splits
from bench.errors import BenchError

PER_CLASS = 30
"""Caltech-101: training images of each class."""


class Sample(NamedTuple):
    """One line of a list: the image relative to the set's folder, and its class' name."""

    path: str
    name: str


def at(name: str, rest: str, provide: str, *inside: str) -> Path:
    """The folder of the set ``name``: the first of ``$BENCH_DATA/<name>`` and its sub-folders ``inside`` that is there.

    Raises `BenchError` where none is, saying where it looked and how to ``provide`` it.
    """
    if rest:
        raise BenchError(f"'{name}' is looked up under $BENCH_DATA and takes no path: link $BENCH_DATA/{name} to it")
    looked = [folder / part for folder in data_folders(name) for part in (*inside, "")]
    for folder in looked:
        if folder.is_dir():
            return folder
    raise not_found(name, data_folders(name), f"set $BENCH_DATA and {provide}")


def open_cub(rest: str) -> Splits:
    """Caltech-UCSD Birds 200-2011: images.txt, image_class_labels.txt, classes.txt, train_test_split.txt, images/."""
    root = at("cub", rest, "unpack CUB_200_2011.tgz there (CUB_200_2011/images.txt and images/)", "CUB_200_2011")
    paths, labels, split, classes = (
        dict(_pairs(root / f"{name}.txt")) for name in ("images", "image_class_labels", "train_test_split", "classes")
    )
    if not paths.keys() == labels.keys() == split.keys():
        raise BenchError(
            f"cub: images.txt, image_class_labels.txt and train_test_split.txt of {root} name other images"
        )
    unknown = sorted(set(labels.values()) - classes.keys())
    if unknown:
        raise BenchError(f"cub: {root / 'image_class_labels.txt'} has the class {unknown[0]}, which classes.txt lacks")
    found = {
        mark: [Sample(f"images/{paths[i]}", classes[labels[i]]) for i in paths if split[i] == mark] for mark in "10"
    }
    return _splits("cub", root, found["1"], found["0"], [classes[i] for i in sorted(classes, key=_number)])


def open_sun397(rest: str) -> Splits:
    """SUN397, the first of its ten partitions: SUN397/ and Training_01.txt, Testing_01.txt (beside it or in it)."""
    root = at("sun397", rest, "unpack SUN397.tar.gz and Partitions.zip there (SUN397/ and Training_01.txt)", "SUN397")
    places = [root, root / "Partitions", root.parent, root.parent / "Partitions"]
    found = []
    for name in ("Training_01.txt", "Testing_01.txt"):
        lines = _lines(next((place / name for place in places if (place / name).is_file()), root / name))
        # "/a/abbey/sun_x.jpg": the class is the folder, which may itself have a folder (/c/church/outdoor).
        found.append([Sample(line.lstrip("/"), line.strip("/").rpartition("/")[0]) for line in lines])
    classes = sorted({sample.name for part in found for sample in part})
    return _splits("sun397", root, found[0], found[1], classes)


def open_caltech101(rest: str) -> Splits:
    """Caltech-101: a folder per class in 101_ObjectCategories/, the background among them (102 classes).

    No division is published: of each class the 30 images whose name has the lowest digest are learned from, the rest
    is reported on; the same everywhere.
    """
    root = at(
        "caltech101", rest, "unpack 101_ObjectCategories.tar.gz there", "101_ObjectCategories",
        "caltech-101/101_ObjectCategories", "caltech101/101_ObjectCategories",
    )  # fmt: skip
    train: list[Sample] = []
    test: list[Sample] = []
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for name in classes:
        files = [f"{name}/{e.name}" for e in (root / name).iterdir() if e.suffix.lower() in EXTENSIONS]
        files.sort(key=lambda path: hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest())
        train += [Sample(path, name) for path in files[:PER_CLASS]]
        test += [Sample(path, name) for path in files[PER_CLASS:]]
    return _splits("caltech101", root, sorted(train), sorted(test), classes)


def open_birdsnap(rest: str) -> Splits:
    """Birdsnap: images.txt and test_images.txt as published, images in download/images/ (or images/).

    Images that could not be fetched are left out, in either split.
    """
    root = at(
        "birdsnap", rest, "unpack birdsnap.tgz and fetch its images there (images.txt, download/images/)", "birdsnap"
    )
    folder = next((name for name in ("download/images", "images") if (root / name).is_dir()), None)
    if folder is None:
        raise BenchError(f"birdsnap: {root} has neither download/images/ nor images/: fetch the images there")
    head, *rows = [line.split("\t") for line in _lines(root / "images.txt")]
    if "path" not in head:
        raise BenchError(f"birdsnap: the first line of {root / 'images.txt'} names no column 'path'")
    every = [row[head.index("path")] for row in rows]
    held = set(_lines(root / "test_images.txt")[1:])
    classes = sorted({path.partition("/")[0] for path in every})
    here = [Sample(f"{folder}/{path}", path.partition("/")[0]) for path in every if (root / folder / path).is_file()]
    train = [sample for sample in here if sample.path.removeprefix(f"{folder}/") not in held]
    test = [sample for sample in here if sample.path.removeprefix(f"{folder}/") in held]
    return _splits("birdsnap", root, train, test, classes)


def open_tinyimagenet(rest: str) -> Splits:
    """Tiny ImageNet: wnids.txt, train/<wnid>/images/, val/images/ and val/val_annotations.txt."""
    root = at("tinyimagenet", rest, "unpack tiny-imagenet-200.zip there", "tiny-imagenet-200")
    classes = _lines(root / "wnids.txt")
    train = []
    for name in classes:
        folder = root / "train" / name / "images"
        if not folder.is_dir():
            raise BenchError(
                f"tinyimagenet: {folder} is not there, though wnids.txt names it: unpack the archive again"
            )
        train += [
            Sample(f"train/{name}/images/{entry.name}", name)
            for entry in sorted(folder.iterdir())
            if entry.suffix.lower() in EXTENSIONS
        ]
    rows = [line.split("\t") for line in _lines(root / "val" / "val_annotations.txt")]
    test = [Sample(f"val/images/{row[0]}", row[1]) for row in rows if len(row) > 1]
    return _splits("tinyimagenet", root, train, test, classes, test_split="val")


def open_inat18(rest: str) -> Splits:
    """iNaturalist 2018: train2018.json, val2018.json and train_val2018/; labels are the published category ids."""
    root = at("inat18", rest, "unpack train_val2018.tar.gz, train2018.json and val2018.json there")
    parts = [_inaturalist(root / f"{split}2018.json") for split in ("train", "val")]
    names = dict(sorted({**parts[0][1], **parts[1][1]}.items()))
    sets = []
    for split, (rows, _) in zip(("train", "val"), parts, strict=True):
        lost = [category for _, category in rows if category not in names]
        if lost:
            raise BenchError(f"inat18: {split}2018.json has annotations of category {lost[0]}, which it does not name")
        sets.append(
            FileDataset(
                "inat18", split, root, [path for path, _ in rows], [c for _, c in rows], [*names.values()], [*names]
            )
        )
    return Splits(*sets)


def _inaturalist(path: Path) -> tuple[list[tuple[str, int]], dict[int, str]]:
    """((image, category id) in order of path, category names by id) of one annotation file."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = {image["id"]: str(image["file_name"]) for image in document["images"]}
        rows = sorted((files[a["image_id"]], int(a["category_id"])) for a in document["annotations"])
        names = {int(c["id"]): str(c["name"]) for c in document["categories"]}
    except OSError as error:
        raise BenchError(f"inat18: {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(
            f"inat18: {path} is not the published annotation file ({type(error).__name__}: {error})"
        ) from None
    return rows, names


def _splits(
    name: str,
    root: Path,
    train: Sequence[Sample],
    test: Sequence[Sample],
    classes: Sequence[str],
    test_split: str = "test",
) -> Splits:
    number = {name: index for index, name in enumerate(classes)}
    for sample in (*train, *test):
        if sample.name not in number:
            raise BenchError(
                f"{name}: {sample.path} of {root} belongs to the class '{sample.name}', which is not listed"
            )
    return Splits(
        *(
            FileDataset(name, split, root, [s.path for s in part], [number[s.name] for s in part], classes)
            for split, part in (("train", train), (test_split, test))
        )
    )


def _lines(path: Path) -> list[str]:
    """The lines that are not empty. Raises `BenchError` for a list that cannot be read."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise BenchError(
            f"the list {path} cannot be read ({error.strerror or error}): unpack the archive again"
        ) from None
    except UnicodeDecodeError:
        raise BenchError(f"the list {path} is no text: unpack the archive again") from None


def _pairs(path: Path) -> list[tuple[str, str]]:
    """(key, value) of every line ``key value``."""
    rows = [line.split(maxsplit=1) for line in _lines(path)]
    short = next((row for row in rows if len(row) != 2), None)
    if short is not None:
        raise BenchError(f"{path} has the line '{' '.join(short)[:60]}', where a number and a name are expected")
    return [(key, value) for key, value in rows]


def _number(key: str) -> tuple[int, str]:
    return (int(key), "") if key.isdigit() else (0, key)
