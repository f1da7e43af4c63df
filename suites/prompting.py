"""Prompts: the texts that stand for the classes of a data set, published ones where there are any."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from bench.errors import BenchError
from bench.files import at_home, regular

if TYPE_CHECKING:
    from bench.featureset import FeatureSet

PLAIN = ("a photo of a {}.",)
IMAGENET = "imagenet"
OWN = "own"
_WNID = re.compile(r"n\d{8}")
_LARGEST = 1 << 22


@dataclass(frozen=True)
class Prompts:
    """``values`` int64 [C]: the labels, ascending; ``names`` of each; every name goes into every template."""

    values: np.ndarray
    names: list[str]
    templates: list[str]
    names_from: str
    templates_from: str

    def texts(self) -> list[str]:
        """All texts, class by class."""
        return [template.replace("{}", name) for name in self.names for template in self.templates]


@functools.cache
def published() -> dict[str, list[str]]:
    """Data set -> the templates that CLIP's authors published for it."""
    found: dict[str, list[str]] = yaml.safe_load(_packaged("templates.yaml"))
    return found


@functools.cache
def imagenet_names() -> list[str]:
    """The thousand class names that CLIP's authors wrote for ImageNet, in the order of its wnids."""
    return _packaged("imagenet.txt").splitlines()


def prompts_of(test: FeatureSet, templates: str, classnames: str = OWN) -> Prompts:
    """The prompts of a data set.

    ``templates``: ``auto`` (the published ones of the data set, else one plain sentence), ``imagenet`` (the eighty),
    ``plain``, or the path of a file with one a line. ``classnames``: the path of a file with one name a line, in order
    of label; ``own``: the data set's, with spaces for underscores, and CLIP's for ImageNet's wnids. Raises
    `BenchError` for files that cannot be read, another number of names than classes, and classes without names.
    """
    values = np.array(sorted(test.classes), dtype=np.int64)
    if len(values) < 2:
        raise BenchError(f"{test.dataset} has a single class: zero-shot classification needs two or more")
    own = [test.classes[int(value)] for value in values]
    is_imagenet = _is_imagenet(test.dataset, own)
    if classnames != OWN:
        names, names_from = _lines(classnames, "zeroshot.classnames", "own"), f"the file {Path(classnames).name}"
        if len(names) != len(values):
            raise BenchError(
                f"zeroshot.classnames: {classnames} has {len(names)} names and {test.dataset} {len(values)} classes: "
                f"one a line, in order of label"
            )
    elif is_imagenet:
        names, names_from = _of_imagenet(values, test.dataset), "CLIP's names of ImageNet's classes"
    else:
        names, names_from = [" ".join(name.replace("_", " ").split()) for name in own], "the data set"
        nameless = next(
            (n for n, o in zip(names, own, strict=True) if not n or n.isdigit() or _WNID.fullmatch(o)), None
        )
        if nameless is not None and not _named_by_numbers(test.dataset):
            raise BenchError(
                f"{test.dataset} calls a class {nameless!a}, which is no word: give the names with --set "
                f"zeroshot.classnames=FILE, one a line in order of label"
            )
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None and not is_imagenet:
        raise BenchError(
            f"two classes of {test.dataset} have the name {twice!a}: give names with zeroshot.classnames=FILE"
        )
    sentences, origin = _templates(templates, test.dataset, is_imagenet)
    return Prompts(values, names, sentences, names_from, origin)


def _is_imagenet(dataset: str, own: list[str]) -> bool:
    wnids = all(_WNID.fullmatch(name) for name in own)
    return wnids and (len(own) == len(imagenet_names()) or _base(dataset).partition("-")[0] == IMAGENET)


def _of_imagenet(values: np.ndarray, dataset: str) -> list[str]:
    every = imagenet_names()
    if len(values) == len(every):
        return list(every)
    # A shifted set of fewer classes keeps ImageNet's labels.
    if values.min() < 0 or values.max() >= len(every):
        raise BenchError(f"{dataset} has labels beyond ImageNet's thousand: give zeroshot.classnames=FILE")
    return [every[int(value)] for value in values]


def _base(dataset: str) -> str:
    """``cifar10`` of ``cifar10[50 of 10000]``."""
    return dataset.partition("[")[0].partition(":")[0].lower()


def _named_by_numbers(dataset: str) -> bool:
    return _base(dataset) == "mnist"


def _templates(wish: str, dataset: str, is_imagenet: bool) -> tuple[list[str], str]:
    """(the templates, where they are from)."""
    if wish == "plain":
        return list(PLAIN), "one plain sentence"
    if wish == IMAGENET:
        return list(published()[IMAGENET]), "CLIP's for ImageNet"
    if wish == "auto":
        name = IMAGENET if is_imagenet else _base(dataset)
        found = published().get(name)
        return (list(found), f"CLIP's for {name}") if found else (list(PLAIN), "one plain sentence: none is published")
    lines = _lines(wish, "zeroshot.templates", "auto, plain, imagenet")
    without = next((line for line in lines if "{}" not in line), None)
    if without is not None:
        raise BenchError(
            f"zeroshot.templates: {wish} has a line without {{}} in the place of the class: {without[:80]!a}"
        )
    return lines, f"the file {Path(wish).name}"


def _lines(text: str, option: str, words: str) -> list[str]:
    """The lines of a file, blank ones left out. Raises `BenchError` when it cannot be read."""
    path = at_home(text)
    try:
        if regular(path).st_size > _LARGEST:
            raise BenchError(f"{option}: {path} is too large to be a list of texts")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BenchError(f"{option}: {path} cannot be read ({reason}): give {words}, or a file of lines") from None
    if not lines:
        raise BenchError(f"{option}: {path} holds no lines")
    return lines


def _packaged(name: str) -> str:
    return (files("suites") / "prompts" / name).read_text(encoding="utf-8")
