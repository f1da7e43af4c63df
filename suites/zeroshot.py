"""Zero-shot classification: the nearest class among texts, each the mean of its prompts (Radford et al. 2021)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bench.card import digest_of
from bench.errors import BenchError
from bench.files import write_atomically
from bench.options import Allowed
from bench.suite import Needs, engine_of
from suites.classification import Labels, accuracies, finite_blocks
from suites.prompting import Prompts, prompts_of

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task
    from bench.texttower import TextTower

TEXTS = 256
"""Texts that go through the tower at once."""
ROWS = 4096


class ZeroShot:
    """Top-1, top-5 and mean per class of the test split; nothing is learned, and no training image is read."""

    name = "zeroshot"
    default = "zeroshot/openai@1"
    options: ClassVar[dict[str, Allowed]] = {"templates": Allowed(), "classnames": Allowed()}

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        if card.text is None:
            raise BenchError(
                f"suite 'zeroshot' compares images with texts, and '{card.name}' ({card.architecture}) has no text "
                f"tower: give a CLIP or SigLIP folder of Hugging Face, a checkpoint of CLIP with its texts, "
                f"openclip:NAME/TAG, or openclip:NAME?weights=FILE for a checkpoint of another design of open_clip's"
            )
        return Needs(("pooled",), ("test",), backbone=True)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        test = task.data["test"]
        if test.labels.ndim > 1:
            raise BenchError(f"{test.dataset} has many labels an image: zero-shot classification gives one")
        if not len(test):
            raise BenchError(f"{test.dataset} {test.split} holds no samples")
        if task.backbone is None:
            raise BenchError("suite 'zeroshot' needs the network itself: stored features have no texts")
        prompts = prompts_of(test, task.settings["templates"], task.settings["classnames"])
        tower = task.backbone.text_tower()
        labels = _labels(test.labels, prompts.values)
        weights = _class_weights(task, tower, prompts)
        top, score = _answers(task, tower, weights, labels)
        yield from accuracies(
            task,
            labels,
            top,
            score,
            engine=engine_of("torch"),
            outcome="zeroshot",
            headline=True,
            settings={"prompts": digest_of(prompts.texts())[:12]},
            details={
                "templates": prompts.templates,
                "templates_from": prompts.templates_from,
                "class_names_from": prompts.names_from,
                "class_names": prompts.names,
                "text_digest": tower.digest,
                "text_tower": task.card.text,
            },
            feature={"tokens": f"{task.card.feature}, projected", "layers": 1, "norm": "l2"},
        )


def _labels(test: np.ndarray, values: np.ndarray) -> Labels:
    """All classes of the set may be answered, whether the split has samples of them or not."""
    return Labels(
        values=values, trained=len(values), train=np.zeros(0, dtype=np.int64), test=np.searchsorted(values, test)
    )


def _class_weights(task: Task, tower: TextTower, prompts: Prompts) -> np.ndarray:
    """float64 [J, C] of length 1 each: the mean of a class' prompts, each of length 1 before."""
    import torch

    texts = prompts.texts()
    device = torch.device(task.device)
    parts: list[np.ndarray] = []
    with torch.inference_mode(), task.progress.stage("texts", len(texts), "texts") as stage:
        for start in range(0, len(texts), TEXTS):
            some = texts[start : start + TEXTS]
            kept = task.folder / f"texts-{digest_of(some)[:16]}.npy" if task.folder is not None else None
            found = _kept(kept, len(some))
            if found is None:
                found = tower.embed(some, device).cpu().numpy()
                if kept is not None:
                    write_atomically(kept, functools.partial(np.save, arr=found, allow_pickle=False), durable=False)
            parts.append(found)
            stage.advance(len(found))
    every = np.concatenate(parts).astype(np.float64)
    if not np.isfinite(every).all():
        raise BenchError(
            f"the text tower of '{task.card.name}' gives values that are not finite: its weights are broken"
        )
    every = _unit(every).reshape(len(prompts.names), len(prompts.templates), -1).mean(axis=1)
    return _unit(every).T


def _kept(path: Path | None, n: int) -> np.ndarray | None:
    """What an interrupted run had embedded of ``n`` texts: eighty prompts of a thousand classes are an hour's work."""
    if path is None:
        return None
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 2 and len(found) == n else None


def _answers(task: Task, tower: TextTower, weights: np.ndarray, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """(the best classes [N, m] in order, equal cosines by lowest class; the true class' probability [N])."""
    import torch

    test = task.data["test"]
    m = min(5, weights.shape[1])
    tops, scores = [], []
    for start, block in finite_blocks(test, "pooled", ROWS):
        with torch.inference_mode():
            projected = tower.project(torch.from_numpy(np.array(block))).cpu().numpy().astype(np.float64)
        if projected.shape[1] != weights.shape[0]:
            raise BenchError(
                f"the images of '{task.card.name}' lie in {projected.shape[1]} dimensions and its texts in "
                f"{weights.shape[0]}: they are of different models"
            )
        cosines = _unit(projected) @ weights
        tops.append(np.argsort(-cosines, axis=1, kind="stable")[:, :m])
        shifted = np.exp(tower.scale * (cosines - cosines.max(axis=1, keepdims=True)))
        truth = labels.test[start : start + len(block)]
        scores.append(shifted[np.arange(len(block)), truth] / shifted.sum(axis=1))
    return np.concatenate(tops), np.concatenate(scores)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(lengths == 0, 1, lengths)
