"""``torchvision:NAME[:PATH]``: a set that torchvision reads, from the files of its original archive; never downloaded.

torchvision finds the samples and their labels; decoding and content digests are ours wherever the samples are files or
arrays, which is everywhere but in a few sets that keep tensors.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.data.arrays import ArrayDataset
from bench.data.files import FileDataset
from bench.data.holdout import HOLDOUT, held_out
from bench.data.labelled import Labelled, fingerprint_from, numbered
from bench.data.opening import data_folders, not_found
from bench.dataset import DecodeError, Splits
from bench.errors import BenchError
from bench.files import at_home
from bench.registry import nearest

if TYPE_CHECKING:
    from PIL import Image

_LEARN = {"DTD": ("train", "val"), "Flowers102": ("train", "val"), "FGVCAircraft": ("train", "val")}
"""Sets whose published transfer protocol learns from more than the split called train."""
_OTHERS = frozenset({
    "MovingMNIST", "SBU", "VOCSegmentation", "VOCDetection", "Cityscapes", "CelebA",
    "WIDERFace", "SBDataset", "Kitti", "LFWPairs", "LSUNClass",
})  # fmt: skip
"""Sets whose images have no class, or several things in them: refused when asked for, and never proposed."""
_ARGUMENT = ("split", "image_set", "version")
_TRAIN = ("train", "trainval", "train-standard", "2021_train")
_TEST = ("test", "val", "valid", "validation", "2021_valid")
_PATHS = ("_image_files", "_images", "_samples", "samples", "imgs", "filename")
_LABELS = ("_labels", "labels", "targets", "y", "attr")


class Part(NamedTuple):
    """One torchvision object taken apart."""

    source: Any
    labels: np.ndarray
    paths: list[str] | None
    """Absolute, when the samples are files."""
    pixels: np.ndarray | None
    """uint8 [N, H, W] or [N, H, W, 3], when they lie in memory."""


def open_torchvision(rest: str) -> Splits:
    """The set NAME of ``torchvision.datasets``, read from PATH or ``$BENCH_DATA`` (or ``$BENCH_DATA/<name>``).

    The split to learn from is ``train`` (DTD, Flowers-102 and Aircraft: train + val, Pets: trainval, as their
    published transfer protocols have it), the one reported on ``test`` where it has labels, else ``val``; a set
    without splits is held out by file name (or, without files, by content), a fifth as split ``holdout``. Samples that
    are files come in order of path, whatever the order of the file system.
    Raises `BenchError` for an unknown name, a set that is not there or damaged, and one without a class per image.
    """
    import torchvision.datasets as sets

    name, _, path = rest.partition(":")
    kinds = [kind for kind in sets.__all__ if _is_labelled(getattr(sets, kind))]
    if name not in kinds:
        known = {kind.lower(): kind for kind in kinds}
        if name.lower() not in known:
            proposed = [kind for kind in kinds if kind not in _OTHERS]
            raise BenchError(f"torchvision has no labelled image set '{name}'{nearest(name, proposed)}")
        name = known[name.lower()]
    roots = [at_home(path)] if path else _roots(name)
    reasons = []
    for root in roots:
        if not root.is_dir():
            continue
        try:
            return _open(name, getattr(sets, name), root.resolve())
        except BenchError:
            raise
        except ImportError as error:
            raise BenchError(f"torchvision:{name} needs a further package: {error}") from None
        except Exception as error:
            # torchvision refuses in RuntimeError, ValueError, OSError, KeyError and more.
            reasons.append(f"{root}: {_sentence(error)}")
    provide = f"unpack it there as torchvision lays it out, or name its folder: torchvision:{name}:PATH"
    raise not_found(f"torchvision:{name}", roots, "; ".join([*reasons, provide]))


def _roots(name: str) -> list[Path]:
    folders = data_folders(name.lower())
    return [*folders, *(folder.parent for folder in folders)]


def _is_labelled(kind: Any) -> bool:
    """Whether the class can be opened with a root alone (plus a split): no annotation file, no pairs, no clips."""
    if not inspect.isclass(kind):
        return False
    parameters = inspect.signature(kind).parameters
    needed = [
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and name != "root"
    ]
    pairs = {"StereoMatchingDataset", "FlowDataset"} & {base.__name__ for base in kind.__mro__}
    return not needed and "root" in parameters and not pairs and kind.__name__ not in ("VisionDataset", "ImageFolder")


def _open(name: str, kind: Any, root: Path) -> Splits:
    parameters = inspect.signature(kind).parameters
    if "train" in parameters:
        train, test = [("train", _part(name, kind, root, train=True))], [("test", _part(name, kind, root, train=False))]
    elif (argument := next((key for key in _ARGUMENT if key in parameters), None)) is not None:
        train = _first(name, kind, root, argument, [_LEARN.get(name, ()), *((split,) for split in _TRAIN)])
        test = _first(name, kind, root, argument, [(split,) for split in _TEST])
    else:
        return _split(name, root, _part(name, kind, root))
    classes, class_ids = _classes([part for _, part in (*train, *test)])
    return Splits(*(_dataset(name, root, parts, classes, class_ids) for parts in (train, test)))


def _first(
    name: str, kind: Any, root: Path, argument: str, choices: Sequence[tuple[str, ...]]
) -> list[tuple[str, Part]]:
    """The first of the choices of splits that the set knows and that has labels."""
    unknown: Exception | None = None
    for splits in choices:
        if not splits:
            continue
        try:
            parts = [(split, _part(name, kind, root, **{argument: split})) for split in splits]
        except ValueError as error:
            if "Unknown value" not in str(error):
                raise
            # torchvision's refusal of a split that the set does not have.
            unknown = error
            continue
        if all(len(part.labels) and part.labels.min() >= 0 for _, part in parts):
            return parts
    raise unknown or BenchError(f"torchvision:{name} has no split with labels among {choices}")


def _part(name: str, kind: Any, root: Path, **arguments: Any) -> Part:
    parameters = inspect.signature(kind).parameters
    if "download" in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
        arguments["download"] = False
    try:
        source = kind(root=str(root), **arguments)
    except TypeError:
        arguments.pop("download", None)
        source = kind(root=str(root), **arguments)
    paths = _paths(source)
    return Part(source, _labels(name, source), paths, None if paths is not None else _pixels(source))


def _labels(name: str, source: Any) -> np.ndarray:
    """int64 [N]; -1 where the set gives none."""
    found: Any = next((getattr(source, key) for key in _LABELS if getattr(source, key, None) is not None), None)
    if found is None and len(source) and not isinstance(source[0][1], (int, np.integer, type(None))):
        raise BenchError(f"torchvision:{name} does not give one class per image, so it cannot be classified")
    if found is None:
        pairs = next((getattr(source, key) for key in ("_samples", "samples", "imgs") if hasattr(source, key)), None)
        found = [label for _, label in pairs] if pairs is not None else [source[i][1] for i in range(len(source))]
    if len(found) != len(source):
        raise BenchError(f"torchvision:{name}: {len(found)} labels for {len(source)} images")
    array = np.asarray([-1 if label is None else label for label in found])
    if array.ndim != 1 or (len(array) and array.dtype.kind not in "iu"):
        raise BenchError(f"torchvision:{name} does not give one class per image, so it cannot be classified")
    return array.astype(np.int64)


def _paths(source: Any) -> list[str] | None:
    """Where the samples' files are, or None when they are no files."""
    for key in _PATHS:
        found = getattr(source, key, None)
        if not isinstance(found, list) or len(found) != len(source) or not found:
            continue
        paths = [item[0] if isinstance(item, tuple) else item for item in found]
        if all(isinstance(path, (str, os.PathLike)) for path in paths) and os.path.isabs(paths[0]):
            return [os.fspath(path) for path in paths]
    return None


