"""Layers: every layer of the student against every layer of its teacher, as a map and two numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bench.errors import BenchError
from bench.options import Allowed, words
from bench.suite import Needs, Outcomes, engine_of
from suites import similarity_measures
from suites.classification import features_of
from suites.pairing import described, networks_of

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task
    from suites.similarity_measures.measure import Value

MEASURES = ("cka", "cka_debiased")
"""Those whose value comes with the samples' influence, from which a mean over pairs takes its interval."""


class LayerMap:
    """The map is an artifact; ``last`` (last layer against last) and ``matched`` (the headline) are measured.

    ``matched``: over the student's layers, the mean similarity to the teacher's layer that is nearest to each.
    """

    name = "layers"
    default = "layers/cka@1"
    options: ClassVar[dict[str, Allowed]] = {"measure": words(*MEASURES), "split": words("train", "test")}

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        return Needs(("layers",), (protocol.settings["split"],), teacher=True)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        networks = networks_of(task)
        split: str = task.settings["split"]
        levels = {
            role: layers_of(features_of(networks[role].data[split], "layers"), networks[role].card)
            for role in ("teacher", "student")
        }
        measure = similarity_measures.get(task.settings["measure"])
        n = len(task.data[split])
        pairs: dict[tuple[int, int], Value] = {}
        with task.progress.stage("layers", len(levels["teacher"]) * len(levels["student"]), "pairs") as stage:
            for i, x in enumerate(levels["teacher"]):
                for j, y in enumerate(levels["student"]):
                    try:
                        pairs[i, j] = measure.compute(x, y)
                    except BenchError as refusal:
                        raise BenchError(
                            f"layers: layer {i + 1} of the teacher against layer {j + 1} of the student: {refusal}"
                        ) from None
                    stage.advance()
        rows, columns = len(levels["teacher"]), len(levels["student"])
        matrix = np.array([[pairs[i, j].value for j in range(columns)] for i in range(rows)])
        nearest = [(int(matrix[:, j].argmax()), j) for j in range(columns)]
        table = Outcomes(
            f"map-{split}",
            {
                "similarity": matrix,
                "teacher_widths": np.array([x.shape[1] for x in levels["teacher"]]),
                "student_widths": np.array([y.shape[1] for y in levels["student"]]),
            },
        )
        for name, chosen in (("matched", nearest), ("last", [(rows - 1, columns - 1)])):
            value = float(np.mean([pairs[pair].value for pair in chosen]))
            influences = [pairs[pair].influence for pair in chosen]
            interval = None
            if all(influence is not None for influence in influences):
                se = float(np.sqrt(np.square(np.mean([i for i in influences if i is not None], axis=0)).sum()))
                low, high = measure.bounds
                interval = (max(low, value - 1.959963984540054 * se), min(high, value + 1.959963984540054 * se))
            yield task.measure(
                f"{measure.name}_{name}",
                value,
                n=n,
                engine=engine_of("numpy", "bench-similarity+numpy"),
                unit="",
                interval=interval,
                interval_method="infinitesimal jackknife" if interval else None,
                interval_note=None if interval else "the estimate of a layer's own dependence is not positive",
                split=split,
                headline=name == "matched",
                settings={"teacher": networks["teacher"].label},
                details={
                    "networks": described(networks),
                    "layers": {"teacher": rows, "student": columns},
                    # A maximum over layers is taken on the same samples: it leans upwards a little.
                    **({"nearest_teacher_layer": [i + 1 for i, _ in nearest]} if name == "matched" else {}),
                },
                outcomes=table,
            )


def layers_of(array: np.ndarray, card: Card) -> list[np.ndarray]:
    """The layers that the stored feature ``layers`` [N, sum of D_i] holds side by side, first layer first.

    Their widths are those of the pyramid's maps (``card.channels``); a plain transformer's blocks all have the one
    width that its single map has, or that a text encoder's tokens have. Raises `BenchError` when the widths do not
    add up.
    """
    width = array.shape[1]
    if sum(card.channels) == width:
        return np.split(array, np.cumsum(card.channels)[:-1], axis=1)
    if len(card.channels) == 1 and width % card.channels[0] == 0:
        return np.split(array, width // card.channels[0], axis=1)
    if card.family == "text" and width % card.dims["avg"] == 0:
        return np.split(array, width // card.dims["avg"], axis=1)
    raise BenchError(f"'{card.name}' stored {width} numbers for layers of widths {card.channels}: they do not add up")
