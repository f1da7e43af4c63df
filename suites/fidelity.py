"""Agreement of two networks in function space: what a student predicts against what its teacher predicts.

Pure functions (Stanton et al. 2021, "Does Knowledge Distillation Really Work?"; Milani Fard et al. 2016 for churn).
``teacher`` and ``student`` are log-probabilities float64 [N, C] from `log_probabilities`, rows the same samples in
the same order; the functions of the first part return one float64 per sample [N], whose mean is the metric.
Means are sums over the samples divided by N, whatever the batches were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.errors import BenchError


def log_probabilities(logits: np.ndarray, tau: float = 1.0, *, who: str = "the network") -> np.ndarray:
    """log softmax(logits / tau) as float64 [N, C]; ``logits`` float [N, C], N >= 1, C >= 1.

    Raises `BenchError` for a wrong shape, a temperature that is not positive, or values that are not finite.
    """
    if logits.ndim != 2 or 0 in logits.shape:
        raise BenchError(f"the logits of {who} have shape {list(logits.shape)}: a row of classes per sample is needed")
    if not (tau > 0 and np.isfinite(tau)):
        raise BenchError(f"a temperature must be positive and finite, not {tau}")
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise BenchError(
            f"the logits of {who} hold NaN or an infinity in {int((~finite).sum())} of {len(logits)} samples "
            f"(first: sample {int(np.argmin(finite))})"
        )
    scaled = logits.astype(np.float64) / tau
    scaled -= scaled.max(axis=1, keepdims=True)
    scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return scaled


def ensemble(members: Sequence[np.ndarray]) -> np.ndarray:
    """Log-probabilities of an ensemble: the mean of the members' probabilities, in log space (logsumexp - log n)."""
    if not members:
        raise BenchError("an ensemble needs at least one member")
    same_shape(*members)
    if len(members) == 1:
        return members[0]
    return np.asarray(np.logaddexp.reduce(np.stack(members), axis=0) - np.log(len(members)))


def same_shape(*arrays: np.ndarray) -> None:
    """Refuse arrays that are not of one shape."""
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise BenchError(
            f"outputs of shapes {' and '.join(str(list(s)) for s in sorted(shapes))} cannot be compared: "
            f"same samples and same classes are needed"
        )


# Per sample ---------------------------------------------------------------------------------------------------------


