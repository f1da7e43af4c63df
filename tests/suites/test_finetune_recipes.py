"""The recipes of fine-tuning are the published ones, and the documented ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_finetune import small

from bench.protocol import cards, get
from suites.finetuning.network import FineTuned
from suites.finetuning.recipe import length_of, optimiser_of, rate_of, schedule_of, table

ROOT = Path(__file__).resolve().parents[2]

# PROTOCOLS: the tables of fine-tuning, as the papers and repositories print them.
PUBLISHED = """
            epochs batch lr     rule      ld   wd  dp  warmup mix      smooth erase min_lr pool
mae-b       100    1024  5e-4   batch/256 .65  .05 .1  5      .8/1     .1     .25   1e-6   mean
mae-b-paper 100    1024  1e-3   batch/256 .75  .05 .1  5      .8/1     .1     .25   1e-6   mean
mae-l       50     1024  1e-3   batch/256 .75  .05 .2  5      .8/1     .1     .25   1e-6   mean
mae-h       50     1024  1e-3   batch/256 .75  .05 .3  5      .8/1     .1     .25   1e-6   mean
beit-b      100    1024  4e-3   absolute  .65  .05 .1  20     .8/1     .1     .25   1e-6   mean
beit-l      50     1024  1e-3   absolute  .75  .05 .2  5      .8/1     .1     .25   1e-6   mean
ibot-s      200    1024  8e-4,9e-4,1e-3,2e-3 absolute .75 .05 .1 20 .8/1 .1   .25   1e-6   cls
ibot-b      100    1024  8e-4,9e-4,1e-3,2e-3 absolute .65 .05 .2 20 .8/1 .1   .25   1e-6   cls
ibot-l      50     1024  8e-4,9e-4,1e-3,2e-3 absolute .75 .05 .4 5  .8/1 .1   .25   1e-6   cls
data2vec-b  100    1024  4e-3   absolute  .65  0   .2  10     .8/1     .1     .25   1e-6   mean
simmim-swin-b 100  2048  1.25e-3 batch/512 .8  .05 .1  20     .8/1     .1     .25   1e-6   pooled
simmim-swin-b-100ep 100 2048 1.25e-3 batch/512 .9 .05 .1 20   .8/1     .1     .25   1e-6   pooled
simmim-vit-b 100   2048  1.25e-3 batch/512 .65 .05 .1  20     .8/1     .1     .25   1e-6   mean
swav-1pct   20     256   .02    absolute  1    0   0   0      0/0      0      0     0      pooled
swav-10pct  20     256   .01    absolute  1    0   0   0      0/0      0      0     0      pooled
barlow-1pct 20     256   .005   absolute  1    0   0   0      0/0      0      0     0      pooled
vicreg-1pct 20     256   .03    absolute  1    0   0   0      0/0      0      0     0      pooled
vicreg-10pct 20    256   .01    absolute  1    0   0   0      0/0      0      0     0      pooled
cifar       240    64    .05    absolute  1    5e-4 0  0      0/0      0      0     0      pooled
"""


@pytest.mark.parametrize("line", PUBLISHED.strip().splitlines()[1:], ids=lambda line: line.split()[0])
def test_a_recipe_is_the_published_row(line):
    name, epochs, batch, lr, rule, ld, wd, dp, warmup, mix, smooth, erase, floor, pool = line.split()
    s = get("finetune", name).settings
    assert s["lr"] == [float(rate) for rate in lr.split(",")]
    mixup, cutmix = map(float, mix.split("/"))
    assert (s["epochs"], s["batch"], s["lr_rule"], s["pool"]) == (float(epochs), int(batch), rule, pool)
    assert (s["layer_decay"], s["weight_decay"], s["drop_path"], s["warmup"]) == (
        float(ld),
        [float(wd)],
        float(dp),
        float(warmup),
    )
    assert (s["mixup"], s["cutmix"], s["smoothing"], s["erasing"], s["min_lr"]) == (
        mixup,
        cutmix,
        float(smooth),
        float(erase),
        float(floor),
    )
    vit = s["optimiser"] == "adamw"
    assert s["auto_augment"] == ("rand-m9-mstd0.5-inc1" if vit else "")
    printed = table(s)
    assert printed["layer decay"] == f"{float(ld):g}"
    assert printed["learning rate"].startswith("/".join(f"{float(rate):g}" for rate in lr.split(",")))


def test_head_rates_and_steps_of_the_semi_supervised_recipes():
    rows = {"swav-1pct": (5, "steps"), "swav-10pct": (0.2, "steps"), "barlow-1pct": (0.5, "cosine-epoch"),
            "vicreg-1pct": (0.08, "cosine-epoch"), "vicreg-10pct": (0.1, "cosine-epoch")}  # fmt: skip
    for name, (head, schedule) in rows.items():
        settings = get("finetune", name).settings
        assert (settings["head_lr"], settings["schedule"], settings["list"]) == (
            head,
            schedule,
            f"{name.split('-')[1][:-3]}percent.txt",
        )
    settings = get("finetune", "swav-1pct").settings
    network = FineTuned(small(), 3, pool="pooled", head_sd=0.01)
    groups = optimiser_of(settings, network, 0.02, 0.0).param_groups
    scales = {id(p): group["lr_scale"] * 0.02 for group in groups for p in group["params"]}
    assert scales[id(network.head.weight)] == pytest.approx(5.0)
    assert scales[id(next(network.trunk.parameters()))] == pytest.approx(0.02)
    length = length_of(settings, 2560)
    rates = [schedule_of(settings, length, 0.02).rate(epoch * 10) for epoch in (0, 11, 12, 15, 16, 19)]
    assert rates == pytest.approx([0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008])


def test_the_learning_rate_follows_the_batch_that_is_used():
    settings = get("finetune", "mae-b").settings
    assert rate_of(settings, 5e-4, 1024) == pytest.approx(2e-3)
    assert schedule_of(settings, length_of(settings, 512), 5e-4).peak == pytest.approx(1e-3)
    assert length_of(settings, 511).batch == 510
    swin = get("finetune", "simmim-swin-b").settings
    length = length_of(swin, 1_281_167)
    schedule = schedule_of(swin, length, swin["lr"][0])
    # 1.25e-3, 2.5e-7 and 2.5e-7 times 2,048/512.
    assert length.per_epoch == 625
    assert [schedule.rate(i) for i in (0, 10 * 625, 100 * 625)] == pytest.approx([1e-6, (5e-3 + 1e-6) / 2, 1e-6])
    long = length_of(settings, 2048)
    assert schedule_of(settings, long, 5e-4).warmup == 5 * 2
    short = {**settings, "epochs": 2.0}
    assert schedule_of(short, length_of(short, 2048), 5e-4).warmup == 2


def test_simmim_s_cosine_is_timm_s_and_counts_the_warmup():
    """SimMIM's lr_scheduler.py, by the scheduler itself."""
    from timm.scheduler import CosineLRScheduler

    for name in ("simmim-swin-b", "simmim-swin-b-100ep", "simmim-vit-b"):
        settings = get("finetune", name).settings
        length = length_of(settings, 3 * 2048)
        schedule = schedule_of(settings, length, settings["lr"][0])
        theirs = CosineLRScheduler(
            torch.optim.SGD([torch.zeros(1)], lr=1.25e-3 * 2048 / 512), t_initial=300, lr_min=1e-6,
            warmup_lr_init=1e-6, warmup_t=60, cycle_limit=1, t_in_epochs=False,
        )  # fmt: skip
        assert length.iterations == 300
        for iteration in range(300):
            assert schedule.rate(iteration) == pytest.approx(theirs._get_lr(iteration)[0]), (name, iteration)


