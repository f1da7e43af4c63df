"""``voc:PATH``: a year folder of a VOCdevkit; and the published 07+12 -> 07 set by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from bench.data.instances import Checked, DetectionDataset, Instances, instances_from
from bench.data.opening import data_folders, not_found
from bench.dataset import Splits
from bench.errors import BenchError

PAIRS = (("trainval", "test"), ("train", "val"))
"""(learned from, reported on): the first pair whose lists are both there."""


class Row(NamedTuple):
    """One object of one image."""

    box: tuple[float, float, float, float]
    name: str
    difficult: bool


def open_voc(rest: str) -> Splits:
    """JPEGImages/, Annotations/ and ImageSets/Main/ of one year.

    The splits are trainval and test where both lists are there, else train and val. Classes are all names that occur,
    in order of code point (that of the published twenty).
    Raises `BenchError` for lists, images or annotations that are missing, and for annotations that cannot be right.
    """
    if not rest:
        raise BenchError("voc needs a path: --data voc:/data/VOCdevkit/VOC2007")
    root = Path(rest).expanduser()
    if not root.is_dir():
        raise BenchError(f"voc: {root} is {'not a folder' if root.exists() else 'not there'}")
    for train, test in PAIRS:
        if _list(root, train).is_file() and _list(root, test).is_file():
            return _open(root.resolve().name, root, [(root, train)], [(root, test)])
    raise BenchError(
        f"voc: {root / 'ImageSets/Main'} has neither trainval.txt and test.txt nor train.txt and val.txt: "
        f"write the image names of both splits there, one a line"
    )


def open_voc07(rest: str) -> Splits:
    """``$BENCH_DATA/voc07``: VOC2007/ and VOC2012/ (or VOCdevkit/ with them); trainval of both, test of 2007."""
    if rest:
        raise BenchError(f"'voc07' is looked up under $BENCH_DATA and takes no path; write voc:{rest} for one year")
    looked = data_folders("voc07")
    for folder in looked:
        for devkit in (folder, folder / "VOCdevkit"):
            years = [devkit / "VOC2007", devkit / "VOC2012"]
            if all(year.is_dir() for year in years):
                return _open("voc07", devkit, [(year, "trainval") for year in years], [(years[0], "test")])
    raise not_found(
        "voc07", looked, "set $BENCH_DATA and put VOC2007/ (with its test set) and VOC2012/ there, or give one year's "
        "folder with --data voc:PATH",
    )  # fmt: skip


def _open(name: str, root: Path, train: list[tuple[Path, str]], test: list[tuple[Path, str]]) -> Splits:
    read = [_read(root, parts) for parts in (train, test)]
    names = sorted({row.name for images in read for _, _, rows in images for row in rows})
    if not names:
        raise BenchError(f"voc: {root} has no object in any annotation: there is nothing to detect")
    classes = dict(enumerate(names, start=1))
    position = {name: index for index, name in enumerate(names)}
    datasets = []
    for images, parts in zip(read, (train, test), strict=True):
        split = "+".join(dict.fromkeys(f"{part}" for _, part in parts))
        checked = Checked(f"voc: {parts[0][0]} {split}")
        found = [_instances(path, size, rows, position, checked) for path, size, rows in images]
        flat = checked.judge()
        paths = [path for path, _, _ in images]
        dataset = DetectionDataset(name, split, root, paths, found, classes, range(1, len(paths) + 1))
        dataset.passed_over = flat
        datasets.append(dataset)
    return Splits(*datasets)


def _instances(
    path: str, size: tuple[int, int], rows: Sequence[Row], position: dict[str, int], checked: Checked
) -> Instances:
    kept = [row for row in rows if checked.keep(row.box, size, f"{row.name} in {path}")]
    return instances_from(
        size, [row.box for row in kept], [position[row.name] for row in kept], difficult=[row.difficult for row in kept]
    )


def _read(root: Path, parts: list[tuple[Path, str]]) -> list[tuple[str, tuple[int, int], list[Row]]]:
    images = []
    for year, split in parts:
        listed = _list(year, split)
        names = [line.split()[0] for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
        if (bad := next((name for name in names if "/" in name or name.startswith(".")), None)) is not None:
            raise BenchError(f"voc: {listed} names '{bad[:200]}', which leads out of the folder: mend the list")
        if not names:
            raise BenchError(f"voc: {listed} names no images: the split is empty")
        if len(set(names)) < len(names):
            raise BenchError(f"voc: {listed} names an image twice: name each once")
        for name in names:
            image = next((f for f in (year / "JPEGImages" / f"{name}{end}" for end in (".jpg", ".png")) if f.is_file()),
                         None)  # fmt: skip
            if image is None:
                raise BenchError(f"voc: {listed} names {name}, which is not in {year / 'JPEGImages'}: put it there")
            size, rows = _annotation(year / "Annotations" / f"{name}.xml")
            images.append((image.relative_to(root).as_posix(), size, rows))
    return images


def _annotation(file: Path) -> tuple[tuple[int, int], list[Row]]:
    if not file.is_file():
        raise BenchError(
            f"voc: the image {file.stem} has no annotation {file}: annotate it, or remove it from the list"
        )
    try:
        tree = ElementTree.parse(file).getroot()
        size = (int(_text(tree, "size/height")), int(_text(tree, "size/width")))
        rows = []
        for thing in tree.findall("object"):
            left, top, right, bottom = (float(_text(thing, f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax"))
            # Corners are 1-based pixels, both inside the box.
            box = (left - 1, top - 1, right - left + 1, bottom - top + 1)
            rows.append(Row(box, _text(thing, "name"), (thing.findtext("difficult") or "0").strip() == "1"))
    except (ElementTree.ParseError, ValueError) as error:
        raise BenchError(f"voc: {file} is no annotation of VOC's form ({error}): mend it") from None
    return size, rows


def _text(node: ElementTree.Element, path: str) -> str:
    text = node.findtext(path)
    if text is None or not text.strip():
        raise ValueError(f"it has no {path}")
    return text.strip()


def _list(year: Path, split: str) -> Path:
    return year / "ImageSets" / "Main" / f"{split}.txt"
