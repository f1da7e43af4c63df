"""Which measurements may stand beside each other (law 2), at the two strictnesses that reports need.

Two records of *one* network are compared sample by sample: there every field must agree, the input transform and the
token read included (`exact_column`).

A leaderboard compares *networks*. The input transform and the token that a network's paper evaluates frozen belong to
the network like its weights do, so there the *rule* must agree instead of the value: "the network's own transform" and
"the network's own pooled feature" are one rule whatever they resolve to; anything else, an overridden transform or a
protocol that asks for a particular token, is compared as it stands (`column_of`). Protocol, engine, selection rule,
precision, data set, split and both fingerprints must agree in either case.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.card import Transform

if TYPE_CHECKING:
    from bench.card import Card
    from bench.record import Measurement

OWN = "the model's own"
WHOLE = "the model's own, the shorter side at the crop"
"""As transfer tables and ImageNet-C are read: one rule for every network, as `OWN` is."""


class Column(NamedTuple):
    """All that measurements in one column of a board share. Every field is text, so columns sort and hash."""

    suite: str
    metric: str
    unit: str
    direction: str
    dataset: str
    split: str
    fingerprint: str
    learned_from: str
    protocol: str
    settings: str
    selection: str
    engine: str
    feature: str
    transform: str
    precision: str


_CALLED = {
    "learned_from": "training data",
    "fingerprint": "data fingerprint",
    "dataset": "data set",
    "selection": "selection rule",
    "direction": "direction of better",
}


def column_of(m: Measurement, card: Card) -> Column:
    """The board's column of a measurement of the model ``card``."""
    feature = dict(m.feature)
    if feature.get("tokens") == card.feature:
        feature["tokens"] = OWN
    return _column(m, feature, _rule(m.transform, card.transform))


def _rule(transform: Transform | None, own: Transform | None) -> str:
    """How the images came to the network, as a rule where it is one."""
    if transform == own:
        return OWN
    if own is not None and isinstance(own.crop, int) and transform == own.model_copy(update={"resize": own.crop}):
        return WHOLE
    return _text(transform.model_dump() if transform else None)


def exact_column(m: Measurement) -> Column:
    """What must agree before two measurements of one network are subtracted: token and transform as they are."""
    return _column(m, m.feature, _text(m.transform.model_dump(mode="json") if m.transform else None))


def _column(m: Measurement, feature: dict[str, Any], transform: str) -> Column:
    return Column(
        suite=m.suite,
        metric=m.metric,
        unit=m.unit,
        direction="higher" if m.higher_is_better else "lower",
        dataset=m.dataset,
        split=m.split,
        fingerprint=m.fingerprint,
        learned_from=m.train_fingerprint or "",
        protocol=m.protocol,
        settings=_text(m.settings),
        selection=m.selection,
        engine=f"{m.engine.name} {m.engine.version}",
        feature=_text(feature),
        transform=transform,
        precision=m.precision,
    )


def differences(a: Column, b: Column) -> list[str]:
    """The fields in which two columns differ: ``protocol (knn/dino@1 against knn/ibot@1)``, as people call them."""
    told = []
    for field in differing(a, b):
        first, second = _told(field, getattr(a, field)), _told(field, getattr(b, field))
        if first == second:  # What is shortened for people must not hide the difference itself.
            first, second = getattr(a, field), getattr(b, field)
        told.append(f"{called(field)} ({first} against {second})")
    return told


def _told(field: str, text: str) -> str:
    if field == "transform" and text not in (OWN, WHOLE, "null"):
        return Transform.model_validate_json(text).describe()
    if field in ("fingerprint", "learned_from"):
        return text[:19] or "none"
    return text or "none"


def differing(a: Column, b: Column) -> list[str]:
    """Names of the fields of `Column` in which two differ."""
    return [field for field in Column._fields if getattr(a, field) != getattr(b, field)]


def called(field: str) -> str:
    """What people call a field of `Column`."""
    return _CALLED.get(field, field)


def _text(document: Any) -> str:
    """Equal for equal JSON documents, whatever the order of keys; 1 and 1.0 are one number."""
    return json.dumps(_canonical(document), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _canonical(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _canonical(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_canonical(value) for value in node]
    if isinstance(node, float) and node.is_integer() and not isinstance(node, bool):
        return int(node)
    return node