@pytest.mark.parametrize("name", ["barlow-1pct", "barlow-10pct", "vicreg-1pct", "vicreg-10pct"])
def test_barlow_s_and_vicreg_s_rates_are_those_of_an_epoch(name):
    settings = get("finetune", name).settings
    length = length_of(settings, 3 * 256)
    schedule = schedule_of(settings, length, settings["lr"][0])
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=settings["lr"][0])
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 20)
    for epoch in range(20):
        rates = [schedule.rate(3 * epoch + step) for step in range(3)]
        assert rates == pytest.approx(3 * theirs.get_last_lr()), epoch
        optimiser.step()
        theirs.step()


def test_deit_s_rates_are_timm_s_of_an_epoch():
    from timm.scheduler import CosineLRScheduler

    settings = get("finetune", "deit-150").settings
    length = length_of(settings, 2 * 1024)
    schedule = schedule_of(settings, length, settings["lr"][0])
    theirs = CosineLRScheduler(
        torch.optim.SGD([torch.zeros(1)], lr=1e-3), t_initial=150, lr_min=1e-5, warmup_lr_init=1e-6, warmup_t=5
    )
    for epoch in range(150):
        rates = [schedule.rate(2 * epoch + step) for step in range(2)]
        assert rates == pytest.approx(2 * theirs._get_lr(epoch)), epoch


def test_simclr_s_grid_is_seven_rates_by_seven_decays_and_none():
    settings = get("finetune", "simclr-transfer").settings
    assert settings["lr"] == pytest.approx(np.logspace(-4, -1, 7), rel=2e-3)
    assert settings["weight_decay"] == pytest.approx([0.0, *np.logspace(-6, -3, 7)], rel=2e-3)


def test_every_card_is_listed_with_its_source():
    mine = [card for card in cards().values() if card.suite == "finetune"]
    assert len(mine) >= 20
    for card in mine:
        assert card.verified == (card.unverified is None), card.id
        # Recipes for texts also say how long a text is, and what drops out.
        assert set(card.settings) - {"length", "dropout"} == set(mine[0].settings) - {"length", "dropout"}, card.id
        assert card.variant({name: card.settings[name] for name in card.settings}).id == card.id


def test_the_documented_table_is_that_of_the_cards():
    text = (ROOT / "docs" / "finetune.md").read_text()
    for card in cards().values():
        if card.suite != "finetune":
            continue
        name = card.id.partition("@")[0]
        row = next((line for line in text.splitlines() if line.startswith(f"| `{name}`")), None)
        assert row is not None, name
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        printed = table(card.settings)
        shown = (
            "epochs",
            "batch",
            "learning rate",
            "warmup",
            "weight decay",
            "layer decay",
            "drop path",
            "mixup/cutmix",
        )
        assert cells[1:] == [*(printed[key] for key in shown), "yes" if card.verified else "no"], name
