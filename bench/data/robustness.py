"""ImageNet's shifted test sets, each beside ImageNet's training split and in its class numbers.

``imagenet-a``, ``-r``, ``-sketch``, ``-v2``, ``-real`` and ``imagenet-c:CORRUPTION-SEVERITY``. Classes are found by
the WordNet ids that the folders are named after, so a set of 200 classes says itself which 200.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench.data.files import FileDataset
from bench.data.imagefolder import class_images
from bench.data.listed import at
from bench.data.named import open_imagenet
from bench.dataset import Dataset, Splits
from bench.errors import BenchError
from bench.registry import nearest

CORRUPTIONS = {
    "gaussian_noise": "noise", "shot_noise": "noise", "impulse_noise": "noise", "defocus_blur": "blur",
    "glass_blur": "blur", "motion_blur": "blur", "zoom_blur": "blur", "snow": "weather", "frost": "weather",
    "fog": "weather", "brightness": "weather", "contrast": "digital", "elastic_transform": "digital",
    "pixelate": "digital", "jpeg_compression": "digital",
}  # fmt: skip
"""The fifteen corruptions of ImageNet-C and the archive of each."""
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Its four further ones, which mCE leaves out."""
SEVERITIES = (1, 2, 3, 4, 5)


def _shifted(name: str, *inside: str) -> Callable[[str], Splits]:
    def open_shifted(rest: str) -> Splits:
        root = at(name, rest, "unpack its class folders there", *inside)
        return _beside_imagenet(name, "test", root)

    return open_shifted


open_imagenet_a = _shifted("imagenet-a", "imagenet-a")
open_imagenet_r = _shifted("imagenet-r", "imagenet-r")
open_imagenet_sketch = _shifted("imagenet-sketch", "sketch")
open_imagenet_v2 = _shifted("imagenet-v2", "imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency")


def open_imagenet_c(rest: str) -> Splits:
    """``imagenet-c:gaussian_noise-3``: ``$BENCH_DATA/imagenet-c/gaussian_noise/3/`` (or under ``noise/``, its archive).

    Raises `BenchError` for a corruption or severity that ImageNet-C has not, and for folders that are not there.
    """
    corruption, _, severity = rest.rpartition("-")
    known = (*CORRUPTIONS, *EXTRA)
    if corruption not in known or severity not in map(str, SEVERITIES):
        raise BenchError(
            f"imagenet-c: '{rest[:80]}' is no corruption with a severity: write imagenet-c:gaussian_noise-3, "
            f"severities 1 to 5{nearest(corruption or rest, list(known))}"
        )
    root = at("imagenet-c", "", "unpack ImageNet-C there (gaussian_noise/1/ ... jpeg_compression/5/)")
    archive = CORRUPTIONS.get(corruption, "extra")
    places = [root / corruption / severity, root / archive / corruption / severity]
    for place in places:
        if place.is_dir():
            return _beside_imagenet(f"imagenet-c-{corruption}-{severity}", "val", place)
    raise BenchError(
        f"imagenet-c: there is no {places[0]}/ (nor {places[1]}/): unpack {archive}.tar of ImageNet-C there"
    )


def open_imagenet_real(rest: str) -> Splits:
    """ImageNet's validation images with ReaL's labels (Beyer et al. 2020): ``$BENCH_DATA/imagenet-real/real.json``.

    The list's n-th entry holds the class numbers of ``ILSVRC2012_val_<n, from 1>``; images without any are left out.
    Labels int64 [N, C] of 1 and -1. Raises `BenchError` for a list that is missing or of other images.
    """
    path = at("imagenet-real", rest, "put real.json of the reassessed-imagenet repository there") / "real.json"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BenchError(f"imagenet-real: {path} cannot be read as JSON ({str(error)[:200]}): fetch it again") from None
    train, val = open_imagenet("")
    count = len(train.classes)
    if not isinstance(listed, list) or not all(_is_entry(entry, count) for entry in listed):
        raise BenchError(f"imagenet-real: {path} is not a list of lists of class numbers below {count}: fetch it again")
    rows = [_number(name) for name in val.ids]
    missing = next((name for name, row in zip(val.ids, rows, strict=True) if not 1 <= row <= len(listed)), None)
    if missing is not None:
        raise BenchError(
            f"imagenet-real: {missing} is no ILSVRC2012_val_<number> up to {len(listed)} that {path} lists"
        )
    labels = np.full((len(rows), count), -1, dtype=np.int64)
    for index, row in enumerate(rows):
        labels[index, listed[row - 1]] = 1
    kept = np.flatnonzero((labels == 1).any(axis=1))
    if not len(kept):
        raise BenchError(f"imagenet-real: {path} gives none of the {len(rows)} validation images a label")
    assert isinstance(val, FileDataset)
    test = FileDataset(
        "imagenet-real", "val", val.root, [val.ids[i] for i in kept.tolist()], labels[kept], train.classes
    )
    return Splits(train, test)


def _is_entry(entry: object, classes: int) -> bool:
    return isinstance(entry, list) and all(type(c) is int and 0 <= c < classes for c in entry)


def _number(path: str) -> int:
    """The image's number, from 1; 0 for a name that has none."""
    stem = Path(path).stem
    digits = stem.removeprefix("ILSVRC2012_val_").partition("_")[0]
    return int(digits) if stem != digits and digits.isascii() and digits.isdigit() and len(digits) < 12 else 0


def _beside_imagenet(name: str, split: str, root: Path) -> Splits:
    train, _ = open_imagenet("")
    found = class_images(root)
    number = _numbers(name, root, sorted(found), train)
    folders = sorted(found, key=number.__getitem__)
    pairs = [(path, number[folder]) for folder in folders for path in found[folder]]
    ids = [number[folder] for folder in folders]
    test = FileDataset(
        name, split, root, [p for p, _ in pairs], [n for _, n in pairs], [train.classes[n] for n in ids], ids
    )
    return Splits(train, test)


def _numbers(name: str, root: Path, folders: Sequence[str], train: Dataset) -> dict[str, int]:
    """ImageNet's class number of every folder: by WordNet id, or where all are numbers (ImageNet-V2) as that number."""
    if all(f.isascii() and f.isdigit() and len(f) < 6 for f in folders):
        number = {f: int(f) for f in folders}
        strange = [f for f in folders if number[f] >= len(train.classes)]
    else:
        number = {wordnet: label for label, wordnet in zip(train.class_ids, train.classes, strict=True)}
        strange = [f for f in folders if f not in number]
    if strange:
        raise BenchError(
            f"{name}: the folder {root / strange[0]} is none of the {len(train.classes)} classes of "
            f"$BENCH_DATA/imagenet (folders are named by WordNet id, as n01440764)"
        )
    return number
