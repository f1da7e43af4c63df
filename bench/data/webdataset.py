"""``webdataset:PATH``: tar shards, each sample an image and its label under one name (``0001.jpg``, ``0001.cls``)."""

from __future__ import annotations

import glob
import hashlib
import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.data.choices import with_choices
from bench.data.decoding import EXTENSIONS, decode
from bench.data.digests import sample_digests
from bench.data.holdout import HOLDOUT, held_out
from bench.data.imagefolder import TEST, TRAIN
from bench.data.labelled import Labelled, fingerprint_from
from bench.data.tarindex import Member, members
from bench.dataset import DecodeError, Splits
from bench.errors import BenchError
from bench.files import at_home

if TYPE_CHECKING:
    from PIL import Image

PATTERN = 100_000
"""Shards that a pattern may stand for."""
LABEL_KEYS = ("label", "cls", "class", "target", "class_id", "label_id")
"""Keys of a sample's .json that may hold its label, in this order."""
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")


class Sample(NamedTuple):
    """Where a sample's image lies, and its label as written."""

    shard: int
    key: str
    offset: int
    size: int
    label: int | str


def open_webdataset(rest: str) -> Splits:
    """A set of uncompressed tar shards; samples are the files of one name up to the first dot, as in webdataset.

    ``rest`` is a folder (``train*.tar`` and ``val*.tar`` or ``test*.tar``, or folders of these names with ``*.tar``
    inside, or only ``*.tar``), one shard, or a pattern: ``/data/{train,val}-{000..003}.tar``, ``/data/*.tar``. Without
    a second split, a fifth is held out by digest of the sample's name, as split ``holdout``. The image is the member
    with an image's extension; the label is ``.cls`` (a number or a name) or a key of ``.json`` (label, cls, class,
    target, class_id, label_id, or ``?label=KEY``). ``classnames.txt`` beside the shards, one name a line, names the
    classes of numbers; labels that are names are numbered in order of code point over both splits.
    Raises `BenchError` for shards that are missing, compressed, damaged or cut off, and for a sample without image or
    label.
    """
    path, choices = with_choices("webdataset", rest, ("label",))
    if not path:
        raise BenchError("webdataset needs a path: --data webdataset:/data/shards, or a pattern in quotes")
    root, groups = _shards(path)
    keys = (choices["label"],) if "label" in choices else LABEL_KEYS
    found = {split: (names, _samples(root, names, keys)) for split, names in groups.items()}
    names = _class_names(root)
    if len(found) == 1:
        shards, samples = next(iter(found.values()))
        parts: dict[str, list[Sample]] = {"train": [], HOLDOUT: []}
        for sample in samples:
            parts[HOLDOUT if held_out(sample.key.rpartition("/")[2]) else "train"].append(sample)
        found = {split: (shards, part) for split, part in parts.items()}
    classes, class_ids, labels = _labels(path, [samples for _, samples in found.values()], names)
    title = root.name or "webdataset"
    return Splits(
        *(
            TarDataset(title, split, root, shards, samples, own, classes, class_ids)
            for (split, (shards, samples)), own in zip(found.items(), labels, strict=True)
        )
    )


