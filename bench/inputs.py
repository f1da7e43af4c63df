"""Inputs: the fingerprint of everything that a run reads, by the part it plays; ``--from`` and resuming hold to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.card import Card
    from bench.dataset import Splits
    from bench.record import Record
    from bench.stored import StoredFeatures

READ_AS = ("architecture", "feature", "transform")
"""What may differ between two readings of the same weights, and changes every feature."""


def inputs_of(models: Mapping[str, Backbone | StoredFeatures | None], opened: Mapping[str, Splits]) -> dict[str, str]:
    """What -> fingerprint: the weights of each model, and both splits of every data set.

    ``models``: its part (``the model``, ``the teacher``, the SPEC of a further one) -> what was loaded, None where
    there is none. ``opened``: data set as people call it -> splits. Features made elsewhere bring their own samples,
    whose labels no weight digest covers.
    """
    from bench.stored import StoredFeatures

    found: dict[str, str] = {}
    for part, model in models.items():
        if model is None:
            continue
        found[f"the weights of {part}"] = model.card.weight_digest
        if isinstance(model, StoredFeatures):
            found |= _samples(part, model.train.fingerprint, model.test.fingerprint)
    for spec, splits in opened.items():
        found |= _samples(spec, splits.train.fingerprint, splits.test.fingerprint)
    return found


def check_unchanged(then: Record, student: Card, teacher: Card | None, inputs: Mapping[str, str]) -> None:
    """Refuse to repeat ``then`` on other inputs: a number that looks like a repetition and is none misleads.

    Raises `BenchError` that names the first part that changed, with both fingerprints.
    """
    if not then.inputs:
        raise BenchError(f"the record {then.run} does not say what it read: it cannot be repeated")
    for what in dict.fromkeys([*then.inputs, *inputs]):
        before, after = then.inputs.get(what), inputs.get(what)
        if before != after:
            raise BenchError(
                f"{what} are not those of the record {then.run} ({_short(after)} now, {_short(before)} then): "
                f"ask for a new run with --model and --suite"
            )
    for part, was, card in (("model", then.model, student), ("teacher", then.teacher, teacher)):
        if was is None or card is None:
            continue  # A teacher that came or went changed the inputs above.
        for field in READ_AS:
            before, after = getattr(was, field), getattr(card, field)
            if before != after:
                raise BenchError(
                    f"this version reads the {part} of the record {then.run} differently: {field} is "
                    f"{_told(after)} now, {_told(before)} then"
                )


def _samples(part: str, train: str, test: str) -> dict[str, str]:
    return {f"the training samples of {part}": train, f"the test samples of {part}": test}


def _short(fingerprint: str | None) -> str:
    return fingerprint[:19] if fingerprint else "none"


def _told(value: object) -> str:
    describe = getattr(value, "describe", None)
    return str(describe() if describe else value)
