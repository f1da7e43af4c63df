"""``segfolder:PATH``: images and a mask of class numbers for each; and ADE20K by name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from PIL import Image

from bench.data.decoding import EXTENSIONS
from bench.data.digests import file_digests
from bench.data.files import FileDataset
from bench.data.imagefolder import TEST, TRAIN
from bench.data.opening import data_folders, not_found
from bench.dataset import Splits, fingerprint_of
from bench.errors import BenchError
from bench.files import regular
from bench.progress import watched

VOID = -1
"""The label of pixels that count nowhere."""
ADE_CLASSES = 150


class SegmentationDataset(FileDataset):
    """One split. ``labels`` says nothing of the images (int64 [N, 1] of zeros); `mask` is what there is to learn."""

    def __init__(
        self,
        name: str,
        split: str,
        root: Path,
        paths: Sequence[str],
        masks: Sequence[str],
        classes: Sequence[str],
        *,
        ignore: int = 255,
        reduce_zero_label: bool = False,
    ) -> None:
        super().__init__(name, split, root, paths, np.zeros((len(paths), 1), dtype=np.int64), classes)
        self._masks = list(masks)
        self.ignore = ignore
        self.reduce_zero_label = reduce_zero_label

    def mask(self, index: int) -> np.ndarray:
        """int32 [H, W]: class numbers from 0, `VOID` where nothing counts.

        Raises `BenchError` for a mask that is no image of numbers, has another size than its image, or holds a label
        beyond the classes.
        """
        file = self.root / self._masks[index]
        labels = read_mask(file)
        width, height = self._size(index)
        if (height, width) != labels.shape:
            raise BenchError(
                f"the mask {file} has {labels.shape[1]}x{labels.shape[0]} pixels, and its image "
                f"{width}x{height}: make them alike"
            )
        void = labels == self.ignore
        if self.reduce_zero_label:
            void |= labels == 0
            labels = labels - 1
        labels = np.where(void, VOID, labels)
        if (highest := int(labels.max(initial=VOID))) >= len(self.classes):
            raise BenchError(
                f"the mask {file} holds the label {highest + self.reduce_zero_label}, and there are "
                f"{len(self.classes)} classes{' after the dropped label 0' if self.reduce_zero_label else ' from 0'}: "
                f"mend it, or name more classes"
            )
        return labels

    def _size(self, index: int) -> tuple[int, int]:
        path = self.root / self._paths[index]
        try:
            regular(path)
            with Image.open(path) as image:
                size: tuple[int, int] = image.size
                return size
        except (OSError, ValueError, SyntaxError) as error:
            raise BenchError(f"the image {path} cannot be read ({error}): mend it, or remove it and its mask") from None

    def check(self) -> None:
        """Look at every mask: a bad one must not cost hours of training first. Raises `BenchError`."""
        with watched().stage(f"masks {self.split}", len(self), "masks") as stage:
            for index in range(len(self)):
                self.mask(index)
                stage.advance()

    @cached_property
    def fingerprint(self) -> str:
        rule = json.dumps([self.classes, self.ignore, self.reduce_zero_label]).encode()
        pairs = zip(file_digests(self.root, self._paths), file_digests(self.root, self._masks), strict=True)
        return fingerprint_of((hashlib.sha256(image + mask + rule).digest(), -1) for image, mask in pairs)

    def _take(self, indices: np.ndarray) -> None:
        super()._take(indices)
        self._masks = [self._masks[i] for i in indices]


def read_mask(file: Path) -> np.ndarray:
    """int32 [H, W]: the numbers of a mask (gray of 8 or 16 bits, or a palette, whose indices count)."""
    try:
        regular(file)
        with Image.open(file) as image:
            if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
                raise BenchError(f"the mask {file} has colours ({image.mode}): a mask holds one class number a pixel")
            return np.asarray(image).astype(np.int32)
    except (OSError, ValueError, SyntaxError) as error:
        raise BenchError(f"the mask {file} cannot be read ({error}): write it again") from None


def open_segfolder(rest: str) -> Splits:
    """``images/<split>/`` and ``masks/<split>/`` with equal stems; splits as `imagefolder:` names them.

    ``classes.txt`` beside them names the classes, one a line; without it they are all numbers up to the highest.
    Options after a question mark: ``classes=N``, ``ignore=255`` (the label that counts nowhere), and
    ``reduce_zero_label=1`` (label 0 counts nowhere, class 1 becomes 0).
    Raises `BenchError` for an image without a mask or a mask without an image, and for an empty split.
    """
    path, options = _options(rest)
    if not path:
        raise BenchError("segfolder needs a path: --data segfolder:/data/mine")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise BenchError(f"segfolder: {root} is {'not a folder' if root.exists() else 'not there'}")
    names = {entry.name for entry in os.scandir(root / "images")} if (root / "images").is_dir() else set()
    train = next((name for name in TRAIN if name in names), None)
    test = next((name for name in TEST if name in names), None)
    if not train or not test:
        raise BenchError(f"segfolder: {root / 'images'} has no train/ and val/ (or test/): give both splits")
    return _open("segfolder", root.resolve().name, root, (train, test), ("images", "masks"), options)


def open_ade20k(rest: str) -> Splits:
    """``images/training``, ``images/validation`` and ``annotations/...`` as published (ADEChallengeData2016).

    150 classes; label 0 counts nowhere. Without a path: ``$BENCH_DATA/ade20k``.
    """
    path, options = _options(rest)
    looked = [Path(path).expanduser()] if path else data_folders("ade20k")
    for folder in [inner for outer in looked for inner in (outer, outer / "ADEChallengeData2016")]:
        if (folder / "images" / "training").is_dir():
            fixed = {"classes": ADE_CLASSES, "ignore": 255, "reduce_zero_label": 1} | options
            return _open("ade20k", "ade20k", folder, ("training", "validation"), ("images", "annotations"), fixed)
    provide = "set $BENCH_DATA and put images/ and annotations/ of ADEChallengeData2016 there"
    raise not_found("ade20k", looked, f"{provide}, or give the folder with --data ade20k:PATH")


def _options(rest: str) -> tuple[str, dict[str, int]]:
    path, _, query = rest.partition("?")
    found: dict[str, int] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in ("classes", "ignore", "reduce_zero_label") or not value.isdecimal() or len(value) > 6:
            raise BenchError(
                f"'?{key}={value}' says nothing here: classes, ignore and reduce_zero_label take whole numbers"
            )
        found[key] = int(value)
    if found.get("classes") == 0:
        raise BenchError("'?classes=0' leaves nothing to tell apart: give the number of classes")
    return path, found


def _open(
    kind: str, name: str, root: Path, splits: tuple[str, str], folders: tuple[str, str], options: dict[str, int]
) -> Splits:
    rule: dict[str, Any] = {
        "ignore": options.get("ignore", 255),
        "reduce_zero_label": bool(options.get("reduce_zero_label", 0)),
    }
    pairs = [_pairs(kind, root, split, folders) for split in splits]
    classes = _named(root, options)
    if classes is None:
        highest = max(_labels(root, [mask for found in pairs for _, mask in found], rule["ignore"]), default=0)
        classes = [str(number) for number in range(highest + 1)][int(rule["reduce_zero_label"]) :]
        if not classes:
            raise BenchError(f"{kind}: the masks under {root} hold no class: nothing can be told apart")
    train, test = (
        SegmentationDataset(name, split, root, [i for i, _ in found], [m for _, m in found], classes, **rule)
        for split, found in zip(splits, pairs, strict=True)
    )
    return Splits(train, test)


def _named(root: Path, options: dict[str, int]) -> list[str] | None:
    file = root / "classes.txt"
    names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    names = [name for name in names if name]
    count = options.get("classes")
    if names and count is not None and len(names) != count:
        raise BenchError(f"{file} names {len(names)} classes, and ?classes={count} says otherwise: make them agree")
    if names:
        return names
    return [str(number) for number in range(count)] if count is not None else None


def _labels(root: Path, masks: Sequence[str], ignore: int) -> Iterator[int]:
    """The highest label of each mask, the ignored one left out."""
    with watched().stage("classes", len(masks), "masks") as stage:
        for name in masks:
            labels = read_mask(root / name)
            yield int(labels[labels != ignore].max(initial=0))
            stage.advance()


def _pairs(kind: str, root: Path, split: str, folders: tuple[str, str]) -> list[tuple[str, str]]:
    """(image, mask) of equal stems, both relative to ``root``, in order of code point."""
    images, masks = ({_stem(name): name for name in _files(root, f"{folder}/{split}")} for folder in folders)
    if not images:
        raise BenchError(f"{kind}: {root / folders[0] / split} holds no images: the split is empty")
    for some, others, what in ((images, masks, "mask"), (masks, images, "image")):
        if lonely := sorted(set(some) - set(others)):
            place = root / folders[what == "mask"] / split
            raise BenchError(
                f"{kind}: {len(lonely)} of {len(some)} in {split} have no {what}, first {some[lonely[0]]}: "
                f"put {Path(lonely[0]).name}.* into {place}, or take it away"
            )
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def _stem(name: str) -> str:
    return Path(*Path(name).parts[2:]).with_suffix("").as_posix()


def _files(root: Path, folder: str) -> list[str]:
    """Image files under ``root/folder``, relative to ``root``; two of one stem are refused."""
    found: dict[str, str] = {}
    for place, _, names in os.walk(root / folder, followlinks=True):
        for name in sorted(names):
            if Path(name).suffix.lower() not in EXTENSIONS or name.startswith("."):
                continue
            relative = (Path(place) / name).relative_to(root).as_posix()
            if (other := found.setdefault(_stem(relative), relative)) != relative:
                raise BenchError(f"{root}: {other} and {relative} have one stem: a mask would belong to both")
    return sorted(found.values())