class TarDataset(Labelled):
    """Samples inside uncompressed tars. Opens the shard for every image, so that nothing open is ever pickled."""

    def __init__(
        self,
        name: str,
        split: str,
        root: Path,
        shards: Sequence[str],
        samples: Sequence[Sample],
        labels: np.ndarray,
        classes: Sequence[str],
        class_ids: Sequence[int],
    ) -> None:
        super().__init__(name, split, labels, classes, class_ids)
        self.root = root
        self._shards = list(shards)
        self._where = np.array([(s.shard, s.offset, s.size) for s in samples], dtype=np.int64).reshape(-1, 3)
        self._keys = [sample.key for sample in samples]

    @cached_property
    def ids(self) -> Sequence[str]:
        return [f"{self._shards[shard]}/{key}" for shard, key in zip(self._where[:, 0], self._keys, strict=True)]

    @cached_property
    def fingerprint(self) -> str:
        # The choice of samples is part of the key: two splits may lie in the same shards.
        chosen = hashlib.sha256(self._where.astype("<i8").tobytes()).hexdigest()
        digests = sample_digests(self.root, self._shards, len(self), self._digests, chosen)
        return fingerprint_from(digests, self.labels)

    def _digests(self) -> Iterator[bytes]:
        for index in range(len(self)):
            yield hashlib.sha256(self._bytes(index)).digest()

    def _bytes(self, index: int) -> bytes:
        shard, offset, size = (int(n) for n in self._where[index])
        with open(self.root / self._shards[shard], "rb") as stream:
            stream.seek(offset)
            return stream.read(size)

    def _take(self, indices: np.ndarray) -> None:
        self._where = self._where[indices]
        self._keys = [self._keys[i] for i in indices]

    def image(self, index: int) -> Image.Image:
        """RGB; raises `DecodeError` for a damaged image, and OSError for a shard that cannot be read."""
        content = self._bytes(index)
        if len(content) < self._where[index, 2]:
            raise DecodeError(self.ids[index], "the shard has become shorter since it was indexed")
        return decode(io.BytesIO(content), str(self.root / self.ids[index]))


def _shards(path: str) -> tuple[Path, dict[str, list[str]]]:
    """The folder that all shards are in, and the shards of each split, relative to it."""
    given = at_home(path)
    if given.is_dir():
        found = sorted(given.glob("*.tar"))
        for split in (*TRAIN, *TEST):
            found += sorted((given / split).glob("*.tar"))
        if not found:
            packed = next((p for p in given.glob("*.tar.*")), None)
            more = f" ({packed.name} is compressed: unpack it to .tar)" if packed else ""
            raise BenchError(f"webdataset: {given} holds no *.tar, nor do train/ and val/ in it{more}")
        root = given
    else:
        found = [Path(match) for text in expanded(str(given)) for match in _matches(text)]
        root = Path(os.path.commonpath([shard.parent for shard in found]))
    root = root.resolve()
    named = [os.path.relpath(shard.resolve().parent / shard.name, root).replace(os.sep, "/") for shard in found]
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(named):
        groups.setdefault(_split_of(name), []).append(name)
    train = next((split for split in TRAIN if split in groups), None)
    test = next((split for split in TEST if split in groups), None)
    if train and test:
        return root, {train: groups[train], test: groups[test]}
    if len(groups) == 1:
        return root, groups
    raise BenchError(
        f"webdataset: the shards in {root} are of {', '.join(split or 'no split' for split in groups)}: "
        f"there must be train*.tar with val*.tar or test*.tar, or one kind alone"
    )


def expanded(pattern: str) -> list[str]:
    """``{000..003}`` and ``{train,val}`` written out, in order; other braces stay as they are.

    Raises `BenchError` for a pattern of more than `PATTERN` names.
    """
    try:
        found = list(itertools.islice(_expansion(pattern), PATTERN + 1))
    except RecursionError:  # Hundreds of braces.
        found = [""] * (PATTERN + 1)
    if len(found) > PATTERN:
        raise BenchError(f"webdataset: {pattern} stands for more than {PATTERN:,} shards: give the folder instead")
    return list(dict.fromkeys(found))


def _expansion(pattern: str) -> Iterator[str]:
    found = [match for match in (_RANGE.search(pattern), _CHOICE.search(pattern)) if match]
    if not found:
        yield pattern
        return
    match = min(found, key=re.Match.start)
    parts: Iterable[str]
    if match.re is _RANGE:
        first, last = match.groups()
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        step = 1 if int(last) >= int(first) else -1
        parts = (str(n).zfill(width) for n in range(int(first), int(last) + step, step))
    else:
        parts = match[1].split(",")
    for part in parts:
        yield from _expansion(pattern[: match.start()] + part + pattern[match.end() :])


def _matches(text: str) -> list[str]:
    if os.path.exists(text):
        return [text]
    found = sorted(glob.glob(text)) if glob.has_magic(text) else []
    if not found:
        raise BenchError(f"webdataset: {text} is not there")
    return found


