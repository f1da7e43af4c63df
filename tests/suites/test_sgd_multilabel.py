"""SGD heads by binary cross-entropy: against torch's own loss and optimiser, the choice of a head, refusals."""

import numpy as np
import pytest
import torch
from suitehelp import clusters, evaluate

from bench.errors import BenchError
from suites.average_precision import mean_average_precision
from suites.heads import Recipe, learn


def several(seed=0, n=90, classes=3):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random((n, classes)) < 0.4, 1, -1)
    x = (y == 1) @ np.random.default_rng(7).standard_normal((classes, 8)) + 0.6 * rng.standard_normal((n, 8))
    y[rng.random((n, classes)) < 0.1] = 0
    return x.astype(np.float32), y


TRAIN, TEST = several(), several(1, 70)
NAME = "dinov3-multilabel-cached"
SHORT = {"protocol": NAME, "iterations": 60, "batch": 30, "absolute": True, "features": ["pooled"]}


def by_torch(x, y, recipe, seed):
    """torch's BCEWithLogitsLoss and SGD over the same batches; what is not judged weighs nothing."""
    generator = torch.Generator().manual_seed(seed)
    layer = torch.nn.Linear(x.shape[1], y.shape[1])
    with torch.no_grad():
        layer.weight.copy_(torch.randn(y.shape[1], x.shape[1], generator=generator) * 0.01)
        layer.bias.zero_()
    sgd = torch.optim.SGD(layer.parameters(), lr=recipe.rates[0], momentum=recipe.momentum)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(recipe.iterations):
        while len(order) < recipe.batch:
            order = torch.cat([order, torch.randperm(len(x), generator=generator)])
        rows, order = order[: recipe.batch], order[recipe.batch :]
        for group in sgd.param_groups:
            group["lr"] = recipe.rates[0] * recipe.factor(step)
        targets = torch.tensor(y)[rows]
        loss = torch.nn.BCEWithLogitsLoss(weight=(targets != 0).float())
        sgd.zero_grad()
        loss(layer(torch.tensor(x)[rows]), (targets > 0).float()).backward()
        sgd.step()
    return layer


def test_a_head_is_torchs_loop():
    recipe = Recipe(rates=(0.5,), iterations=40, batch=30)
    heads = learn(*TRAIN, 3, recipe, 4)
    layer = by_torch(*TRAIN, recipe, 4)
    np.testing.assert_allclose(heads.weight[0], layer.weight.detach(), atol=2e-5)
    np.testing.assert_allclose(heads.bias[0], layer.bias.detach(), atol=2e-5)


def test_the_best_head_of_a_part_held_out_is_learnt_on_all_of_train():
    found, _ = evaluate("linear", TRAIN, TEST, **SHORT, rates=[0.01, 1.0])
    assert [(m.metric, m.headline, m.selection) for m in found] == [
        ("map", True, "holdout"),
        ("map11", False, "holdout"),
    ]
    path, chosen = found[0].details["path"], found[0].details["chosen"]
    assert [point["rate"] for point in path] == [0.01, 1.0]
    assert chosen == max(path, key=lambda point: point["holdout_map"])["rate"]
    alone, _ = evaluate("linear", TRAIN, TEST, **SHORT, rates=[chosen])
    assert alone[0].value == found[0].value > 70
    assert (alone[0].selection, alone[0].details["path"]) == ("last", [])
    scores = learn(*TRAIN, 3, Recipe(rates=(chosen,), iterations=60, batch=30), 0).logits(TEST[0], 0)
    assert found[0].value == pytest.approx(100 * mean_average_precision(scores, TEST[1], around=False)[0])


def test_refusals():
    with pytest.raises(BenchError, match="gives one each"):
        evaluate("linear", clusters(), clusters(1), **SHORT)
    with pytest.raises(BenchError, match="diverged"):
        evaluate("linear", (1e30 * TRAIN[0], TRAIN[1]), TEST, **SHORT, rates=[1e6])