def _pixels(source: Any) -> np.ndarray | None:
    """The samples' pixels, when they lie in memory and torchvision hands out just these."""
    data = getattr(source, "data", None)
    if data is None or not hasattr(data, "shape"):
        return None
    pixels = np.asarray(data)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or len(pixels) != len(source) or not len(pixels):
        return None
    if pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.shape[3] != 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    ours, theirs = pixels[-1], np.asarray(source[len(pixels) - 1][0])
    return pixels if ours.shape == theirs.shape and (ours == theirs).all() else None


def _classes(parts: list[Part]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    names = getattr(parts[0].source, "classes", None)
    highest = max(int(part.labels.max()) for part in parts)
    if isinstance(names, (list, tuple)) and highest < len(names):
        return tuple("/".join(name) if isinstance(name, tuple) else str(name) for name in names), tuple(
            range(len(names))
        )
    return numbered(*(part.labels for part in parts))


def _dataset(
    name: str, root: Path, parts: list[tuple[str, Part]], classes: tuple[str, ...], class_ids: tuple[int, ...]
) -> FileDataset | ArrayDataset | SourceDataset:
    split = "+".join(split for split, _ in parts)
    labels = np.concatenate([part.labels for _, part in parts])
    title = name.lower()
    files = [part.paths for _, part in parts]
    if all(paths is not None for paths in files):
        relative = [os.path.relpath(path, root).replace(os.sep, "/") for paths in files for path in paths or ()]
        order = sorted(range(len(relative)), key=relative.__getitem__)
        made = FileDataset(title, split, root, [relative[i] for i in order], labels[order], classes, class_ids)
        if len(parts) > 1:
            held = np.concatenate([np.full(len(part.labels), name == "val") for name, part in parts])
            made.validation = held[order]
        return made
    arrays = [part.pixels for _, part in parts]
    if all(pixels is not None for pixels in arrays):
        pixels = np.concatenate([pixels for pixels in arrays if pixels is not None])
        return ArrayDataset(title, split, pixels, labels, classes, class_ids)
    return SourceDataset(title, split, [part.source for _, part in parts], labels, classes, class_ids)


def _split(name: str, root: Path, part: Part) -> Splits:
    """A set without splits of its own, held out by digest."""
    classes, class_ids = _classes([part])
    whole = _dataset(name, root, [("all", part)], classes, class_ids)
    if isinstance(whole, FileDataset):
        held = np.array([held_out(path.rpartition("/")[2]) for path in whole.ids])
    else:
        held = np.array([held_out(whole.image(i).tobytes()) for i in range(len(whole))])
    return Splits(*(whole.part(split, np.flatnonzero(chosen)) for split, chosen in (("train", ~held), (HOLDOUT, held))))


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return (
        text.replace("You can use download=True to download it", "")
        .replace(" or corrupted. ", " or damaged")
        .strip(" .")
    )


class SourceDataset(Labelled):
    """Samples that only torchvision's own object can hand out."""

    def __init__(
        self,
        name: str,
        split: str,
        sources: Sequence[Any],
        labels: np.ndarray,
        classes: Sequence[str],
        class_ids: Sequence[int],
    ) -> None:
        super().__init__(name, split, labels, classes, class_ids)
        self._sources = list(sources)
        self._where = [(part, index) for part, source in enumerate(sources) for index in range(len(source))]

    @cached_property
    def ids(self) -> Sequence[str]:
        return [f"{self.split}/{index}" for index in range(len(self))]

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_from(self._digests(), self.labels)

    def _digests(self) -> Iterator[bytes]:
        for index in range(len(self)):
            try:
                image = self.image(index)
            except DecodeError as error:
                yield hashlib.sha256(str(error.reason).encode()).digest()
                continue
            yield hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()

    def _take(self, indices: np.ndarray) -> None:
        self._where = [self._where[i] for i in indices]

    def image(self, index: int) -> Image.Image:
        """RGB; raises `DecodeError` when torchvision cannot hand it out."""
        from PIL import Image

        part, position = self._where[index]
        try:
            found = self._sources[part][position][0]
            image = found if isinstance(found, Image.Image) else Image.fromarray(np.asarray(found).squeeze())
            return image.convert("RGB")
        except Exception as error:
            raise DecodeError(self.ids[index], str(error) or type(error).__name__) from None
