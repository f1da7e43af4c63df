"""Fine-tuning: recipes as published, the original untouched, better than its own probe, resumed exactly, refusals."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import bench
from adapters.timm_backbone import TimmBackbone
from bench.backbone import weight_digest
from bench.card import Card, Transform
from bench.data.arrays import ArrayDataset
from bench.dataset import DecodeError, Splits
from bench.errors import BenchError
from bench.progress import Progress
from bench.protocol import get
from suites.finetuning.images import TrainingImages, augmentation
from suites.finetuning.network import FineTuned
from suites.training.drop_path import set_drop_path

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"finetune.epochs": 2, "finetune.batch": 8, "finetune.least_area": 0.9}


def small(architecture="test_resnet", size=32, **arguments):
    torch.manual_seed(0)
    if "vit" in architecture:
        arguments["img_size"] = size
    network = timm.create_model(architecture, num_classes=0, **arguments)
    card = Card(
        name=architecture, spec=f"timm:{architecture}", architecture=architecture, family="cnn", dims={},
        feature="avg", transform=Transform(resize=size, crop=size), weight_digest="",
    )  # fmt: skip
    return TimmBackbone(network, card)


def stripes(n=24, size=32, seed=0):
    """Two classes, stripes lying and standing with noise: a flip does not tell them apart, nor does a mean colour."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    row, column = np.mgrid[:size, :size]
    images = [((column if c else row) + rng.integers(8)) // 4 % 2 * 150 + 50 for c in y]
    return (np.stack(images) + rng.integers(-50, 50, (n, size, size))).clip(0, 255).astype(np.uint8), y.astype(np.int64)


@pytest.fixture
def data(monkeypatch):
    """A data set `stripes` of 24 + 20 images."""
    from bench.registry import Entry
    from bench.registry import table as rows

    def opened(_):
        parts = [ArrayDataset("stripes", split, *stripes(n, seed=seed), ("lying", "standing"))
                 for split, n, seed in (("train", 24, 0), ("test", 20, 1))]  # fmt: skip
        return Splits(*parts)

    monkeypatch.setitem(rows("datasets"), "stripes", Entry("test_finetune:_opened", ""))
    monkeypatch.setattr(sys.modules[__name__], "_opened", opened, raising=False)
    return "stripes"


def finetuned(data, backbone=None, settings=None, protocol="adamw", **more):
    return bench.run(
        backbone or small(), ["finetune"], data, protocols={"finetune": protocol}, device="cpu", workers=0,
        settings={**QUICK, **(settings or {})}, **more,
    )  # fmt: skip


def test_it_learns_what_its_frozen_features_do_not_show_and_leaves_the_original_alone(data, tmp_path):
    backbone = small()
    with torch.no_grad():
        # Blind: frozen, it gives the same feature for every image.
        backbone.network.conv1[6].weight.zero_()
        backbone.network.bn1.bias.fill_(1.0)
    before = weight_digest(backbone.state_dict())
    settings = {"finetune.epochs": 40, "finetune.lr": 3e-3}
    record = finetuned(data, backbone, settings, runs=tmp_path)
    assert weight_digest(backbone.state_dict()) == before
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.modules())
    probe = bench.run(backbone, ["linear"], data, device="cpu", workers=0)
    top1 = record.measurements[0]
    assert top1.metric == "top1"
    assert top1.headline
    assert next(m.value for m in probe.measurements if m.metric == "top1") == 50
    assert top1.value >= 90
    # The numbers, again from what was kept of every sample.
    with np.load(tmp_path / top1.outcomes) as kept:
        assert top1.value == 100 * (kept["label"] == kept["prediction"]).mean()
        assert top1.n == len(kept["label"]) == 20
    assert top1.interval_method == "wilson"
    assert top1.interval[0] < top1.value <= top1.interval[1]
    assert top1.selection == "last"
    assert top1.feature["trained"] == "end to end"
    curve = top1.details["curve"]
    assert curve[-1]["iteration"] == top1.details["training"]["iterations"] == 120
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.1
    assert [m.metric for m in record.measurements] == ["top1", "top5", "mean_per_class"]
    assert not (tmp_path / ".unfinished").exists()