def agreements(teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    """1 where both have the same arg max (the first class where tied), else 0."""
    same_shape(teacher, student)
    return np.asarray(teacher.argmax(axis=1) == student.argmax(axis=1), dtype=np.float64)


def divergences(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) in nats; the average predictive KL has the teacher first. Never below 0."""
    same_shape(p, q)
    return np.asarray(np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0))


def hinton_divergences(teacher_logits: np.ndarray, student_logits: np.ndarray, tau: float) -> np.ndarray:
    """tau^2 KL(softmax(T / tau) || softmax(S / tau)) (Hinton et al. 2015), from logits float [N, C]."""
    teacher = log_probabilities(teacher_logits, tau, who="the teacher")
    student = log_probabilities(student_logits, tau, who="the student")
    return divergences(teacher, student) * tau**2


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in nats, in [0, ln 2], symmetric."""
    same_shape(p, q)
    # Equal probabilities are their own mean, to the last bit.
    middle = np.where(p == q, p, np.logaddexp(p, q) - np.log(2.0))
    return np.asarray(np.clip((divergences(p, middle) + divergences(q, middle)) / 2, 0.0, np.log(2.0)))


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Half the L1 distance of the probabilities, in [0, 1], symmetric."""
    same_shape(p, q)
    return np.asarray(np.minimum(np.abs(np.exp(p) - np.exp(q)).sum(axis=1) / 2, 1.0))


def negative_log_likelihoods(p: np.ndarray, target: np.ndarray) -> np.ndarray:
    """-log p of the true class in nats; ``target`` int [N], columns of p."""
    return np.asarray(-p[np.arange(len(p)), _targets(p, target)])


def brier_scores(p: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Sum over classes of (p - one hot)^2, in [0, 2] (Brier 1950, the multi-class original)."""
    probabilities = np.exp(p)
    probabilities[np.arange(len(p)), _targets(p, target)] -= 1.0
    return np.asarray(np.square(probabilities).sum(axis=1))


# Of counts ----------------------------------------------------------------------------------------------------------


def kappa(agreement: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Chance-corrected agreement (Cohen 1960): (a - a_e) / (1 - a_e), a_e = sum_c P_1(c) P_2(c).

    ``agreement`` [...]: observed share; ``first``, ``second`` [..., C]: shares of each network's predictions. NaN where
    a_e is 1, that is where both networks predict one and the same class throughout: then nothing is left to correct.
    """
    chance = (first * second).sum(axis=-1)
    # All samples in one common class: a_e is 1 but for rounding.
    certain = chance >= 1.0 - 1e-12
    return np.asarray(np.where(certain, np.nan, (agreement - chance) / np.where(certain, 1.0, 1.0 - chance)))


def confusion(target: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """float64 [C, C]: share of the samples of each true class (row) by predicted class; NaN for a class without any."""
    counts = np.bincount(target * classes + prediction, minlength=classes**2).reshape(classes, classes)
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), np.nan)


class Calibration(NamedTuple):
    """Expected calibration error of equal-width bins."""

    ece: np.ndarray
    """Sum over bins of n_b / N |accuracy_b - confidence_b| (Naeini et al. 2015; Guo et al. 2017)."""
    debiased: np.ndarray
    """The same less its estimated excess from the binomial noise of each bin's accuracy; may fall below 0."""


def confidence_bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Bin of each confidence (max probability): ((b-1)/bins, b/bins] as Guo et al. draw them, 0 in the first."""
    if bins < 1:
        raise BenchError(f"calibration needs at least one bin, not {bins}")
    return np.asarray(np.clip(np.ceil(np.asarray(confidence) * bins).astype(np.int64) - 1, 0, bins - 1))


def calibration(counts: np.ndarray, correct: np.ndarray, confidence: np.ndarray) -> Calibration:
    """ECE from sums per bin [..., bins]: samples, right predictions, confidences.

    The debiased estimate takes from the plug-in value what noise alone adds to it: with a bin's accuracy normal around
    the observed one (variance a(1 - a) / n), the mean of |accuracy - confidence| exceeds the observed gap by a known
    amount (mean of a folded normal). This is the normal approximation of Kumar, Liang & Ma 2019, in closed form; it
    removes part of the bias, about half of it for a calibrated network.
    """
    from scipy.special import ndtr

    n = counts.sum(axis=-1)
    filled = np.maximum(counts, 1)
    accuracy = correct / filled
    gap = np.abs(accuracy - confidence / filled)
    sd = np.sqrt(np.clip(accuracy * (1 - accuracy), 0, None) / filled)
    ratio = gap / np.where(sd > 0, sd, 1.0)
    folded = np.where(
        sd > 0, sd * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + gap * (1 - 2 * ndtr(-ratio)), gap
    )  # fmt: skip
    weight = counts / n[..., None]
    ece = (weight * gap).sum(axis=-1)
    return Calibration(ece, 2 * ece - (weight * folded).sum(axis=-1))


def ece(p: np.ndarray, target: np.ndarray, bins: int) -> Calibration:
    """`calibration` of log-probabilities [N, C] against true columns int [N]."""
    confidence = np.exp(p.max(axis=1))
    bin_of = confidence_bins(confidence, bins)
    right = (p.argmax(axis=1) == _targets(p, target)).astype(np.float64)
    sums = [np.bincount(bin_of, weights=w, minlength=bins) for w in (np.ones(len(p)), right, confidence)]
    return calibration(*sums)


def _targets(p: np.ndarray, target: np.ndarray) -> np.ndarray:
    if len(target) != len(p):
        raise BenchError(f"{len(target)} labels for {len(p)} samples: one label per sample is needed")
    if len(target) and not (target.min() >= 0 and target.max() < p.shape[1]):
        raise BenchError(f"labels {target.min()} to {target.max()} do not fit outputs of {p.shape[1]} classes")
    return target
