"""SQuAD's exact match and F1 by the rules of its official evaluation script (version 1.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)


def normalised(answer: str) -> str:
    """Lower case, without ASCII punctuation and articles, single spaces; in this order."""
    bare = "".join(character for character in answer.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(prediction: str, reference: str) -> float:
    """1 where the normalised answers are equal."""
    return float(normalised(prediction) == normalised(reference))


def f1(prediction: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the words of the normalised answers, repeats counted."""
    given, wanted = normalised(prediction).split(), normalised(reference).split()
    same = sum((Counter(given) & Counter(wanted)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(given), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def best(metric: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    """The largest over what people marked."""
    return max(metric(prediction, reference) for reference in references)
