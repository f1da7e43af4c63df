"""ade20k: windows, crops, heads, and whole runs on generated shapes."""

import colorsys
import os
import random
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from densehelp import COLOURS
from densenets import tiny, tiny_beit
from PIL import Image
from torch import nn

import bench
from bench.card import Transform
from bench.data.opening import open_data
from bench.errors import BenchError
from bench.ledger import Ledger
from bench.progress import Progress
from suites.segmentation.colours import distorted, saturated, turned
from suites.segmentation.crops import Crops, fitted
from suites.segmentation.maps import FourMaps, FrozenMaps, spread_of
from suites.segmentation.networks import LinearSegmenter, UperNet, loss_of
from suites.segmentation.windows import predict, slide

QUICK = {"ade20k.size": 64, "ade20k.stride": 48, "ade20k.batch": 6, "ade20k.warmup": 5, "ade20k.width": 32}


def ran(folder, backbone=None, **settings):
    options = {**QUICK, "ade20k.iterations": 3, **{f"ade20k.{key}": value for key, value in settings.items()}}
    return bench.run(backbone or tiny(), ["ade20k"], f"segfolder:{folder}", settings=options, workers=0)


def test_windows_equal_the_whole_image_where_they_must():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, 50, 70, generator=generator)
    wide = nn.Conv2d(3, 5, 9, padding=4)
    with torch.no_grad():
        # An image that fits into a window is seen whole, whatever the network.
        torch.testing.assert_close(slide(wide, image, 70, 40), wide(image))
        # A network that looks at one pixel at a time cannot tell windows from the whole.
        pointwise = nn.Conv2d(3, 5, 1)
        torch.testing.assert_close(slide(pointwise, image, 32, 20), pointwise(image))
        # Elsewhere the inner part of a window knows all it would know, and the rims differ.
        whole, windows = wide(image), slide(wide, image, 48, 48)
        torch.testing.assert_close(windows[..., 6:18, 6:18], whole[..., 6:18, 6:18])
        assert not torch.allclose(windows, whole)


@pytest.mark.parametrize(("side", "window", "stride"), [(100, 32, 20), (32, 32, 20), (33, 32, 31), (500, 64, 64)])
def test_windows_cover_every_pixel_and_end_at_the_border(side, window, stride):
    seen = []

    def logits(part):
        seen.append(part[0, 0, 0, 0].item())
        assert part.shape[3] == min(window, side)
        return part[:, :1]

    image = torch.arange(side, dtype=torch.float32).expand(1, 3, window, side)
    assert torch.equal(slide(logits, image, window, stride), image[:, :1])
    assert seen[0] == 0
    assert seen[-1] == max(side - window, 0)
    assert all(0 < b - a <= stride for a, b in pairwise(seen))


def test_prediction_is_of_the_image_as_it_is():
    image = Image.new("RGB", (60, 20), (255, 0, 0))
    image.paste((0, 255, 0), (30, 0, 60, 20))
    plain = Transform(mean=(0, 0, 0), std=(1, 1, 1))

    def colour(pixels):
        return torch.cat([pixels, torch.full_like(pixels[:, :20], -9)], dim=1)  # Red, green, blue, and classes beyond.

    for several in ({}, {"ratios": (0.5, 1.0, 1.5), "flip": True}):
        found = predict(colour, image, plain, size=16, stride=10, device=torch.device("cpu"), **several)
        assert found.shape == (20, 60)
        assert (found[:, :28] == 0).all()
        assert (found[:, 32:] == 1).all()


def test_scaled_sizes():
    assert fitted((512, 683), 512) == (512, 683)
    assert fitted((100, 50), 512) == (1024, 512)
    # 4 to 1 at most: the long side decides.
    assert fitted((1000, 100), 512) == (2048, 205)
    # DINOv2's multi-scale and DINOv3's heads: any length.
    assert fitted((1000, 100), 512, 0) == (5120, 512)


def test_saturation_and_hue_are_hsv_s():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 77  # Black and grey have no hue.
    for factor, steps in ((0.5, 7), (1.5, -18), (1.2, 17), (1.0, 0)):
        hsv = [colorsys.rgb_to_hsv(*colour) for colour in pixels.reshape(-1, 3) / 255]
        wanted = [colorsys.hsv_to_rgb(h, min(1, factor * s), v) for h, s, v in hsv]
        np.testing.assert_allclose(saturated(pixels, factor).reshape(-1, 3), 255 * np.array(wanted), atol=0.51)
        wanted = [colorsys.hsv_to_rgb((h + steps / 180) % 1, s, v) for h, s, v in hsv]
        np.testing.assert_allclose(turned(pixels, steps).reshape(-1, 3), 255 * np.array(wanted), atol=1.01)


