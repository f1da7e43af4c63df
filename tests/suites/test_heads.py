"""Heads learnt together: each ends where a plain torch loop leaves it alone; LARS against its formula."""

import numpy as np
import pytest
import torch
from suitehelp import clusters

from bench.errors import BenchError
from suites.heads import Recipe, beginning, larc_update, lars_update, learn

X, Y = clusters(0, 90, 5, 12)


def alone(recipe, rate, seed):
    """One head, autograd, torch's own SGD (or the LARS formula), layer by layer."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.tensor(X), torch.tensor(Y)
    norm = torch.nn.BatchNorm1d(x.shape[1], affine=bool(recipe.affine), eps=1e-5 if recipe.affine else 1e-6)
    layer = torch.nn.Linear(x.shape[1], 5)
    weight, bias = beginning(recipe.init, 5, x.shape[1], generator)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    wd = 0.0 if recipe.lars or recipe.larc else recipe.weight_decay
    groups = [{"params": layer.parameters(), "weight_decay": wd}]
    if recipe.affine:
        groups += [{"params": norm.parameters(), "weight_decay": wd if recipe.affine == "decayed" else 0.0}]
    sgd = torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, nesterov=recipe.nesterov)
    if recipe.optimiser == "adamw":
        sgd = torch.optim.AdamW(layer.parameters(), lr=rate, weight_decay=recipe.weight_decay)
    cycle = None
    if recipe.schedule == "onecycle":
        cycle = torch.optim.lr_scheduler.OneCycleLR(sgd, max_lr=rate, total_steps=recipe.iterations)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(recipe.iterations):
        while len(order) < recipe.batch:
            order = torch.cat([order, torch.randperm(len(x), generator=generator)])
        rows, order = order[: recipe.batch], order[recipe.batch :]
        z = norm(x[rows]) if recipe.batchnorm else x[rows]
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(layer(z), y[rows]).backward()
        if recipe.lars:
            g = layer.weight.grad + recipe.weight_decay * layer.weight.detach()
            layer.weight.grad = g * (0.001 * layer.weight.detach().norm() / g.norm())
        if recipe.larc:
            # apex/parallel/LARC.py, clip=False: every parameter, the decay taken from the optimiser.
            for p in layer.parameters():
                length, steep = p.detach().norm(), p.grad.norm()
                if length != 0 and steep != 0:
                    adaptive = 0.001 * length / (steep + length * recipe.weight_decay + 1e-8)
                    p.grad = (p.grad + recipe.weight_decay * p.detach()) * adaptive
        if cycle is None:
            for group in sgd.param_groups:
                group["lr"] = rate * recipe.factor(step)
        sgd.step()
        if cycle is not None and step + 1 < recipe.iterations:
            cycle.step()
    norm.eval()
    with torch.no_grad():
        return layer(norm(x) if recipe.batchnorm else x).numpy()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"nesterov": True, "weight_decay": 1e-2},
        {"schedule": "steps", "milestones": (0.6, 0.8)},
        {"lars": True, "batchnorm": True, "weight_decay": 1e-3, "warmup": 5},
        {"optimiser": "adamw", "weight_decay": 0.1},
        {"schedule": "cosine-epoch", "epochs": 5.0},
        {"larc": True, "weight_decay": 1e-3},
        {"batchnorm": True, "affine": "free", "init": "uniform", "nesterov": True, "weight_decay": 1e-2},
        {"batchnorm": True, "affine": "decayed", "weight_decay": 1e-1},
        {"init": "uniform", "end": 0.001},
        {"init": "lecun"},
        {"init": "zero"},
        {"schedule": "onecycle"},
        {"schedule": "onecycle", "optimiser": "adamw"},
    ],
    ids=[
        "sgd",
        "nesterov and decay",
        "steps",
        "mae",
        "adamw",
        "by epoch",
        "simsiam",
        "vissl",
        "vissl's vits",
        "lightly",
        "byol",
        "simclr",
        "one cycle",
        "one cycle of adamw",
    ],
)
def test_each_head_is_the_loop_run_alone(more):
    recipe = Recipe(rates=(0.01, 0.1, 1.0), iterations=25, batch=32, **more)
    heads = learn(X, Y, 5, recipe, seed=4)
    for head, rate in enumerate(recipe.rates):
        np.testing.assert_allclose(heads.logits(X, head), alone(recipe, rate, 4), atol=2e-4)


def test_lars_is_the_formula_head_by_head():
    w, g = torch.randn(3, 1000, 768), torch.randn(3, 1000, 768)
    w[1] = 0
    got = lars_update(w, g, 0.01)
    decayed = g[0] + 0.01 * w[0]
    torch.testing.assert_close(got[0], decayed * 0.001 * w[0].norm() / decayed.norm())
    torch.testing.assert_close(got[1], g[1])


def test_larc_scales_biases_too_and_leaves_what_is_zero():
    b, g = torch.randn(3, 10), torch.randn(3, 10)
    b[1] = 0
    got = larc_update(b, g, torch.tensor([0.01, 0.01, 0.0]))
    length = b[0].norm()
    torch.testing.assert_close(got[0], (g[0] + 0.01 * b[0]) * 0.001 * length / (g[0].norm() + 0.01 * length + 1e-8))
    assert torch.equal(got[1], g[1])
    torch.testing.assert_close(got[2].norm(), 0.001 * b[2].norm())
    # Where LARS leaves the bias at full speed, LARC holds it to a thousandth of its length a step.
    slow, fast = (
        learn(X, Y, 5, Recipe((1.0,), iterations=20, batch=32, init="uniform", **{how: True}), seed=3)
        for how in ("larc", "lars")
    )
    start = beginning("uniform", 5, X.shape[1], torch.Generator().manual_seed(3))[1]
    assert (slow.bias[0] - start).norm() < 0.2 * start.norm() < (fast.bias[0] - start).norm()


def test_where_heads_begin():
    generator = torch.Generator().manual_seed(0)
    weight, bias = beginning("normal", 50, 400, generator)
    assert weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not bias.any()
    # torch.nn.Linear's own: Kaiming's uniform at sqrt(5), which is 1 / sqrt(D); biases as well.
    weight, bias = beginning("uniform", 50, 400, generator)
    assert weight.abs().max().item() == pytest.approx(0.05, rel=0.01)
    assert weight.std().item() == pytest.approx(torch.nn.Linear(400, 50).weight.std().item(), rel=0.05)
    assert 0.03 < bias.abs().max() <= 0.05
    # hk.Linear: truncated at two deviations of 1 / sqrt(D).
    weight, bias = beginning("lecun", 50, 400, generator)
    assert weight.abs().max().item() == pytest.approx(0.1, rel=0.01)
    assert weight.std().item() == pytest.approx(0.05 * 0.8796, rel=0.05)
    assert not bias.any()
    assert not beginning("zero", 3, 4, generator)[0].any()


def test_lightlys_cosine_ends_at_a_thousandth_with_the_last_step():
    steps = 41
    ours = Recipe((1.0,), iterations=steps, batch=1, end=0.001)
    # lightly/utils/scheduler.py, cosine_schedule with start 1 and end 0.001.
    wanted = [0.001 - (0.001 - 1.0) * (np.cos(np.pi * s / (steps - 1)) + 1) / 2 for s in range(steps)]
    assert [ours.factor(s) for s in range(steps)] == pytest.approx(wanted)


def test_an_affine_normalisation_is_kept_and_taken_over():
    from suites.heads import Group

    recipe = Recipe((0.1, 0.5), iterations=9, batch=30, batchnorm=True, affine="free")
    start = torch.full((5, X.shape[1]), 0.01)
    whole, part, rest = (Group(start, recipe) for _ in range(3))
    z, y = torch.tensor(X[:30]), torch.tensor(Y[:30])
    for _ in range(4):
        whole.advance(z, y)
    for _ in range(2):
        part.advance(z, y)
    rest.restore(part.state())
    for _ in range(2):
        rest.advance(z, y)
    assert torch.equal(whole.heads().weight, rest.heads().weight)
    assert torch.equal(whole.heads().bias, rest.heads().bias)
    with pytest.raises(ValueError, match="other heads"):
        Group(start, Recipe((0.1, 0.5), iterations=9, batch=30)).restore(part.state())


def test_schedules():
    cosine = Recipe((1.0,), iterations=110, batch=1, warmup=10)
    assert [cosine.factor(s) for s in (0, 5, 10, 60)] == pytest.approx([0, 0.5, 1, 0.5])
    assert cosine.factor(109) < 1e-3
    steps = Recipe((1.0,), iterations=100, batch=1, schedule="steps", milestones=(0.6, 0.8))
    assert [steps.factor(s) for s in (59, 60, 79, 80)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_a_rate_that_falls_by_epoch_stands_still_within_one():
    # torch's CosineAnnealingLR, stepped once an epoch, over 4 epochs of 5 iterations.
    weight = torch.nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([weight], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 4)
    wanted = []
    for _ in range(4):
        wanted += [sgd.param_groups[0]["lr"]] * 5
        sgd.step()
        schedule.step()
    ours = Recipe((1.0,), iterations=20, batch=1, schedule="cosine-epoch", epochs=4.0)
    assert [ours.factor(s) for s in range(20)] == pytest.approx(wanted)


@pytest.mark.parametrize("more", [{}, {"lars": True}, {"optimiser": "adamw"}], ids=["sgd", "lars", "adamw"])
def test_every_head_has_its_own_decay(more):
    # LARS steps by a thousandth of the weight's length: it needs a rate to go anywhere.
    rate = 50.0 if more.get("lars") else 0.1
    grid = Recipe((rate,) * 3, iterations=15, batch=32, weight_decay=(0.0, 0.01, 0.5), **more)
    together = learn(X, Y, 5, grid, seed=4)
    for head, decay in enumerate(grid.weight_decay):
        one = learn(X, Y, 5, Recipe((rate,), iterations=15, batch=32, weight_decay=decay, **more), seed=4)
        np.testing.assert_allclose(together.logits(X, head), one.logits(X, 0), rtol=1e-4, atol=1e-5)
    assert not np.allclose(together.logits(X, 0), together.logits(X, 2), atol=1e-4)


def test_the_same_seed_gives_the_same_bits():
    recipe = Recipe((0.1, 1.0), iterations=10, batch=16)
    one, two = (learn(X, Y, 5, recipe, seed=1) for _ in range(2))
    assert torch.equal(one.weight, two.weight)
    assert not torch.equal(one.weight, learn(X, Y, 5, recipe, seed=2).weight)


def test_features_beyond_float32s_squares_are_refused_where_they_are_normalised():
    x = (1e25 * np.random.default_rng(0).standard_normal((40, 4))).astype(np.float32)
    with pytest.raises(BenchError, match="divide them by a constant"):
        learn(x, np.arange(40) % 2, 2, Recipe(rates=(0.1,), iterations=3, batch=8, batchnorm=True), 0)
