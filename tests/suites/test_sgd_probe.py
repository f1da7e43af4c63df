"""The SGD cards on stored features: selection, determinism, refusals."""

import numpy as np
import pytest
from suitehelp import clusters, evaluate, task, values

from bench import protocol as protocols
from bench.card import Card
from bench.errors import BenchError
from bench.featureset import ArrayFeatureSet
from suites.choices import resolved
from suites.linear import Linear

TRAIN, TEST = clusters(0, 200, 4), clusters(1, 80, 4)
NAMES = [
    "dinov2", "dinov3", "mae", "moco", "mocov3", "simclr", "byol", "swav", "barlow", "vicreg", "simsiam", "lightly",
    "dino", "dino-b", "ibot", "ibot-b", "beit", "inat18/vissl", "inat18/dinov2",
]  # fmt: skip
GRIDS = ("dinov2", "inat18/dinov2", "dinov3", "ibot", "ibot-b")


@pytest.mark.parametrize("name", NAMES)
def test_every_card_runs_and_says_how_it_chose(name):
    suite = "inat18" if name.startswith("inat18") else "linear"
    found, _ = evaluate(suite, TRAIN, TEST, protocol=f"{name}-cached", iterations=20, batch=64)
    assert {m.suite for m in found} == {suite}
    assert {m.selection for m in found} == {"holdout" if name in GRIDS else "last"}
    assert found[0].details["iterations"] == 20
    again, _ = evaluate(suite, TRAIN, TEST, protocol=f"{name}-cached", iterations=20, batch=64)
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
    assert found[0].details["path"][1] == {"feature": "pooled", "rate": 1e6, "weight_decay": 0.0, "diverged": True}
    assert found[0].details["chosen"] == pytest.approx(1e-18)
    with pytest.raises(BenchError, match="diverged at a learning rate of 1e"):
        evaluate("linear", *wild, **few, rates=1e6)


def test_refusals():
    for options, said in [
        ({"select": "last"}, "chooses nothing"),
        ({"select": "x"}, "holdout, last or best_on_test"),
        ({"features": "cls:nose"}, "is no feature"),
        ({"weight_decay": "-1"}, "of at least 0"),
    ]:
        with pytest.raises(BenchError, match=said):
            evaluate("linear", TRAIN, TEST, protocol="dinov2-cached", **options)


def test_seeds_give_the_mean_the_deviation_and_every_run():
    few = {"protocol": "mocov3-cached", "iterations": 3, "batch": 16, "rates": 0.3}
    alone = [values(evaluate("linear", TRAIN, TEST, **few, seed=seed)[0], "top1") for seed in (7, 8, 9)]
    assert len(set(alone)) > 1  # A deviation of nothing would show nothing.
    found, made = evaluate("linear", TRAIN, TEST, **few, seed=7, seeds=3)
    top1 = next(m for m in found if m.metric == "top1")
    assert top1.details["runs"] == alone
    assert top1.seeds == [7, 8, 9]
    assert top1.value == pytest.approx(np.mean(alone))
    assert top1.sd == pytest.approx(np.std(alone, ddof=1))
    assert top1.protocol == "linear/mocov3-cached@1+batch=16+iterations=3+rates=0.3+seeds=3"
    assert not made.outcomes  # No run's own rows may pass for those of the mean.
    marked, _ = evaluate("linear", TRAIN, TEST, **{**few, "rates": "0.1,1"}, select="best_on_test", seeds=2)
    assert {(m.selection, m.interval) for m in marked} == {("best_on_test", None)}


def test_the_best_head_on_test_is_marked_and_has_no_interval():
    few = {"protocol": "ibot-b-cached", "iterations": 8, "batch": 32, "rates": "0.001,0.1,1", "weight_decay": "0,0.1"}
    found, _ = evaluate("linear", TRAIN, TEST, **few, select="best_on_test")
    path = found[0].details["path"]
    assert len(path) == 6
    assert found[0].value == max(p["test_top1"] for p in path)
    assert {m.selection for m in found} == {"best_on_test"}
    assert {m.interval for m in found} == {None}
    assert "very test split" in found[0].interval_note
    # Each head alone, by the rule `last`, has the value that the path gives it.
    for point in path:
        single = {**few, "rates": point["rate"] * 256 / 32, "weight_decay": point["weight_decay"]}
        alone, _ = evaluate("linear", TRAIN, TEST, **single, select="last")
        assert values(alone, "top1") == point["test_top1"]


def test_one_head_is_not_a_selection_on_test():
    found, _ = evaluate("linear", TRAIN, TEST, protocol="moco-cached", iterations=5, batch=32, select="best_on_test")
    assert found[0].selection == "last"
    assert found[0].interval is not None


def card(**more):
    given = {"family": "vit", "dims": {"pooled": 12, "cls": 12, "avg": 12}, "feature": "cls"} | more
    return Card(name="m", spec="m", architecture="vit", weight_digest="sha256:0", **given)


def test_features_are_chosen_like_rates():
    """Only the joined tokens of two blocks hold the class: the grid must find them."""
    made = task("linear", TRAIN, TEST, protocol="dinov2-cached", iterations=60, batch=64, rates="0.1,1")
    made.card = card()
    rng = np.random.default_rng(0)
    for split, (x, y) in (("train", TRAIN), ("test", TEST)):
        noise = rng.standard_normal((len(x), 60)).astype(np.float32)
        four = np.concatenate([x, noise[:, 24:]], axis=1)
        made.data[split] = ArrayFeatureSet(
            {"cls": noise[:, :12], "avg": noise[:, 12:24], "blocks4.cls": four}, y,
            dataset="arrays", split=split, fingerprint=f"sha256:{split}",
        )  # fmt: skip
    suite = Linear()
    assert set(suite.needs(made.protocol, made.card).features) == {"cls", "avg", "blocks4.cls"}
    found = list(suite.evaluate(made))
    path = found[0].details["path"]
    assert [p["feature"] for p in path[::2]] == ["cls", "cls:avg", "blocks4.cls", "blocks4.cls:avg"]
    assert found[0].details["head"]["feature"].startswith("blocks4.cls")
    assert found[0].feature["layers"] == 4
    assert values(found, "top1") > 60


def test_a_model_without_tokens_is_probed_on_its_pooled_feature():
    grid = protocols.get("linear", "dinov2-cached").settings["features"]
    assert resolved(grid, card()) == grid
    assert resolved(grid, card(family="cnn", dims={"pooled": 9, "avg": 9}, feature="avg")) == ["pooled"]
    assert resolved(["avg", "blocks2.avg"], card(dims={"pooled": 9, "avg": 9})) == ["avg", "blocks2.avg"]
    found, _ = evaluate("linear", TRAIN, TEST, protocol="dinov2-cached", iterations=2, batch=16)
    assert found[0].details["not_of_this_model"]["features"] == grid
    assert found[0].feature["tokens"] == "x"