def _split_of(name: str) -> str:
    """The split in a shard's name (``train-000.tar``, ``val/0.tar``, ``imagenet-train-01.tar``), or nothing."""
    words = re.split(r"[^a-z]+", name.lower().removesuffix(".tar"))
    return next((split for split in (*TRAIN, *TEST) if split in words), "")


def _samples(root: Path, shards: list[str], keys: Sequence[str]) -> list[Sample]:
    samples: list[Sample] = []
    for number, shard in enumerate(shards):
        grouped: dict[str, dict[str, Member]] = {}
        for member in members(root / shard):
            folder, slash, name = member.name.removeprefix("./").rpartition("/")
            stem, _, extension = name.partition(".")
            group = grouped.setdefault(f"{folder}{slash}{stem}", {})
            if group.setdefault(extension.lower(), member) is not member:
                raise BenchError(f"webdataset: {root / shard} holds {member.name} twice: its shards were made wrongly")
        with open(root / shard, "rb") as stream:
            for key, group in grouped.items():
                if any(extension in group for extension in ("cls", "json")) or _images(group):
                    samples.append(_sample(root / shard, number, key, group, stream, keys))
    return samples


def _images(group: dict[str, Member]) -> list[Member]:
    return [m for extension, m in group.items() if f".{extension.rpartition('.')[2]}" in EXTENSIONS]


def _sample(
    shard: Path, number: int, key: str, group: dict[str, Member], stream: io.BufferedReader, keys: Sequence[str]
) -> Sample:
    images = _images(group)
    plain = [member for extension, member in group.items() if f".{extension}" in EXTENSIONS]
    if len(images) != 1 and len(plain) != 1:
        what = "no image" if not images else "several images"
        raise BenchError(f"webdataset: the sample '{key}' in {shard} has {what} (it has .{', .'.join(sorted(group))})")
    image = (plain if len(plain) == 1 else images)[0]

    def text(extension: str) -> str:
        stream.seek(group[extension].offset)
        return stream.read(group[extension].size).decode("utf-8", "replace").strip()

    label: Any = None
    if "cls" in group and keys == LABEL_KEYS:
        label = text("cls")
    elif "json" in group:
        label = _from_json(text("json"), keys)
    if isinstance(label, bool) or not isinstance(label, (int, str)) or label == "":
        raise BenchError(
            f"webdataset: the sample '{key}' in {shard} has no label: it needs a .cls, or a .json with a number or a "
            f"name under {', '.join(keys)} (another key: ?label=KEY)"
        )
    return Sample(number, key, image.offset, image.size, label)


def _from_json(text: str, keys: Sequence[str]) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return next((found[key] for key in keys if key in found), None) if isinstance(found, dict) else found


def _class_names(root: Path) -> list[str]:
    path = root / "classnames.txt"
    if not path.is_file():
        return []
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"webdataset: {path} cannot be read ({error}): it is UTF-8 text, one name a line") from None


def _labels(
    path: str, splits: list[list[Sample]], names: list[str]
) -> tuple[Sequence[str], Sequence[int], list[np.ndarray]]:
    """Class names, class numbers and each split's labels."""
    written = {sample.label for samples in splits for sample in samples}
    numbers = {label: number for label in written if (number := _number(label)) is not None}
    if len(numbers) == len(written):
        labels = [np.array([numbers[s.label] for s in samples], dtype=np.int64) for samples in splits]
        if names and all(0 <= number < len(names) for number in numbers.values()):
            return names, range(len(names)), labels
        ids = sorted(set(numbers.values()))
        return [str(number) for number in ids], ids, labels
    if numbers:
        words = min(str(label) for label in written if label not in numbers)
        raise BenchError(f"webdataset: {path} mixes labels that are numbers with names, such as '{words:.80}'")
    classes = sorted(str(label) for label in written)
    order = {label: number for number, label in enumerate(classes)}
    labels = [np.array([order[str(s.label)] for s in samples], dtype=np.int64) for samples in splits]
    return classes, range(len(classes)), labels


def _number(label: int | str) -> int | None:
    # Python's int() would also take 1_0 and other scripts' digits, which are names here.
    return int(label) if isinstance(label, int) or re.fullmatch(r"[+-]?[0-9]{1,30}", label) else None
