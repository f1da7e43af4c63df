"""``voc07cls``: the classification task of VOC2007, twenty yes-or-no labels an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.data.files import FileDataset
from bench.data.listed import at
from bench.dataset import Splits
from bench.errors import BenchError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def open_voc07cls(rest: str) -> Splits:
    """``$BENCH_DATA/voc07cls`` or ``voc07``: VOCdevkit/VOC2007/, ImageSets/Main/<class>_<split>.txt and JPEGImages/.

    Labels int64 [N, 20]: 1 present, 0 difficult, -1 absent, as the lists have them. Train is trainval, with val marked
    as its validation part; reported on is test.
    Raises `BenchError` for lists that are missing, damaged, or that disagree on the images.
    """
    provide = "unpack VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar there (VOCdevkit/VOC2007/)"
    places = ("VOCdevkit/VOC2007", "VOC2007")
    try:
        root = at("voc07cls", rest, provide, *places)
    except BenchError as refusal:
        try:
            root = at("voc07", rest, provide, *places)
        except BenchError:
            raise refusal from None
    train, labels = _split(root, "trainval")
    test, test_labels = _split(root, "test")
    validation = set(_split(root, "val")[0])
    learned = FileDataset("voc07cls", "trainval", root, _paths(train), labels, CLASSES)
    learned.validation = np.array([name in validation for name in train])
    return Splits(learned, FileDataset("voc07cls", "test", root, _paths(test), test_labels, CLASSES))


def _paths(names: list[str]) -> list[str]:
    return [f"JPEGImages/{name}.jpg" for name in names]


def _split(root: Path, split: str) -> tuple[list[str], np.ndarray]:
    """(image names, labels [N, 20]) of the twenty lists of one split."""
    names: list[str] = []
    columns: list[list[int]] = []
    for cls in CLASSES:
        path = root / "ImageSets" / "Main" / f"{cls}_{split}.txt"
        try:
            rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise BenchError(f"voc07cls: the list {path} cannot be read ({error}): unpack the archive again") from None
        if any(len(row) != 2 or row[1] not in ("-1", "0", "1") for row in rows):
            raise BenchError(f"voc07cls: {path} has a line that is no image name and -1, 0 or 1")
        if columns and [row[0] for row in rows] != names:
            raise BenchError(f"voc07cls: {path} names other images than {CLASSES[0]}_{split}.txt")
        names = [row[0] for row in rows]
        columns.append([int(row[1]) for row in rows])
    return names, np.array(columns, dtype=np.int64).reshape(len(CLASSES), -1).T