def test_colours_are_distorted_as_mmsegmentation_does(monkeypatch):
    """Brightness is added, contrast multiplies, before saturation and hue or after them; channels stay where they
    are."""
    image = Image.fromarray(np.array([[[200, 100, 40], [10, 20, 30]]], dtype=np.uint8))

    def run(coins, numbers):
        coins, numbers = iter(coins), iter(numbers)
        with monkeypatch.context() as patch:
            patch.setattr(random, "random", lambda: 0.0 if next(coins) else 0.9)
            patch.setattr(random, "uniform", lambda low, high: low + (high - low) * next(numbers))
            patch.setattr(random, "randint", lambda low, high: low + round((high - low) * next(numbers)))
            found = np.asarray(distorted(image))
        assert next(coins, None) is None
        assert next(numbers, None) is None
        return found.tolist()

    assert run([0, 0, 0, 0, 0], []) == np.asarray(image).tolist()
    # Coins: brightness, contrast early or late, contrast, saturation, hue.
    assert run([1, 0, 0, 0, 0], [1.0]) == [[[232, 132, 72], [42, 52, 62]]]
    assert run([1, 0, 0, 0, 0], [0.0]) == [[[168, 68, 8], [0, 0, 0]]]
    assert run([0, 1, 1, 0, 0], [1.0]) == [[[255, 150, 60], [15, 30, 45]]]
    assert run([0, 0, 0, 0, 1], [0.0]) == [[[100, 50, 20], [5, 10, 15]]]
    # Saturation halved: 200 stays, 100 and 40 come halfway to it.
    assert run([0, 1, 0, 1, 0], [0.0]) == [[[200, 150, 120], [20, 25, 30]]]
    # Contrast before saturation is not contrast after it: 200 is cut at 255 first.
    assert run([0, 1, 1, 1, 0], [1.0, 0.0]) != run([0, 0, 1, 0, 1], [0.0, 1.0])
    draws = {tuple(np.asarray(distorted(image))[0, 1].tolist()) for _ in range(200)}
    assert len(draws) > 50


def test_crops_keep_image_and_mask_together(shapes):
    train = open_data(f"segfolder:{shapes}").train
    crops = Crops(train, Transform(mean=(0, 0, 0), std=(1, 1, 1)), 48, (0.5, 2.0))
    crops.recolour = lambda image: image
    colours = torch.tensor(list(COLOURS.values())) / 255
    seen, voids, padded = 0, 0, 0
    for index in range(len(train)):
        for seed in range(6):
            bench_seed(seed)
            pixels, labels = crops[index]
            assert pixels.shape == (3, 48, 48)
            assert labels.shape == (48, 48)
            painted = labels > 0
            seen += int(painted.sum())
            voids += int((labels < 0).sum())
            padded += int((pixels.sum(0) == 0).sum())
            wanted = colours[labels[painted] - 1]
            wrong = (pixels.permute(1, 2, 0)[painted] - wanted).abs().amax(1) > 0.25
            assert wrong.float().mean() < 0.05
            assert (labels[pixels.sum(0) == 0] < 0).all()
    assert seen > 10_000
    assert voids > padded > 0


def bench_seed(seed):
    from suites.training.feed import seed_all

    seed_all(seed)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "patches of 14"])
def test_heads_take_images_of_any_size(name):
    backbone = tiny("test_vit", patch_size=14, img_size=98) if name == "patches of 14" else tiny(name)
    images = torch.randn(2, 3, 50, 75)
    for network in (LinearSegmenter(backbone, 4, layers=2), UperNet(backbone, 4, width=8)):
        network.eval()
        with torch.no_grad():
            assert network.logits(images).shape == (2, 4, 50, 75)
        network.train()
        labels = torch.randint(-1, 4, (2, 50, 75))
        losses = network((images, labels))
        sum(losses.values()).backward()
        assert set(losses) == ({"loss"} if network.maps.frozen else {"loss", "auxiliary"})
        trained = any(p.grad is not None for p in network.maps.backbone.parameters())
        assert trained is not network.maps.frozen
        assert not any(p.requires_grad for p in backbone.parameters())


