"""ade20k: whole runs on generated shapes and photographs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from densenets import tiny, tiny_beit
from PIL import Image

import bench
from bench.errors import BenchError
from bench.ledger import Ledger
from bench.progress import Progress

QUICK = {"ade20k.size": 64, "ade20k.stride": 48, "ade20k.batch": 6, "ade20k.warmup": 5, "ade20k.width": 32}


def ran(folder, backbone=None, **settings):
    options = {**QUICK, "ade20k.iterations": 3, **{f"ade20k.{key}": value for key, value in settings.items()}}
    return bench.run(backbone or tiny(), ["ade20k"], f"segfolder:{folder}", settings=options, workers=0)


def test_a_beit_is_trained_and_tested_through_windows(shapes):
    backbone = tiny_beit(8)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    for settings in ({"head": "upernet"}, {"head": "linear", "test": "multi"}):
        assert ran(shapes, backbone, **settings, batch=2, iterations=1).measurements[0].metric == "miou"
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


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


def test_several_scales_are_those_of_setr_resize(shapes):
    """BEiT's and iBOT's test_pipeline: img_scale (2048, 512) times six ratios, no short side below the crop's, the long
    side as it comes."""
    from types import SimpleNamespace

    from suites.segmentation.own import Job

    seen = []
    settings = {"size": 64, "stride": 48, "long_side": 4.0, "test": "multi"}

    def logits(images):
        return images[:, :2]

    def windows(network, image, window, stride):
        seen.append(tuple(image.shape[2:]))
        return network(image)

    job = Job(
        SimpleNamespace(settings=settings, device="cpu", card=SimpleNamespace(transform=None), protocol=None),
        ("a", "b"),
    )
    image = Image.new("RGB", (500, 100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("suites.segmentation.windows.slide", windows)
        job.judge(
            SimpleNamespace(logits=logits), image, np.zeros((100, 500), int), SimpleNamespace(add=lambda *a: None)
        )
        wanted = []
        for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75):
            short = max(64, round(64 * ratio))
            wanted += 2 * [(short, short * 5)]
        assert seen == wanted
        settings["test"] = "single"
        job.judge(
            SimpleNamespace(logits=logits), image, np.zeros((100, 500), int), SimpleNamespace(add=lambda *a: None)
        )
    # 4 to 1 at most.
    assert seen[-1] == (51, 256)


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
