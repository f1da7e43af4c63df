"""Marking answers in documents: windows over them, a head for start and end, and the best valid spans (BERT's way)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import BenchError
from suites.training.groups import grouped
from suites.training.length import Length
from suites.training.loop import Trained, train
from suites.training.schedule import Schedule

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.dataset import Dataset
    from bench.suite import Task


class Piece(NamedTuple):
    """A window of a question: its tokens, the characters they cover, and the tokens of the answer (0: not in it)."""

    question: int
    ids: np.ndarray
    types: np.ndarray
    offsets: list[tuple[int, int] | None]
    start: int
    end: int


class SpanNetwork(nn.Module):
    """A copy of ``backbone`` and one linear layer for the scores of a token to begin and to end the answer."""

    def __init__(self, backbone: Backbone, *, dropout: float, head_sd: float, seed: int) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.card.dims["cls"], 2)
        with torch.no_grad():
            nn.init.trunc_normal_(self.head.weight, std=head_sd, generator=torch.Generator().manual_seed(seed))
            self.head.bias.zero_()

    def scores(self, batch: Tensor) -> Tensor:
        """[B, L, 2] of tokens [B, 3, longest]; L is the longest window of the batch, padding at -infinity."""
        hidden, mask = cast(Any, self.backbone).last_tokens(batch)
        found = cast(Tensor, self.head(self.dropout(hidden))).float()
        return found.masked_fill(mask.unsqueeze(-1) == 0, -math.inf)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The mean of both cross-entropies; ``batch``: (tokens [B, 3, longest], int64 [B, 2] start and end)."""
        tokens, spans = batch
        begin, end = self.scores(tokens).unbind(dim=-1)
        entropy = nn.functional.cross_entropy
        return {"loss": (entropy(begin, spans[:, 0]) + entropy(end, spans[:, 1])) / 2}


class Windows:
    """``samples[i]``: (tokens float32 [3, longest], int64 [2])."""

    noun = "windows"

    def __init__(self, pieces: list[Piece], backbone: Backbone, longest: int) -> None:
        self.pieces = pieces
        self.pad = int(cast(Any, backbone).tokens.pad)
        self.longest = longest

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        piece = self.pieces[index]
        return packed(piece, self.pad, self.longest), torch.tensor([piece.start, piece.end])


def packed(piece: Piece, pad: int, longest: int) -> Tensor:
    """The window as a text encoder takes it, float32 [3, longest]."""
    rows = torch.zeros(3, longest)
    rows[0] = pad
    count = len(piece.ids)
    rows[0, :count] = torch.from_numpy(piece.ids.astype(np.float32))
    rows[1, :count] = 1
    rows[2, :count] = torch.from_numpy(piece.types.astype(np.float32))
    return rows


def learned(task: Task) -> tuple[Trained, dict[str, int]]:
    """The network trained on all windows of train, and how many windows there are."""
    from bench.loader import default_workers

    settings, backbone = task.settings, task.backbone
    assert backbone is not None
    pieces = list(windows_of(task, task.images["train"], "squad windows"))
    network = SpanNetwork(backbone, dropout=settings["dropout"], head_sd=settings["head_sd"], seed=task.seed)
    length = Length.of(len(pieces), settings["batch"], epochs=settings["epochs"])
    trunk = cast(nn.Module, getattr(network.backbone, "network", network.backbone))
    groups = grouped([(trunk, 1.0), (network.head, 1.0)], weight_decay=settings["weight_decay"])
    longest = max(len(piece.ids) for piece in pieces)
    device = torch.device(task.device)
    trained = train(
        network,
        torch.optim.AdamW(groups, lr=settings["lr"]),
        Windows(pieces, backbone, longest),
        length=length,
        schedule=Schedule(
            "poly",
            peak=settings["lr"],
            iterations=length.iterations,
            warmup=int(settings["warmup"] * length.iterations),
        ),
        device=device,
        progress=task.progress,
        precision=task.protocol.precision,
        seed=task.seed,
        name="squad",
        folder=task.folder / "training" if task.folder is not None else None,
        identity=[task.protocol.id],
        micro=task.batch,
        workers=task.workers if task.workers is not None else default_workers(device),
        clip=settings["clip"] or None,
    )
    outside = sum(piece.start == 0 for piece in pieces)
    return trained, {"train": len(pieces), "train_without_the_answer": outside}


def windows_of(task: Task, images: Dataset, name: str) -> Iterator[Piece]:
    """Every window of every question, in order; the answer's tokens are those of the first that people marked."""
    settings, backbone = task.settings, cast(Any, task.backbone)
    with task.progress.stage(name, len(images), "questions") as stage:
        for number in range(len(images)):
            asked = cast(Any, images).question(number)
            try:
                windows = backbone.windows(
                    asked.question, asked.context, longest=settings["length"], stride=settings["stride"],
                    query=settings["query"],
                )  # fmt: skip
            except (UnicodeEncodeError, TypeError) as error:
                raise BenchError(f"the question {asked.id} of {images.name} is no valid Unicode: {error}") from None
            first = (asked.starts[0], asked.starts[0] + len(asked.answers[0]))
            for window in windows:
                start, end = marked(window.offsets, *first)
                ids = np.array(window.ids, dtype=np.int32)
                yield Piece(number, ids, np.array(window.types, dtype=np.uint8), window.offsets, start, end)
            stage.advance()


