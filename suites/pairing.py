"""Networks compared on the same samples: that they are the same is checked, and each gets logits by one rule."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from bench.errors import BenchError
from suites.classification import features_of, labels_of

if TYPE_CHECKING:
    from bench.card import Card
    from bench.featureset import FeatureSet
    from bench.suite import Task

LABEL_SETS = {
    "imagenet-1k": {"imagenet", "imagenet1k", "in1k", "ilsvrc2012"},
    "fashion-mnist": {"fashionmnist", "demo"},
}
"""Data sets, besides the one of that name, whose classes a label set is."""


class Network(NamedTuple):
    """One side of a comparison."""

    card: Card
    data: Mapping[str, FeatureSet]

    @property
    def label(self) -> str:
        """Name and the start of the weight digest: two networks of one name stay apart."""
        return f"{self.card.name}#{self.card.weight_digest.removeprefix('sha256:')[:8]}"


def networks_of(task: Task) -> dict[str, Network]:
    """``student``, ``teacher`` and the further models by role. Refused unless all read the same samples."""
    if task.teacher is None or task.teacher_card is None:
        raise BenchError(f"suite '{task.protocol.suite}' compares with a teacher: say which with --teacher SPEC")
    found = {"student": Network(task.card, task.data), "teacher": Network(task.teacher_card, task.teacher)}
    found.update({role: Network(other.card, other.data) for role, other in task.others.items()})
    for role, network in found.items():
        for split in set(task.data) & set(network.data):
            _same_samples(task.data[split], network.data[split], f"the {role} '{network.card.name}'")
        if role != "student" and vouched(found["student"], network) == "labels":
            task.progress.warn(
                f"{task.protocol.suite}: that the {role} '{network.card.name}' has the student's samples in the "
                f"student's order is told by equal labels alone: save 'ids' with both to be sure"
            )
    return found


def vouched(student: Network, other: Network) -> str:
    """What says that both read the same samples: ``ids``, the content's ``fingerprint``, or ``labels`` alone.

    Features made elsewhere are fingerprinted by their labels.
    """
    if student.card.weight_digest == other.card.weight_digest:
        return "fingerprint"
    splits = [split for split in student.data if split in other.data]
    sides = [list(network.data[split].ids) for split in splits for network in (student, other)]
    if not any(map(_numbered, sides)):
        return "ids"
    return "labels" if student.data[splits[0]].dataset == "features" else "fingerprint"


def _same_samples(mine: FeatureSet, other: FeatureSet, whose: str) -> None:
    where = f"{mine.dataset} {mine.split}"
    if len(mine) == 0:
        raise BenchError(f"{where} holds no samples")
    if len(mine) != len(other):
        raise BenchError(f"{whose} has {len(other)} samples for the student's {len(mine)} of {where}: pairs are needed")
    if not np.array_equal(mine.labels, other.labels):
        first = int((mine.labels != other.labels).argmax())
        raise BenchError(
            f"{whose} has other labels than the student for {where} (first: sample {first}): the rows are not the same "
            f"samples in the same order"
        )
    if mine.fingerprint != other.fingerprint:
        raise BenchError(f"{whose} was given other samples than the student's {where}: their fingerprints differ")
    a, b = list(mine.ids), list(other.ids)
    if a != b and not (_numbered(a) or _numbered(b)):
        first = next(i for i, (p, q) in enumerate(zip(a, b, strict=True)) if p != q)
        raise BenchError(
            f"{whose} has other sample ids than the student for {where} (first: '{b[first]}' for '{a[first]}')"
        )


def _numbered(ids: list[str]) -> bool:
    """Names that say no more than the position: features saved without ids."""
    return all(name.rpartition("/")[2] == str(i) for i, name in enumerate(ids))


@dataclass
class Logits:
    """Logits of every network over the same classes."""

    source: Literal["own", "probe"]
    by_role: dict[str, dict[str, np.ndarray]]
    """role -> split -> float [N, C]."""
    target: dict[str, np.ndarray]
    """split -> int64 [N], columns; -1 for a class that the probes never saw."""
    values: np.ndarray
    """The data set's label of every column."""
    details: dict[str, Any]
    """What the probes chose, by role."""


