"""The SGD cards on stored features: selection, determinism, refusals."""

import numpy as np
import pytest
from suitehelp import clusters, evaluate, values

from bench.errors import BenchError

TRAIN, TEST = clusters(0, 200, 4), clusters(1, 80, 4)
NAMES = ["dinov2", "mae", "moco", "mocov3", "simclr", "swav", "barlow", "vicreg", "simsiam", "dino"]


@pytest.mark.parametrize("name", NAMES)
def test_every_card_runs_and_says_how_it_chose(name):
    found, _ = evaluate("linear", TRAIN, TEST, protocol=f"{name}-cached", iterations=20, batch=64)
    assert {m.selection for m in found} == {"holdout" if name == "dinov2" else "last"}
    assert found[0].details["iterations"] == 20
    again, _ = evaluate("linear", TRAIN, TEST, protocol=f"{name}-cached", iterations=20, batch=64)
    assert [m.value for m in found] == [m.value for m in again]


def test_the_best_rate_is_learnt_again_on_all_of_train():
    few = {"protocol": "dinov2-cached", "iterations": 100, "batch": 64, "absolute": True}
    found, _ = evaluate("linear", TRAIN, TEST, **few)
    path = found[0].details["path"]
    assert len(path) == 13
    chosen = found[0].details["chosen"]
    assert max(p["holdout_top1"] for p in path) == next(p["holdout_top1"] for p in path if p["rate"] == chosen)
    alone, _ = evaluate("linear", TRAIN, TEST, **few, rates=[chosen], select="last")
    assert values(alone, "top1") == values(found, "top1") > 60


def test_a_head_that_diverges_is_never_chosen_nor_reported():
    wild = tuple((x * np.float32(1e18), y) for x, y in (TRAIN, TEST))
    few = {"protocol": "moco-cached", "iterations": 30, "batch": 64}
    found, _ = evaluate("linear", *wild, **few, rates=[1e-18, 1e6], select="holdout")
    assert found[0].details["path"][1] == {"rate": 1e6, "diverged": True}
    assert found[0].details["chosen"] == pytest.approx(1e-18)
    with pytest.raises(BenchError, match="diverged at a learning rate of 1e"):
        evaluate("linear", *wild, **few, rates=1e6)


def test_refusals():
    for options, said in [({"select": "last"}, "chooses nothing"), ({"select": "x"}, "holdout or last")]:
        with pytest.raises(BenchError, match=said):
            evaluate("linear", TRAIN, TEST, protocol="dinov2-cached", **options)
