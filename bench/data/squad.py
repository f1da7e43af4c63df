"""``squad``: SQuAD 1.1, questions on paragraphs whose answers are stretches of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.data.labelled import fingerprint_from
from bench.data.opening import data_folders, not_found
from bench.data.texts import TextDataset
from bench.data.texttables import files_of, read_table
from bench.dataset import Splits, Text
from bench.errors import BenchError
from bench.files import at_home, regular

_DEV = ("dev-v1.1", "dev", "validation", "test")
_TRAIN = ("train-v1.1", "train")


class Question(NamedTuple):
    """One question; ``answers`` are what people marked, ``starts`` where in the context each begins."""

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


class SquadDataset(TextDataset):
    """Questions with their paragraphs. There is no class to learn: ``labels`` are int64 [N, 1] of zeros."""

    def __init__(self, name: str, split: str, questions: list[Question]) -> None:
        texts = [Text(one.question, one.context) for one in questions]
        nothing = np.zeros((len(questions), 1), dtype=np.int64)
        super().__init__(name, split, texts, nothing, ("span",), ids=[one.id for one in questions])
        self._questions = questions

    def question(self, index: int) -> Question:
        """The question with its answers."""
        return self._questions[index]

    def _take(self, indices: np.ndarray) -> None:
        super()._take(indices)
        self._questions = [self._questions[int(i)] for i in indices]

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_from(
            (hashlib.sha256(json.dumps(list(one)).encode()).digest() for one in self._questions), self.labels
        )


def open_squad(rest: str) -> Splits:
    """``squad:FOLDER`` or ``$BENCH_DATA/squad`` with ``train-v1.1.json`` and ``dev-v1.1.json``, or Parquet files.

    The test answers are private: what is reported on is the development set. Raises `BenchError` for SQuAD 2.0, for an
    answer that is not where it is said to be, and for files that are not in SQuAD's form.
    """
    looked = [at_home(rest)] if rest else data_folders("squad")
    folder = next((one for one in looked if one.is_dir()), None)
    if folder is None:
        raise not_found("squad", looked, "put train-v1.1.json and dev-v1.1.json there, or give --data squad:FOLDER")
    found = []
    if (folder / "plain_text").is_dir():
        folder = folder / "plain_text"  # as Hugging Face names its one configuration
    for names in (_TRAIN, _DEV):
        files = next((files for name in names if (files := files_of(folder, name))), None)
        if files is None:
            raise BenchError(f"squad: {folder} has no {names[0]}.json (nor {', '.join(names[1:])} as Parquet)")
        questions = list(_json(files[0]) if files[0].suffix == ".json" else _table(files))
        if not questions:
            raise BenchError(f"{files[0]} holds no question")
        found.append(questions)
    return Splits(SquadDataset("squad", "train", found[0]), SquadDataset("squad", "dev", found[1]))


def _json(path: Path) -> Iterator[Question]:
    regular(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path} is no readable JSON: {error}") from None
    try:
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    if asked.get("is_impossible"):
                        raise BenchError(f"{path} is SQuAD 2.0, with questions without answer: give version 1.1")
                    answers = [(one["text"], one["answer_start"]) for one in asked["answers"]]
                    yield _question(path, asked["id"], asked["question"], paragraph["context"], answers)
    except (KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{path} is not in SQuAD's form (data, paragraphs, qas, answers): {error!r:.80}") from None


def _table(files: list[Path]) -> Iterator[Question]:
    table = read_table(files)
    for name in ("id", "question", "context", "answers"):
        if name not in table.columns:
            raise BenchError(f"{table.path} has no column '{name}': it is not SQuAD as Hugging Face stores it")
    rows = zip(*(table.columns[name] for name in ("id", "question", "context", "answers")), strict=True)
    for number, (name, question, context, answers) in enumerate(rows):
        try:
            pairs = list(zip(answers["text"], answers["answer_start"], strict=True))
        except (KeyError, TypeError, ValueError):
            raise BenchError(f"{table.path}: row {number} (from 0) has no answers with text and answer_start") from None
        yield _question(table.path, name, question, context, pairs)


def _question(path: Path, name: Any, question: Any, context: Any, answers: list[tuple[Any, Any]]) -> Question:
    if not all(isinstance(one, str) for one in (name, question, context)):
        raise BenchError(f"{path} has a question whose id, text or context is no text: {name!r:.60}")
    if not answers:
        raise BenchError(f"{path}: the question {name} has no answer: give SQuAD 1.1, where every one has")
    for text, start in answers:
        fits = isinstance(text, str) and isinstance(start, int) and text and context[start : start + len(text)] == text
        if not fits or start < 0:
            raise BenchError(f"{path}: an answer of the question {name} is not at {start!r:.20} of its context")
    return Question(name, question, context, *(tuple(column) for column in zip(*answers, strict=True)))