def logits_of(task: Task, networks: Mapping[str, Network], splits: list[str]) -> Logits:
    """Every network's own logits when all have some over the data set's classes, else those of one probe protocol.

    The option ``logits`` settles it: ``auto``, or ``own`` (refused where it cannot be) or ``probe``. The probe is
    ``linear/logreg@1`` on each network's pooled features, fitted on the train split; ``C`` fixes its penalty.
    """
    wish = task.settings["logits"]
    if wish not in ("auto", "own", "probe"):
        raise BenchError(f"{task.protocol.suite}.logits is auto, own or probe, not '{wish}'")
    if any(task.data[split].labels.ndim > 1 for split in splits):
        raise BenchError(
            f"{task.data[splits[0]].dataset} gives a sample several labels, and suite '{task.protocol.suite}' compares "
            f"predictions of one"
        )
    classes = np.array(sorted(task.data[splits[0]].classes), dtype=np.int64)
    if wish != "probe":
        reasons = [why for network in networks.values() if (why := _lacks(network, classes, splits, wish == "own"))]
        if not reasons:
            return _own(task, networks, splits, classes)
        if wish == "own":
            raise BenchError(f"{task.protocol.suite}.logits=own cannot be: {reasons[0]}; leave it to probes")
    return _probes(task, networks, splits)


def _lacks(network: Network, classes: np.ndarray, splits: list[str], forced: bool) -> str | None:
    """Why the network's own classifier does not serve, None when it does."""
    name = network.card.name
    for split in splits:
        width = network.data[split].widths.get("logits")
        if width is None:
            return f"'{name}' has no classifier of its own"
        if width != len(classes):
            return f"'{name}' has {width} classes and the data {len(classes)}"
    # Features made elsewhere bring logits for the labels that they bring; a network says which label set it knows.
    if forced or network.card.family == "features":
        return None
    data = network.data[splits[0]].dataset
    if not knows(network.card.classes, data):
        return f"the classes of '{name}' ({network.card.classes}) are not known to be those of {data}"
    return None


def knows(label_set: str | None, dataset: str) -> bool:
    """Whether a classifier over ``label_set`` answers in the classes of ``dataset``."""

    def plain(name: str) -> str:
        return re.sub(r"[^a-z0-9]", "", name.lower())

    if label_set is None:
        return False
    # A part of a data set (``--limit``) has the classes of the whole.
    return plain(dataset.partition("[")[0]) in {plain(label_set)} | LABEL_SETS.get(label_set, set())


def _own(task: Task, networks: Mapping[str, Network], splits: list[str], classes: np.ndarray) -> Logits:
    target = {split: np.searchsorted(classes, task.data[split].labels) for split in splits}
    logits = {
        role: {split: network.data[split].array("logits") for split in splits} for role, network in networks.items()
    }
    return Logits("own", logits, target, classes, {})


def _probes(task: Task, networks: Mapping[str, Network], splits: list[str]) -> Logits:
    from bench.protocol import get
    from suites.logreg_probe import probe, remarks

    if "train" not in task.data:
        raise BenchError(f"suite '{task.protocol.suite}' needs the train split to train probes on")
    card = get("linear", "linear/logreg@1").variant({"C": task.settings["C"]})
    labels = labels_of(task)
    unseen = labels.test >= labels.trained
    target = {"train": labels.train, "test": np.where(unseen, -1, labels.test)}
    logits: dict[str, dict[str, np.ndarray]] = {}
    details: dict[str, Any] = {}
    for role, network in networks.items():
        sub = dataclasses.replace(task, protocol=card, card=network.card, data=network.data)
        chosen, path, fit = probe(sub, labels, features_of(network.data["train"], "pooled"))
        logits[role] = {split: fit.logits(features_of(network.data[split], "pooled")) for split in splits}
        details[role] = {"C": chosen, **remarks(card.settings, path, chosen, fit)}
    return Logits("probe", logits, {s: target[s] for s in splits}, labels.values[: labels.trained], details)


def described(networks: Mapping[str, Network]) -> dict[str, Any]:
    """For `Measurement.details`: who was compared, each with the transform that it saw the samples through."""
    return {
        role: {
            "name": network.card.name,
            "weight_digest": network.card.weight_digest,
            "transform": network.card.transform.describe() if network.card.transform else None,
            **({"same_samples_by": vouched(networks["student"], network)} if role != "student" else {}),
        }
        for role, network in networks.items()
    }