def marked(offsets: list[tuple[int, int] | None], begin: int, end: int) -> tuple[int, int]:
    """The first and last token of the characters ``begin`` to ``end``; (0, 0) where the window does not hold them all.

    As in BERT's code, which lets such windows point at the class token.
    """
    own = [(token, at) for token, at in enumerate(offsets) if at is not None and at[1] > at[0]]
    if not own or own[0][1][0] > begin or own[-1][1][1] < end:
        return 0, 0
    inside = [token for token, at in own if at[0] < end and at[1] > begin]
    return (inside[0], inside[-1]) if inside else (0, 0)


def answers(task: Task, trained: Trained) -> list[list[dict[str, Any]]]:
    """For every question its best answers, best first: ``text``, ``probability`` among them, the two scores."""
    from bench.device import forward_mode

    settings, network = task.settings, cast(SpanNetwork, trained.network)
    images, device = task.images["test"], torch.device(task.device)
    pieces = list(windows_of(task, images, "squad dev windows"))
    by_question: list[list[Piece]] = [[] for _ in range(len(images))]
    scored: list[list[np.ndarray]] = [[] for _ in range(len(images))]
    size = task.batch or (64 if device.type == "cuda" else 16)
    pad, longest = int(cast(Any, task.backbone).tokens.pad), max(len(piece.ids) for piece in pieces)
    with (
        forward_mode(device, task.protocol.precision),
        task.progress.stage("squad answers", len(pieces), "windows") as s,
    ):
        for at in range(0, len(pieces), size):
            part = pieces[at : at + size]
            batch = torch.stack([packed(piece, pad, longest) for piece in part]).to(device)
            found = network.scores(batch).float().cpu().numpy()
            for piece, row in zip(part, found, strict=True):
                by_question[piece.question].append(piece)
                scored[piece.question].append(row[: len(piece.ids)])
            s.advance(len(part))
    result = []
    for number in range(len(images)):
        context = cast(Any, images).question(number).context
        windows = [piece.offsets for piece in by_question[number]]
        result.append(best_spans(context, windows, scored[number], settings["n_best"], settings["answer"]))
    return result


def best_spans(
    context: str, windows: list[list[tuple[int, int] | None]], scores: list[np.ndarray], n_best: int, longest: int
) -> list[dict[str, Any]]:
    """The ``n_best`` valid answers of at most ``longest`` tokens, from ``scores`` [L, 2] of each window.

    Valid: of the document, end not before start, and begun where the window gives the token the most context of all
    windows. Raises `BenchError` for scores that are not finite.
    """
    roomy = most_context(windows)
    found: list[tuple[float, str, float, float]] = []
    for number, (offsets, score) in enumerate(zip(windows, scores, strict=True)):
        if not np.isfinite(score).all():
            raise BenchError("squad: the network gives scores that are not finite: lower squad.lr")
        begins, ends = (np.argsort(-score[:, side], kind="stable")[:n_best] for side in (0, 1))
        for begin in begins:
            first = offsets[begin]
            if first is None or roomy.get(first) != number:
                continue
            for end in ends:
                last = offsets[end]
                if last is None or end < begin or end - begin + 1 > longest:
                    continue
                total = float(score[begin, 0] + score[end, 1])
                found.append((total, context[first[0] : last[1]], float(score[begin, 0]), float(score[end, 1])))
    found.sort(key=lambda one: -one[0])
    # The same words from another place are no other answer.
    kept = list({text: (total, text, a, b) for total, text, a, b in reversed(found)}.values())[::-1]
    kept = sorted(kept, key=lambda one: -one[0])[:n_best]
    if not kept:
        return [{"text": "", "probability": 1.0, "start_logit": 0.0, "end_logit": 0.0}]
    weights = np.exp(np.array([one[0] for one in kept]) - kept[0][0])
    shares = weights / weights.sum()
    return [
        {"text": text, "probability": float(share), "start_logit": a, "end_logit": b}
        for (_, text, a, b), share in zip(kept, shares, strict=True)
    ]


def most_context(windows: list[list[tuple[int, int] | None]]) -> dict[tuple[int, int], int]:
    """For every token of the document (by its characters) the window in which it has the most on both sides.

    A window's offer is the smaller of the tokens to the left and to the right, plus a hundredth of its length.
    """
    chosen: dict[tuple[int, int], tuple[float, int]] = {}
    for number, offsets in enumerate(windows):
        own = [at for at in offsets if at is not None]
        for place, at in enumerate(own):
            offer = min(place, len(own) - place - 1) + 0.01 * len(own)
            if at not in chosen or offer > chosen[at][0]:
                chosen[at] = (offer, number)
    return {at: number for at, (_, number) in chosen.items()}
