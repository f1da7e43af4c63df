"""Tokens: a folder's own tokenizer, and a text as the tensor that its network takes."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.dataset import Text
from bench.errors import BenchError

_PROBE = "Hello, WORLD! A naïve café's e-mail: don't  pay $3.14 — 中文, ça va?\tЗдравствуй #42_x"
_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
_LARGEST = 256 << 20


class Window(NamedTuple):
    """A question with a stretch of its document, as tokens."""

    ids: list[int]
    types: list[int]
    offsets: list[tuple[int, int] | None]
    """Characters of the document that a token covers; None for tokens that are not of the document."""


class Tokens:
    """The tokenizer of ``folder``, cutting at ``longest`` tokens (special ones counted); sent to workers by pickle.

    A pair is cut as BERT's published code does: one token at a time from the longer text. Raises `BenchError` where the
    folder has no tokenizer, or one that cannot be read; code in the folder is never run.
    """

    def __init__(self, folder: Path, longest: int) -> None:
        self.folder = folder
        self.longest = longest
        made = _tokenizer(folder)
        self.backend = made.backend_tokenizer
        self.pad = int(made.pad_token_id or 0)
        self.stated = made.model_max_length if made.model_max_length < 1 << 20 else None
        self._uncut = copy.deepcopy(self.backend)
        self._uncut.no_padding()
        self.at(longest)

    def at(self, longest: int) -> None:
        """Cut at ``longest`` tokens from here on."""
        special = self.backend.num_special_tokens_to_add(True)
        if longest <= special:
            raise BenchError(
                f"a text of {longest} tokens holds nothing beside its {special} special tokens: allow at least "
                f"{special + 1}"
            )
        self.longest = longest
        # A tokenizer.json may bring a length and a padding of its own.
        self.backend.no_padding()
        self.backend.enable_truncation(longest, strategy="longest_first")

    def __call__(self, text: Text) -> Tensor:
        """float32 [3, L]: token numbers, 1 where there is a token, and which of the two texts it belongs to.

        Whole numbers below 2^24 are exact in float32, so that texts take the way of images: the same batches, stores
        and workers. A network cuts a batch to its longest text before it is forwarded.
        """
        if not isinstance(text, Text):
            raise BenchError(f"a text encoder reads texts, not a {type(text).__name__}")
        made = self.backend.encode(text.first) if text.second is None else self.backend.encode(text.first, text.second)
        return self.packed(made.ids, made.type_ids)

    def windows(self, question: str, context: str, *, longest: int, stride: int, query: int) -> list[Window]:
        """``question`` (cut at ``query`` tokens) with every stretch of ``context``, ``stride`` tokens apart.

        A window holds ``longest`` tokens at most. As BERT reads documents beyond its length.
        """
        backend = self._uncut
        backend.no_truncation()
        asked = backend.encode(question, add_special_tokens=False)
        if len(asked.ids) > query:
            question = question[: asked.offsets[query - 1][1]]
        special = backend.num_special_tokens_to_add(True)
        room = longest - min(len(asked.ids), query) - special
        if room < 1:
            raise BenchError(f"windows of {longest} tokens leave no room beside a question of {query}: allow more")
        # The library counts the overlap, BERT's code the step.
        backend.enable_truncation(longest, stride=max(0, room - stride), strategy="only_second")
        made = backend.encode(question, context)
        return [
            Window(
                one.ids,
                one.type_ids,
                [at if of == 1 else None for at, of in zip(one.offsets, one.sequence_ids, strict=True)],
            )
            for one in (made, *made.overflowing)
        ]

    def packed(self, ids: list[int], types: list[int]) -> Tensor:
        """float32 [3, L] of one text's token numbers and parts."""
        rows = torch.zeros(3, self.longest)
        rows[0] = self.pad
        count = len(ids)
        rows[0, :count] = torch.tensor(ids, dtype=torch.float32)
        rows[1, :count] = 1
        rows[2, :count] = torch.tensor(types, dtype=torch.float32)
        return rows

    @property
    def kind(self) -> str:
        """WordPiece, BPE, Unigram..."""
        return type(self.backend.model).__name__

    def digest(self) -> str:
        """Of what it does: the vocabulary and the tokens of a sentence with case, accents and punctuation."""
        vocabulary = json.dumps(sorted(self.backend.get_vocab().items()), ensure_ascii=True)
        self._uncut.no_truncation()
        probe = self._uncut.encode(_PROBE, _PROBE)
        return hashlib.sha256(f"{vocabulary}|{probe.ids}|{probe.type_ids}".encode()).hexdigest()

    def describe(self) -> str:
        """One line for cards and records."""
        return f"{self.kind} tokens, at most {self.longest}, tokenizer {self.digest()[:12]}"


def cut(batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(numbers, mask, parts), int64 [B, L] each, of ``batch`` float [B, 3, longest]; L: the batch's longest text."""
    if batch.ndim != 3 or batch.shape[1] != 3:
        raise BenchError(f"a text encoder takes tokens [B, 3, L], not {list(batch.shape)}")
    whole = batch.long()
    longest = max(1, int(whole[:, 1].sum(dim=1).max()))
    numbers, mask, parts = whole[:, :, :longest].unbind(dim=1)
    return numbers, mask, parts


def _tokenizer(folder: Path) -> Any:
    found = [name for name in _FILES if (folder / name).is_file()]
    if not found:
        raise BenchError(
            f"{folder} has no tokenizer ({', '.join(_FILES)}): copy the files of the folder that the network was "
            f"trained with"
        )
    for name in found:
        if (folder / name).stat().st_size > _LARGEST:
            raise BenchError(f"{folder / name} is too large to be a vocabulary")
    from transformers import AutoTokenizer

    try:
        made = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, use_fast=True)
        backend = getattr(made, "backend_tokenizer", None)
    except Exception as error:  # whatever a damaged vocabulary provokes inside the library
        first = str(error).partition("\n")[0][:160] or type(error).__name__
        raise BenchError(f"the tokenizer of {folder} cannot be read ({first}): copy its files again") from error
    if backend is None:
        raise BenchError(f"the tokenizer of {folder} is a {type(made).__name__}, which has no fast form: save one")
    return made
