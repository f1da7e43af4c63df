"""``imagefolder:PATH``: one folder per class, in train/ and val/ (or test/), or a single set of class folders."""

from __future__ import annotations

import os
from pathlib import Path

from bench.data.decoding import EXTENSIONS
from bench.data.files import FileDataset
from bench.data.holdout import HOLDOUT, held_out
from bench.dataset import Splits
from bench.errors import BenchError
from bench.files import at_home

TRAIN = ("train", "training")
TEST = ("val", "validation", "valid", "test")


def open_imagefolder(rest: str) -> Splits:
    """A folder of images, a sub-folder per class.

    With ``train/`` and one of ``val/``, ``validation/``, ``valid/``, ``test/`` (in this order), those are the splits.
    Otherwise the class folders are split by a digest of each file's name: the lowest fifth is reported on, as split
    ``holdout``, the rest is learned from; the same files give the same split everywhere. Classes are the folders' names
    in order of code point, over both splits together; files in nested folders count; hidden files and files without an
    image's extension do not.
    A class may be missing from either split (the scores then count the classes that occur).
    Raises `BenchError` for a missing or unreadable folder, no class folders, or a class folder without images.
    """
    if not rest:
        raise BenchError("imagefolder needs a path: --data imagefolder:/data/mine")
    root = at_home(rest)
    if not root.is_dir():
        raise BenchError(f"imagefolder: {root} is {'not a folder' if root.exists() else 'not there'}")
    names = set(_folders(root))
    train = next((name for name in TRAIN if name in names), None)
    test = next((name for name in TEST if name in names), None)
    if train and test:
        return _two(root, train, test)
    if train or test:
        there, lacks = (train, "val/ or test/") if train else (test, "train/")
        raise BenchError(f"imagefolder: {root} has {there}/ but no {lacks}: give both, or one folder of class folders")
    return _one(root)


def _two(root: Path, train: str, test: str) -> Splits:
    found = {split: class_images(root / split) for split in (train, test)}
    classes = sorted({*found[train], *found[test]})
    number = {name: index for index, name in enumerate(classes)}

    def dataset(split: str) -> FileDataset:
        pairs = [(path, number[name]) for name in sorted(found[split]) for path in found[split][name]]
        return FileDataset(
            root.resolve().name, split, root / split, [path for path, _ in pairs], [n for _, n in pairs], classes
        )

    return Splits(dataset(train), dataset(test))


def _one(root: Path) -> Splits:
    found = class_images(root)
    classes = sorted(found)
    parts: dict[str, list[tuple[str, int]]] = {"train": [], HOLDOUT: []}
    for number, name in enumerate(classes):
        for path in found[name]:
            parts[HOLDOUT if held_out(path.rpartition("/")[2]) else "train"].append((path, number))
    for split, pairs in parts.items():
        if not pairs:
            raise BenchError(
                f"imagefolder: {root} has too few images to split ({split} would be empty): make train/ and val/"
            )
    return Splits(
        *(
            FileDataset(root.resolve().name, split, root, [p for p, _ in pairs], [n for _, n in pairs], classes)
            for split, pairs in parts.items()
        )
    )


def class_images(folder: Path) -> dict[str, list[str]]:
    """Image paths relative to ``folder`` by class, sorted."""
    found = {name: _images(folder, folder / name) for name in _folders(folder)}
    if not found:
        raise BenchError(f"imagefolder: {folder} has no class folders: put each class's images in a folder of its own")
    empty = sorted(name for name, paths in found.items() if not paths)
    if empty:
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise BenchError(f"imagefolder: the class folder {folder / empty[0]}{more} holds no images: fill or remove it")
    return found


def _folders(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> BenchError:
    return BenchError(f"imagefolder: {error.filename} cannot be read: {error.strerror}")


def _images(root: Path, folder: Path) -> list[str]:
    def stop(error: OSError) -> None:
        # A folder that may not be read must not count as an empty one.
        raise _unreadable(error) from None

    paths = []
    visited: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        stat = os.stat(place)
        if (stat.st_dev, stat.st_ino) in visited:
            # A link back to a folder already seen.
            folders.clear()
            continue
        visited.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS:
                paths.append(os.path.relpath(os.path.join(place, name), root).replace(os.sep, "/"))
    return sorted(paths)
