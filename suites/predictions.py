"""Per-sample tables of predictions, of one network and of a pair, made in row blocks to save memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from suites import fidelity

ROWS = 4096


@dataclass
class Answers:
    """What one network (or ensemble) answers, sample by sample; float64 or int64 [N]."""

    prediction: np.ndarray
    """Column of the largest probability, the first where tied."""
    confidence: np.ndarray
    """That probability."""
    correct: np.ndarray
    """1 where it is the true class."""
    nll: np.ndarray | None
    """-log p of the true class in nats; None when some true class has no column."""
    brier: np.ndarray | None
    true_score: np.ndarray
    """Probability of the true class, 0 where it has no column."""


@dataclass
class Pair:
    """How a student's answers stand to its teacher's; float64 [N]."""

    agree: np.ndarray
    kl: np.ndarray
    """KL(teacher || student), nats."""
    hinton_kl: np.ndarray | None
    """tau^2 KL at temperature tau; None for an ensemble, which has no logits."""
    js: np.ndarray
    tv: np.ndarray
    teacher_class_score: np.ndarray
    """The student's probability of the teacher's prediction."""


def answers(members: Sequence[np.ndarray], target: np.ndarray, who: str) -> Answers:
    """``members``: logits float [N, C] each (several: an ensemble); ``target`` int64 [N], -1 for no column."""
    complete = bool((target >= 0).all())
    parts: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(target), ROWS):
        rows = slice(start, start + ROWS)
        p = _probabilities(members, rows, who)
        best, truth = p.argmax(axis=1), target[rows]
        score = np.where(truth >= 0, np.exp(p[np.arange(len(p)), np.maximum(truth, 0)]), 0.0)
        nll = fidelity.negative_log_likelihoods(p, truth) if complete else score
        brier = fidelity.brier_scores(p, truth) if complete else score
        parts.append((best, np.exp(p.max(axis=1)), (best == truth).astype(np.float64), score, nll, brier))
    best, confidence, correct, score, nll, brier = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Answers(best, confidence, correct, nll if complete else None, brier if complete else None, score)


def pair(teachers: Sequence[np.ndarray], student: np.ndarray, tau: float) -> Pair:
    """``teachers``: logits float [N, C] each; ``student`` logits float [N, C]."""
    parts: list[tuple[np.ndarray, ...]] = []
    single = len(teachers) == 1
    for start in range(0, len(student), ROWS):
        rows = slice(start, start + ROWS)
        p, q = _probabilities(teachers, rows, "the teacher"), _probabilities([student], rows, "the student")
        parts.append(
            (
                fidelity.agreements(p, q),
                fidelity.divergences(p, q),
                fidelity.hinton_divergences(teachers[0][rows], student[rows], tau) if single else np.zeros(len(p)),
                fidelity.jensen_shannon(p, q),
                fidelity.total_variation(p, q),
                np.exp(q[np.arange(len(q)), p.argmax(axis=1)]),
            )
        )
    agree, kl, hinton, js, tv, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pair(agree, kl, hinton if single else None, js, tv, score)


def _probabilities(members: Sequence[np.ndarray], rows: slice, who: str) -> np.ndarray:
    return fidelity.ensemble([fidelity.log_probabilities(member[rows], who=who) for member in members])