def test_relative_positions_are_made_for_the_windows():
    """BEiT's tables are interpolated to the size of windows: the distance 0 and the class token's entries stay, a table
    of one value keeps it; smaller windows are padded to the square; the network given stays as it was."""
    backbone = tiny_beit()
    own = [block.attn.relative_position_bias_table for block in backbone.network.blocks]
    before = [table.clone() for table in own]
    with torch.no_grad():
        before[1].fill_(0.7), own[1].fill_(0.7)
    for network in (LinearSegmenter(backbone, 4, layers=2, size=120), UperNet(backbone, 4, width=8, size=120)):
        side = 128
        tables = [block.attn.relative_position_bias_table for block in network.maps.trunk.blocks]
        for table, was in zip(tables, before, strict=True):
            assert len(table) == (2 * side // 16 - 1) ** 2 + 3
            assert table.requires_grad is not network.maps.frozen
            torch.testing.assert_close(table[-3:], was[-3:])
            torch.testing.assert_close(table[(len(table) - 3) // 2], was[(len(was) - 3) // 2])
        torch.testing.assert_close(tables[1], torch.full_like(tables[1], 0.7))
        network.eval()
        with torch.no_grad():
            for size in ((120, 120), (60, 90)):
                image = torch.randn(1, 3, *size)
                found = network.logits(image)
                padded = torch.nn.functional.pad(image, (0, side - size[1], 0, side - size[0]))
                torch.testing.assert_close(found, network.logits(padded)[:, :, : size[0], : size[1]])
                assert found.shape == (1, 4, *size)
    assert all(torch.equal(a, b) for a, b in zip(own, before, strict=True))


def test_a_beit_is_trained_and_tested_through_windows(shapes):
    backbone = tiny_beit(8)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    for settings in ({"head": "upernet"}, {"head": "linear", "test": "multi"}):
        assert ran(shapes, backbone, **settings, batch=2, iterations=1).measurements[0].metric == "miou"
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_blocks_are_those_that_the_published_configurations_name():
    assert spread_of(12) == [3, 5, 7, 11]
    assert spread_of(24) == [7, 11, 15, 23]
    assert spread_of(3) == [0, 0, 1, 2]
    backbone = tiny("test_vit")
    assert backbone.depth == 6
    images = torch.randn(2, 3, 32, 32)
    for maps, numbers, norm in (
        (FrozenMaps(backbone, 4), [2, 3, 4, 5], True),
        (FrozenMaps(backbone, 4, spread=True), [1, 2, 3, 5], True),
        (FourMaps(backbone), [1, 2, 3, 5], False),
    ):
        if maps.rescale is not None:
            maps.rescale = nn.ModuleList([nn.Identity() for _ in range(4)])
        found = maps(images)
        seen = []
        tokens = maps.trunk._pos_embed(maps.trunk.patch_embed(images))
        for block in maps.trunk.blocks:
            seen.append(tokens := block(tokens))
        for number, one in zip(numbers, found, strict=True):
            tokens = maps.trunk.norm(seen[number]) if norm else seen[number]
            torch.testing.assert_close(one.flatten(2).transpose(1, 2), tokens[:, 1:], msg=str(number))


def test_the_linear_heads_are_the_published_ones():
    """Dropout before the norm (DINOv3), no norm (iBOT)."""
    backbone = tiny("test_vit")
    batch = torch.randn(4, 3, 64, 64), torch.randint(0, 4, (4, 64, 64))
    ibot = LinearSegmenter(backbone, 4, layers=4, spread=True, batch_norm=False)
    assert [name for name, _ in ibot.named_parameters() if not name.startswith("maps.")] == ["head.weight", "head.bias"]
    network = LinearSegmenter(backbone, 4, dropout=0.5)
    maps = network.maps(batch[0])
    torch.manual_seed(0)
    dropped = nn.functional.dropout2d(maps[0], 0.5)
    expected = network.head(nn.BatchNorm2d(maps[0].shape[1])(dropped))
    torch.manual_seed(0)
    found = network._main(maps)
    torch.testing.assert_close(found, nn.functional.interpolate(expected, found.shape[2:], mode="bilinear"))


@pytest.mark.parametrize("protocol", ["linear", "linear-ms", "ibot-linear", "dinov3-linear", "own-upernet-160k"])
def test_every_card_runs(shapes, protocol):
    made = []

    def optimiser(groups, **options):
        made.append([{key: value for key, value in group.items() if key != "params"} for group in groups])
        return torch.optim.SGD(groups, lr=options["lr"])

    backbone = tiny("test_vit")
    options = {**QUICK, "ade20k.size": 32, "ade20k.stride": 24, "ade20k.iterations": 2, "ade20k.batch": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", optimiser)
        record = bench.run(
            backbone, ["ade20k"], f"segfolder:{shapes}", protocols={"ade20k": protocol}, settings=options, workers=0
        )
    assert record.measurements[0].protocol.startswith(f"ade20k/{protocol}@")
    decays = {group["weight_decay"] for group in made[0]}
    assert decays == {
        "linear": {1e-4}, "linear-ms": {1e-4}, "ibot-linear": {0.05}, "dinov3-linear": {1e-3},
        "own-upernet-160k": {0.0, 0.05},
    }[protocol]  # fmt: skip


def test_pixels_that_count_nowhere_add_nothing():
    logits = torch.randn(1, 3, 2, 2)
    labels = torch.tensor([[[0, 1], [-1, -1]]])
    each = nn.functional.cross_entropy(logits[..., 0, :], labels[:, 0], reduction="sum")
    torch.testing.assert_close(loss_of(logits, labels), each / 4)
    assert loss_of(logits, torch.full((1, 2, 2), -1)).item() == 0


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("demo:efficientnet-lite0", {"head": "linear", "layers": 4, "lr": 0.01, "iterations": 40}),
        ("test_resnet", {"head": "upernet", "lr": 0.004, "iterations": 70, "layer_decay": 1.0}),
    ],
    ids=["linear", "upernet"],
)
def test_it_learns_its_own_training_images(shapes, name, settings, tmp_path):
    backbone = bench.load(name) if name.startswith("demo:") else tiny(name)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    options = {**QUICK, **{f"ade20k.{key}": value for key, value in settings.items()}}
    runs = tmp_path / "runs"
    record = bench.run(backbone, ["ade20k"], f"segfolder:{shapes}", settings=options, workers=0, runs=runs)
    found = {m.metric: m for m in record.measurements}
    assert found["miou"].value > 80
    assert set(found) == {"miou", "macc", "pixel_acc"}
    assert found["miou"].headline
    assert found["miou"].n == 6
    assert all(m.interval[0] <= m.value <= m.interval[1] for m in found.values())
    assert found["miou"].details["training"]["batch"] == 6
    assert found["miou"].details["curve"][-1]["loss"] < found["miou"].details["curve"][0]["loss"]
    assert "+head=upernet" in found["miou"].protocol or settings["head"] == "linear"
    # The caller's network is what it was.
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    # What was kept beside the record is whole: the sums of every image, and drawings.
    ledger = Ledger(runs)
    assert ledger.check() == []
    table = ledger.outcomes(record, found["miou"].outcomes)
    ratio = table["intersection"].sum(0) / table["union"].sum(0)
    assert 100 * ratio.mean() == pytest.approx(found["miou"].value)
    drawings = [path for path in record.artifacts if path.endswith(".png")]
    assert len(drawings) == 4
    with Image.open(runs / drawings[0]) as drawing:
        assert drawing.size == (2 * 80 + 4, 64)


def test_the_same_run_gives_the_same_numbers(shapes):
    first, second = ran(shapes), ran(shapes)
    assert [m.value for m in first.measurements] == [m.value for m in second.measurements]
    assert [m.interval for m in first.measurements] == [m.interval for m in second.measurements]


def test_an_interrupted_run_goes_on_to_the_same_numbers(shapes, tmp_path, monkeypatch):
    from suites.training import loop

    whole, step = ran(shapes, head="upernet", iterations=6), loop._Training._step
    taken = []

    def broken(self, network, iteration, pieces, batches):
        if iteration == 3 and not taken:
            taken.append(iteration)
            raise KeyboardInterrupt
        return step(self, network, iteration, pieces, batches)

    monkeypatch.setattr(loop._Training, "_step", broken)
    options = {**QUICK, "ade20k.iterations": 6, "ade20k.head": "upernet"}
    run = {"data": f"segfolder:{shapes}", "settings": options, "workers": 0, "runs": tmp_path / "runs"}
    with pytest.raises(KeyboardInterrupt):
        bench.run(tiny(), ["ade20k"], **run)
    said = []
    progress = Progress(quiet=False)
    progress.say = said.append
    again = bench.run(tiny(), ["ade20k"], progress=progress, **run)
    # From the last checkpoint: how often they are written depends on what that costs.
    assert any(re.search(r"taken over at iteration [123] of 6", line) for line in said), said
    assert [m.value for m in again.measurements] == [m.value for m in whole.measurements]
    assert again.measurements[0].details["curve"] == whole.measurements[0].details["curve"]


@pytest.mark.slow
def test_torchruns_processes_share_every_batch(shapes, tmp_path):
    """Half a minute: three interpreters start. Batch norms see the whole batch, whoever has which images."""
    arguments = [
        "-m", "bench", "run", "--launcher", "torchrun", "--model", "demo:efficientnet-lite0", "--suite", "ade20k",
        "--data", f"segfolder:{shapes}", "--workers", "0", "--runs", str(tmp_path / "runs"),
    ]  # fmt: skip
    options = {"iterations": 6, "head": "upernet", "dropout": 0.0, "drop_path": 0.0}
    settings = QUICK | {f"ade20k.{key}": value for key, value in options.items()}
    for name, value in settings.items():
        arguments += ["--set", f"{name}={value}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments]
    root = Path(__file__).resolve().parents[2]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.DEVNULL)
    (both,) = Ledger(tmp_path / "runs").records()
    alone = bench.run("demo:efficientnet-lite0", ["ade20k"], f"segfolder:{shapes}", settings=settings, workers=0)
    details = [record.measurements[0].details for record in (both, alone)]
    assert [d["training"]["processes"] for d in details] == [2, 1]
    assert [d["training"]["batch"] for d in details] == [6, 6]
    for mine, theirs in zip(*(d["curve"] for d in details), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-2)
    assert both.measurements[0].value == pytest.approx(alone.measurements[0].value, abs=3)


def test_a_batch_larger_than_the_data_shrinks_and_several_scales_run(shapes):
    record = ran(shapes, batch=64, test="multi")
    assert record.measurements[0].details["training"]["batch"] == 6
    assert record.measurements[0].details["training"]["asked_batch"] == 64
    assert "+test=multi" in record.measurements[0].protocol


def test_refusals(shapes, tmp_path, features_dir):
    with pytest.raises(BenchError, match=r"ade20k.stride is larger than ade20k.size"):
        ran(shapes, stride=65)
    with pytest.raises(BenchError, match=r"ade20k.scale_least is larger than ade20k.scale_most"):
        ran(shapes, scale_least=3.0)
    with pytest.raises(BenchError, match=r"ade20k.long_side is at least 1 .* or 0 for any length"):
        ran(shapes, long_side=0.5)
    with pytest.raises(BenchError, match=r"ade20k.blocks=spread reads four layers, not ade20k.layers=1"):
        ran(shapes, blocks="spread")
    with pytest.raises(BenchError, match=r"has 4 maps to read, and ade20k.layers asks for 9"):
        ran(shapes, layers=9)
    with pytest.raises(BenchError, match="needs masks of class numbers, and demo has none: give --data segfolder:PATH"):
        bench.run(tiny(), ["ade20k"], "demo", workers=0)
    with pytest.raises(BenchError, match="suite 'ade20k' runs the network itself"):
        bench.run(f"features:{features_dir}", ["ade20k"])
    with pytest.raises(BenchError, match="option ade20k.lr is a number above 0"):
        ran(shapes, lr=0)
    Image.fromarray(np.full((64, 80), 9, dtype=np.uint8)).save(shapes / "masks" / "val" / "0.png")
    with pytest.raises(BenchError, match="holds the label 9, and there are 4 classes"):
        ran(shapes)
    (shapes / "images" / "train" / "1.png").write_bytes(b"no image")
    with pytest.raises(BenchError, match=r"the image .*1.png cannot be read .* mend it"):
        ran(shapes)


EXAMPLES = Path("/usr/share/doc/labelme-examples/examples/semantic_segmentation/data_dataset_voc")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["own", "mmseg"])
@pytest.mark.parametrize("head", ["linear", "upernet"])
def test_photographs_with_masks(tmp_path, head, engine):
    """One to three minutes: three photographs of VOC, where the package labelme-examples is installed."""
    if engine == "mmseg":
        pytest.importorskip("mmseg", reason="mmsegmentation is not installed (the extra [mmseg])")
    if not EXAMPLES.is_dir():
        pytest.skip("Debian's package labelme-examples is not installed")
    for split in ("train", "val"):
        shutil.copytree(EXAMPLES / "JPEGImages", tmp_path / "images" / split)
        shutil.copytree(EXAMPLES / "SegmentationClassPNG", tmp_path / "masks" / split)
    length, rate = (400, 0.01) if head == "linear" else (400, 0.002) if engine == "own" else (600, 0.004)
    settings = {
        "engine": engine, "head": head, "layers": 4, "iterations": length, "batch": 3, "size": 160, "stride": 107,
        "width": 32, "lr": rate, "layer_decay": 1.0, "warmup": 10, "dropout": 0.0,
    }  # fmt: skip
    backbone = bench.load("demo:efficientnet-lite0")
    assert ran(tmp_path, backbone, **settings).measurements[0].value > 80