def test_a_run_is_repeated_by_its_seed_and_another_seed_is_another(data):
    values = [finetuned(data, seed=seed).measurements[0].details["curve"] for seed in (3, 3, 4)]
    assert values[0] == values[1] != values[2]


def test_killed_and_started_again_it_is_the_record_of_an_undisturbed_run(tmp_path):
    arguments = [
        "--model", "demo:trio-plain", "--suite", "finetune", "--protocol", "finetune=adamw", "--data", "demo",
        "--limit", "60", "--set", "finetune.epochs=8", "--set", "finetune.batch=8", "--workers", "0",
    ]  # fmt: skip
    command = [sys.executable, "-m", "bench", "run", *arguments, "--runs", str(tmp_path)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "MKL_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        command, env={**os.environ, **threads, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".unfinished/*/finetune/finetune/training.pt")):
        assert process.poll() is None, "it ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("*.json"))
    said = []
    progress = Progress(quiet=False)
    progress.say = said.append
    options = {"finetune.epochs": 8, "finetune.batch": 8}
    run = {"protocols": {"finetune": "adamw"}, "settings": options, "limit": 60, "workers": 0, "device": "cpu"}
    resumed = bench.run("demo:trio-plain", ["finetune"], "demo", runs=tmp_path, progress=progress, **run)
    assert any(re.search(r"taken over at iteration \d+ of 56", line) for line in said), said
    calm = bench.run("demo:trio-plain", ["finetune"], "demo", **run)
    for mine, theirs in zip(resumed.measurements, calm.measurements, strict=True):
        assert mine.value == theirs.value
        assert mine.details == theirs.details
    assert not (tmp_path / ".unfinished").exists()


def test_the_plan_line_says_that_the_batch_shrank(data, capsys):
    finetuned(data, settings={"finetune.batch": 1024}, progress=Progress())
    lines = capsys.readouterr().err.splitlines()
    assert any("of 24 images (not 1,024: there are 24 to train on)" in line for line in lines)
    assert any(
        line.startswith("finetune/adamw@1+batch=1024+epochs=2+least_area=0.9: epochs 2; batch 1,024;") for line in lines
    )


def test_the_mean_pool_is_the_published_forward_pass():
    backbone = small("test_vit")
    network = FineTuned(backbone, 3, pool="mean", head_sd=0.02, seed=1).eval()
    images = torch.randn(2, 3, 32, 32)
    vit = backbone.network
    with torch.no_grad():
        x = vit.patch_embed(images)
        x = vit.norm_pre(vit._pos_embed(x))
        for block in vit.blocks:
            x = block(x)
        tokens = x[:, vit.num_prefix_tokens :].mean(1)
        expected = network.head(torch.nn.functional.layer_norm(tokens, tokens.shape[1:], eps=1e-6))
        assert torch.allclose(network.logits(images), expected, atol=1e-5)
    token = FineTuned(backbone, 3, pool="cls", head_sd=0.02, seed=1).eval()
    with torch.no_grad():
        assert torch.allclose(token.logits(images), token.head(vit.norm(x)[:, 0]), atol=1e-5)


def test_drop_path_rises_from_the_first_block_to_the_last():
    network = timm.create_model("test_vit", num_classes=0)
    set_drop_path(network, 0.4, "test_vit", "finetune.drop_path")
    last = len(network.blocks) - 1
    for number, block in enumerate(network.blocks):
        expected = 0.4 * number / last
        assert getattr(block.drop_path1, "drop_prob", 0.0) == pytest.approx(expected)
        assert getattr(block.drop_path2, "drop_prob", 0.0) == pytest.approx(expected)
    ours = [getattr(b.drop_path1, "drop_prob", 0.0) for b in network.blocks]
    theirs = timm.create_model("test_vit", num_classes=0, drop_path_rate=0.4)
    assert ours == pytest.approx([getattr(b.drop_path1, "drop_prob", 0.0) for b in theirs.blocks])
    with pytest.raises(BenchError, match="no stochastic depth"):
        set_drop_path(torch.nn.Linear(2, 2), 0.1, "plain", "finetune.drop_path")


@pytest.mark.parametrize("protocol", ["mae-b", "ibot-b"])
def test_a_vit_recipe_runs_whole(data, protocol):
    settings = {"finetune.least_area": 0.08, "finetune.lr": 1e-3}
    record = finetuned(data, small("test_vit"), settings, protocol, precision="bf16", batch=4)
    top1 = record.measurements[0]
    assert top1.protocol.startswith(f"finetune/{protocol}@1+batch=8+epochs=2")
    assert top1.protocol.endswith("+precision=bf16")
    assert top1.details["training"]["images_at_once"] == 4


def test_several_rates_are_tried_on_a_hold_out(data):
    record = finetuned(
        data, settings={"finetune.lr": "0.0000001,0.003", "finetune.epochs": 12, "finetune.holdout": 0.4}
    )
    top1 = record.measurements[0]
    assert top1.selection == "holdout"
    tried = top1.details["tried"]
    assert [point["lr"] for point in tried] == [1e-7, 3e-3]
    best = max(tried, key=lambda point: point["holdout_top1"])
    assert top1.details["training"]["learning_rate"] == best["lr"]
    # Trained on all of train at the end, not on what was left of it.
    assert top1.details["training"]["samples"] == 24


def test_an_interrupted_grid_tries_nothing_twice_and_keeps_no_networks(data, tmp_path, monkeypatch):
    from suites import finetune

    settings = {"finetune.lr": "0.0001,0.001,0.003"}
    calm = finetuned(data, settings=settings).measurements[0]
    real, names = finetune.train_copy, []

    def failing(*arguments):
        names.append(arguments[-1])
        if len(names) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(finetune, "train_copy", failing)
    with pytest.raises(KeyboardInterrupt):
        finetuned(data, settings=settings, runs=tmp_path)
    assert not list(tmp_path.glob(".unfinished/*/finetune/*/training.pt"))
    resumed = finetuned(data, settings=settings, runs=tmp_path).measurements[0]
    assert names[3:] == ["finetune 3 of 3", "finetune"]
    assert resumed.details == calm.details
    assert resumed.value == calm.value


def test_checkpointing_changes_no_number_and_makes_no_variant(data):
    plain = finetuned(data, small("test_vit"), {"finetune.checkpointing": False}).measurements[0]
    saved = finetuned(data, small("test_vit"), {"finetune.checkpointing": True}).measurements[0]
    assert plain.protocol == saved.protocol
    for a, b in zip(plain.details["curve"], saved.details["curve"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_a_share_and_a_list_of_train(data, tmp_path):
    share = finetuned(data, settings={"finetune.percent": 50}).measurements[0]
    assert share.details["training"]["samples"] == 12
    whole = finetuned(data).measurements[0]
    assert share.train_fingerprint != whole.train_fingerprint
    names = tmp_path / "mine.txt"
    names.write_text("\n".join(bench.data.opening.open_data("stripes").train.ids[i] for i in range(10)))
    listed = finetuned(data, settings={"finetune.list": str(names)}).measurements[0]
    assert listed.details["training"]["samples"] == 10
    with pytest.raises(BenchError, match=r"1percent\.txt' is not here .*finetune\.percent=1"):
        finetuned(data, protocol="swav-1pct")


def test_beside_suites_that_read_features(data):
    record = bench.run(
        small(), ["knn", "finetune"], data, protocols={"finetune": "adamw"}, settings=QUICK, device="cpu", workers=0
    )
    assert {m.suite for m in record.measurements} == {"knn", "finetune"}
    assert len({m.fingerprint for m in record.measurements}) == 1


class Holed(ArrayDataset):
    """Its third image cannot be decoded."""

    def image(self, index):
        if index == 2:
            raise DecodeError("third.png", "truncated")
        return super().image(index)


def test_an_image_that_cannot_be_decoded_is_replaced_and_counted(monkeypatch, data):
    images, y = stripes()
    holed = Holed("stripes", "train", images, y, ("lying", "standing"))
    samples = TrainingImages(holed, y, lambda image: torch.zeros(3))
    assert [samples[i][2] for i in range(4)] == [False, False, True, False]
    assert samples[2][1] == y[3]
    test = ArrayDataset("stripes", "test", *stripes(20, seed=1), ("lying", "standing"))
    monkeypatch.setattr(sys.modules[__name__], "_opened", lambda _: Splits(holed, test))
    details = finetuned(data).measurements[0].details
    assert details["training_images_replaced"] == 2
    monkeypatch.setattr(sys.modules[__name__], "_opened", lambda _: Splits(test, holed))
    with pytest.raises(BenchError, match="more than the 1% allowed, first third.png"):
        finetuned(data)


def test_augmented_images_have_the_models_size_and_their_seeds(data):
    backbone = small()
    image = Image.fromarray(stripes(1)[0][0])
    for name in ("mae-b", "adamw", "cifar", "swav-1pct"):
        made = augmentation(get("finetune", name).settings, backbone)
        torch.manual_seed(0), np.random.seed(0)
        assert made(image).shape == (3, 32, 32)
        assert made(image).dtype == torch.float32
    untouched = augmentation({**get("finetune", "adamw").settings, "crop": "none"}, backbone)
    assert torch.equal(untouched(image), backbone.preprocess(image))


@pytest.mark.parametrize(("settings", "words"), [
    ({"finetune.epochs": 0}, "option finetune.epochs is a number above 0"),
    ({"finetune.lr": -1}, "option finetune.lr is a number above 0"),
    ({"finetune.batch": 0}, "option finetune.batch is a number of at least 1"),
    ({"finetune.optimiser": "lamb"}, "finetune.optimiser is adamw or sgd"),
    ({"finetune.epoch": 3}, "no option 'epoch'; nearest: epochs"),
    ({"finetune.auto_augment": "much"}, "finetune.auto_augment is a policy of timm's"),
    ({"finetune.mixup": 0.8, "finetune.batch": 1}, "finetune.batch must be at least 2"),
    ({"finetune.drop_path": 0.1}, "no stochastic depth"),
    ({"finetune.layer_decay": 0.9, "finetune.pool": "mean"}, "averages patch tokens"),
    ({"finetune.lr": 1e6, "finetune.optimiser": "sgd", "finetune.momentum": 0.99}, "lower"),
    ({"finetune.nesterov": True, "finetune.momentum": 0, "finetune.optimiser": "sgd"}, "finetune.nesterov=false"),
        ({"finetune.batch": 1}, "two images or more"),
])  # fmt: skip
def test_refusals_are_one_sentence(data, settings, words):
    backbone = small()
    if "finetune.drop_path" in settings:
        for part in backbone.modules():
            for name in ("drop_path", "drop_path1", "drop_path2"):
                part.__dict__.pop(name, None)
                part._modules.pop(name, None)
    with pytest.raises(BenchError, match=re.escape(words)) as refused:
        finetuned(data, backbone, settings)
    assert "\n" not in str(refused.value)


def test_a_recipe_for_another_architecture_names_one_that_fits(data):
    for protocol, words in (("mae-b", "averages patch tokens"), ("ibot-b", "reads a class token")):
        with pytest.raises(BenchError, match=rf"{words}.*--protocol finetune=adamw"):
            finetuned(data, protocol=protocol)


@pytest.mark.slow
def test_the_demo_encoder_beats_its_own_probe_on_fashion_mnist():
    """Ten minutes: 5 000 photographs of clothes, an ImageNet encoder of the demo."""
    options = {"finetune.epochs": 4, "finetune.batch": 64}
    record = bench.run(
        "demo:mobilenetv2@64", ["linear", "finetune"], "fashion-mnist", protocols={"finetune": "adamw"},
        settings=options, limit=5000, device="cpu",
    )  # fmt: skip
    top1 = {m.suite: m for m in record.measurements if m.metric == "top1"}
    assert top1["finetune"].interval[0] > top1["linear"].interval[1]
