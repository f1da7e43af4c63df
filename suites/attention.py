"""Attention: does the student's class token look where its teacher's looks?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bench.options import Allowed
from suites import looking

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Needs, Task


class Attention:
    """Similarity of the class token's attention in the last block, mean of the heads; the headline is the cosine."""

    name = "attention"
    default = "attention/last-block@1"
    options: ClassVar[dict[str, Allowed]] = looking.OPTIONS

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        from suites.attention_maps import check

        check(card, "the student")
        return looking.needs_of(protocol)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        import torch

        from bench.device import forward_mode
        from suites.attention_maps import check, class_attention

        student, card, teacher, guide = looking.both_networks(task)
        check(guide, "the teacher")
        rows: list[int] = []
        found: dict[str, list[np.ndarray]] = {"student": [], "teacher": []}
        with forward_mode(torch.device(task.device), task.protocol.precision):
            for kept, mine, theirs in looking.batches(task, task.settings["split"]):
                rows += kept
                found["student"].append(class_attention(student, mine).cpu().numpy())
                found["teacher"].append(class_attention(teacher, theirs).cpu().numpy())
        maps = looking.Maps(
            looking.enough(task, rows), np.concatenate(found["teacher"]), np.concatenate(found["student"])
        )  # fmt: skip
        yield from looking.measured(
            task, "attention", maps, ("cosine", "spearman", "kl", "js"), headline=True,
            settings={"teacher": looking.label_of(guide)}, details={"networks": looking.transforms_of(card, guide)},
        )  # fmt: skip
