"""coco and voc07: samples, pyramids, and whole runs on generated shapes."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from densehelp import (
    COLOURS,
    IDS,
    assert_shared,
    by_pycocotools,
    shapes,
    write_coco,
    write_document,
    write_segfolder,
    write_voc,
)
from densenets import tiny
from PIL import Image

import bench
from bench import matched
from bench.data.masks import mask_of
from bench.data.opening import limited, open_data
from bench.errors import BenchError
from bench.ledger import Ledger
from bench.protocol import get
from suites.detection import pyramids, training
from suites.detection.pyramids import Reader, Trunk
from suites.detection.samples import Annotated, jittered
from suites.detection.training import rows_of
from suites.training.feed import seed_all

EXAMPLES = Path("/usr/share/doc/labelme-examples/examples")


@pytest.fixture
def few(monkeypatch):
    """Few regions and narrow heads: the published numbers are for images a hundred times larger."""
    monkeypatch.setattr(pyramids, "WIDTH", 32)
    monkeypatch.setattr(pyramids, "MASK_HEAD", (32, 32))
    monkeypatch.setattr(pyramids, "SAMPLED", 48)
    monkeypatch.setattr(pyramids, "PROPOSALS", (300, 150, 60))


def own_images(folder, n=4, **more):
    """A `coco:` folder whose test images are its training images."""
    (document, _) = write_coco(folder, (n, 1), **more)
    shutil.rmtree(folder / "val")
    shutil.copytree(folder / "train", folder / "val")
    write_document(folder, "val", document)
    return document


def detections(runs, record):
    return json.loads((runs / next(p for p in record.artifacts if p.endswith("-detections.json"))).read_text())


def ran(suite, data, protocol, backbone=None, **settings):
    options = {"iterations": 2, "batch": 2, "size": 64, "warmup": 1} | settings
    runs = options.pop("runs", None)
    protocols = {suite: protocol} if protocol else {}
    return bench.run(
        backbone or tiny(), [suite], data, protocols=protocols, workers=0, runs=runs,
        settings={f"{suite}.{key}": value for key, value in options.items()},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "patches of 14"])
def test_pyramids_have_the_strides_that_detectors_expect(name):
    backbone = tiny("test_vit", patch_size=14, img_size=98) if name == "patches of 14" else tiny(name)
    for frozen in (True, False):
        trunk = Trunk(backbone, frozen=frozen, fixed=True, norm="batch").train()
        maps = trunk(torch.randn(1, 3, 64, 96))
        assert {key: tuple(value.shape[1:]) for key, value in maps.items()} == {
            "0": (256, 16, 24), "1": (256, 8, 12), "2": (256, 4, 6), "3": (256, 2, 3), "pool": (256, 1, 2),
        }  # fmt: skip
        sum(level.sum() for level in maps.values()).backward()
        assert any(p.grad is not None for p in trunk.backbone.parameters()) is not frozen
        norms = [m for m in trunk.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert not any(norm.training for norm in norms)
    assert not any(p.requires_grad for p in backbone.parameters())


def test_batch_norms_are_trained_where_the_protocol_says_so():
    trunk = Trunk(tiny(), frozen=False, fixed=False, norm="batch").train()
    assert all(m.training for m in trunk.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))


@pytest.mark.parametrize("jitter", [None, 96])
def test_samples_keep_image_boxes_and_masks_together(tmp_path, jitter):
    write_coco(tmp_path)
    samples = Annotated(open_data(f"coco:{tmp_path}").train, masks=True, jitter=jitter)
    colours = torch.tensor(list(COLOURS.values())) / 255
    checked = 0
    for index in range(len(samples)):
        for seed in range(8):
            seed_all(seed)
            pixels, target = samples[index]
            if jitter:
                assert pixels.shape == (3, jitter, jitter)
            assert target["masks"].shape[1:] == pixels.shape[1:]
            for box, label, mask in zip(target["boxes"], target["labels"], target["masks"], strict=True):
                left, top, right, bottom = box.round().int().tolist()
                if min(right - left, bottom - top) < 8:
                    continue
                inside = pixels[:, top + 3 : bottom - 3, left + 3 : right - 3].flatten(1)
                assert (inside - colours[label - 1][:, None]).abs().max() < 0.15
                assert mask[top + 2 : bottom - 2, left + 2 : right - 2].all()
                assert mask.sum() <= (right - left + 3) * (bottom - top + 3)
                checked += 1
    assert checked > 40


def test_jitter_crops_what_is_larger_and_pads_what_is_smaller():
    image = Image.fromarray(shapes(1)[0][0])
    sizes = []
    for seed in range(20):
        seed_all(seed)
        found, boxes, _ = jittered(image, np.array([[0.0, 0, 80, 64]]), [], 64)
        assert found.size == (64, 64)
        sizes.append(float(boxes[0, 2] - boxes[0, 0]))
    assert min(sizes) < 40
    assert max(sizes) > 90


def test_a_part_of_a_set_says_whether_it_has_masks(tmp_path):
    write_coco(tmp_path / "coco")
    write_voc(tmp_path / "year")
    assert limited(open_data(f"coco:{tmp_path / 'coco'}").train, 2).masked
    assert not limited(open_data(f"voc:{tmp_path / 'year'}").train, 2).masked


def test_crowds_and_empty_images_are_not_learned(tmp_path):
    (document, _) = write_coco(tmp_path)
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] != 15]
    for row in document["annotations"]:
        row["iscrowd"] = int(row["image_id"] == 25)
    write_document(tmp_path, "train", document)
    samples = Annotated(open_data(f"coco:{tmp_path}").train, masks=False)
    assert samples.rows == [0, 3]
    document["annotations"] = []
    write_document(tmp_path, "train", document)
    with pytest.raises(BenchError, match="has no annotated object"):
        Annotated(open_data(f"coco:{tmp_path}").train, masks=False)


def test_rows_are_of_cocos_result_form():
    mask = torch.zeros(1, 1, 10, 12)
    mask[0, 0, 2:5, 3:9] = 0.9
    found = {
        "boxes": torch.tensor([[3.0, 2, 9, 5]]), "labels": torch.tensor([2]), "scores": torch.tensor([0.75]),
        "masks": mask,
    }  # fmt: skip
    (row,) = rows_of(found, 42, (3, 7, 90))
    assert (row["image_id"], row["category_id"], row["bbox"], row["score"]) == (42, 7, [3.0, 2.0, 6.0, 3.0], 0.75)
    assert np.array_equal(mask_of(row["segmentation"], (10, 12)), mask[0, 0].numpy() > 0.5)
    assert json.loads(json.dumps(row)) == row


def test_masks_are_trained_and_stored_detections_give_the_printed_numbers(few, tmp_path):
    document = own_images(tmp_path / "set")
    backbone = tiny()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    record = ran("coco", f"coco:{tmp_path / 'set'}", "tv-maskrcnn-fpn-1x", backbone, runs=tmp_path / "runs")
    found = {m.metric: m for m in record.measurements}
    assert {"box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75"} <= set(found)
    assert [m.metric for m in record.measurements if m.headline] == ["box_ap"]
    assert found["box_ap"].protocol == "coco/tv-maskrcnn-fpn-1x@1+batch=2+iterations=2+size=64+warmup=1"
    assert "torchvision" in found["box_ap"].engine.name
    curve = found["box_ap"].details["curve"][-1]
    assert {"loss_mask", "loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"} <= set(curve)
    assert Ledger(tmp_path / "runs").check() == []
    assert sum(path.endswith(".png") for path in record.artifacts) == 4
    stored = detections(tmp_path / "runs", record)
    assert {row["category_id"] for row in stored} <= set(IDS.values())
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        ap, ap50 = by_pycocotools(document, stored, kind)[:2]
        assert found[f"{name}_ap"].value == pytest.approx(ap, abs=1e-6)
        assert found[f"{name}_ap50"].value == pytest.approx(ap50, abs=1e-6)
    for metric, measurement in found.items():
        classes, recalls = matched.unpacked(dict(np.load(tmp_path / "runs" / measurement.outcomes)))
        figure = f"ap{metric.partition('_ap')[2]}"
        value = matched.figures(classes, np.ones((1, measurement.n)), recalls)[figure if figure[2:].isdigit() else "ap"]
        assert 100 * value[0] == pytest.approx(measurement.value, abs=1e-6), "the matches kept are the metric's own"
    assert list(found["box_ap"].details["per_class"]) == list(IDS)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_plain_transformers_and_voc_run(few, tmp_path):
    write_voc(tmp_path / "year", (3, 2))
    data = f"voc:{tmp_path / 'year'}"
    first = ran("voc07", data, "tv-fasterrcnn-fpn-24k", tiny("test_vit"))
    again = ran("voc07", data, "tv-fasterrcnn-fpn-24k", tiny("test_vit"))
    assert [m.metric for m in first.measurements] == ["box_ap50", "box_ap", "box_ap75"]
    assert [m.value for m in first.measurements] == [m.value for m in again.measurements]
    part = bench.run(
        tiny("test_vit"), ["voc07"], data, workers=0, limit=2,
        settings={"voc07.iterations": 1, "voc07.batch": 2, "voc07.size": 64},
    )  # fmt: skip
    assert part.measurements[0].n == 2
    with pytest.raises(BenchError, match="needs a mask for every object, and year has boxes alone"):
        ran("coco", data, "tv-vitdet-100ep", tiny("test_vit"))


def test_windows_are_refused_where_there_is_nothing_to_divide(tmp_path):
    write_coco(tmp_path / "set", (2, 1))
    data = f"coco:{tmp_path / 'set'}"
    remedy = "--set coco.window=0 --set coco.relative=no"
    with pytest.raises(BenchError, match=rf"'random-test_resnet' \(test_resnet\) is no plain transformer: .*{remedy}"):
        ran("coco", data, "tv-vitdet-100ep")
    with pytest.raises(BenchError, match=rf"'random-test_vit' is frozen here: .*{remedy}"):
        ran("coco", data, "tv-vitdet-100ep", tiny("test_vit"), frozen=True)
    with pytest.raises(BenchError, match=r"coco.window=0 has none: --set coco.relative=no"):
        ran("coco", data, "tv-vitdet-100ep", tiny("test_vit"), window=0)


def test_refusals(tmp_path, features_dir):
    write_segfolder(tmp_path / "seg")
    with pytest.raises(BenchError, match="needs boxes, and seg has none: give --data coco:PATH or voc:PATH"):
        ran("coco", f"segfolder:{tmp_path / 'seg'}", None)
    with pytest.raises(BenchError, match="suite 'coco' runs the network itself"):
        bench.run(f"features:{features_dir}", ["coco"])
    with pytest.raises(BenchError, match="option coco.batch is a number of at least 1"):
        ran("coco", "coco:x", None, batch=0)
    with pytest.raises(BenchError, match="option coco.engine is torchvision or detectron2, not 'yolo'"):
        ran("coco", "coco:x", None, engine="yolo")
    document = own_images(tmp_path / "set")
    for row in document["annotations"]:
        row["iscrowd"] = 1
    write_document(tmp_path / "set", "val", document)
    with pytest.raises(BenchError, match="has no object that counts: there is nothing to find"):
        ran("coco", f"coco:{tmp_path / 'set'}", None)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["tv-fasterrcnn-fpn-1x", "tv-maskrcnn-fpn-1x"])
def test_a_convolutional_network_learns_its_own_images(few, tmp_path, protocol):
    """Some minutes: a detector's heads are large whatever the images."""
    document = own_images(tmp_path / "set", 6, least=20)
    record = ran(
        "coco", f"coco:{tmp_path / 'set'}", protocol, bench.load("demo:efficientnet-lite0"), runs=tmp_path / "runs",
        iterations=200, batch=3, size=128, lr=0.005, bn="fixed", warmup=20,
    )  # fmt: skip
    found = {m.metric: m.value for m in record.measurements}
    assert found["box_ap50"] > 80
    stored = detections(tmp_path / "runs", record)
    assert found["box_ap"] == pytest.approx(by_pycocotools(document, stored, "bbox")[0], abs=1e-6)


@pytest.mark.slow
def test_a_plain_transformer_learns_its_own_images(few, tmp_path):
    """Some minutes. No pretrained plain transformer is at hand: the network is random, named so, and trained whole."""
    own_images(tmp_path / "set", 6, least=20)
    record = ran(
        "coco", f"coco:{tmp_path / 'set'}", "tv-vitdet-100ep", tiny("test_vit", patch_size=8), iterations=250,
        batch=3, size=128, lr=0.001, jitter=False, layer_decay=1.0, warmup=20,
    )  # fmt: skip
    assert {m.metric: m.value for m in record.measurements}["box_ap50"] > 80


@pytest.mark.slow
def test_photographs_with_boxes(few, tmp_path):
    """Some minutes: three photographs of VOC, where the package labelme-examples is installed."""
    source = EXAMPLES / "bbox_detection" / "data_dataset_voc"
    if not source.is_dir():
        pytest.skip("Debian's package labelme-examples is not installed")
    assert subprocess.run(["dpkg", "-L", "labelme-examples"], capture_output=True, check=False).returncode == 0
    shutil.copytree(source, tmp_path / "year")
    lists = tmp_path / "year" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    names = sorted(file.stem for file in (source / "JPEGImages").iterdir())
    for split in ("train", "val"):
        (lists / f"{split}.txt").write_text("\n".join(names))
    record = ran(
        "voc07", f"voc:{tmp_path / 'year'}", "tv-fasterrcnn-fpn-24k", bench.load("demo:efficientnet-lite0"),
        iterations=400, batch=3, size=192, lr=0.005, bn="fixed", warmup=20,
    )  # fmt: skip
    assert record.measurements[0].value > 80


@pytest.mark.slow
def test_two_processes_share_every_batch(few, tmp_path, monkeypatch):
    """Half a minute: two interpreters start. Which regions are learned from is drawn anew for every piece."""
    # So is the scale of an image, which weighs more: one scale.
    monkeypatch.setitem(training.SHORT, "coco", (800,))
    own_images(tmp_path / "set")
    data, options = f"coco:{tmp_path / 'set'}", {"iterations": 6, "batch": 4, "lr": 0.005}
    alone = ran("coco", data, "tv-maskrcnn-fpn-1x", **options)
    monkeypatch.setenv("BENCH_PROCESSES", "2")
    both = ran("coco", data, "tv-maskrcnn-fpn-1x", **options)
    assert_shared(both, alone)


def test_an_interrupted_run_goes_on_to_the_same_numbers(few, tmp_path, monkeypatch):
    from suites.training import loop

    own_images(tmp_path / "set")
    data, options = f"coco:{tmp_path / 'set'}", {"iterations": 5, "lr": 0.005, "precise_bn": True}
    whole, step, taken = ran("coco", data, "tv-maskrcnn-fpn-1x", **options), loop._Training._step, []

    def broken(self, network, iteration, pieces, batches):
        if iteration == 3 and not taken:
            taken.append(iteration)
            raise KeyboardInterrupt
        return step(self, network, iteration, pieces, batches)

    monkeypatch.setattr(loop._Training, "_step", broken)
    with pytest.raises(KeyboardInterrupt):
        ran("coco", data, "tv-maskrcnn-fpn-1x", runs=tmp_path / "runs", **options)
    assert list((tmp_path / "runs").rglob("training.pt"))
    again = ran("coco", data, "tv-maskrcnn-fpn-1x", runs=tmp_path / "runs", **options)
    assert [m.value for m in again.measurements] == [m.value for m in whole.measurements]
    assert again.measurements[0].details["curve"] == whole.measurements[0].details["curve"]


def test_precise_statistics_are_those_of_all_batches(tmp_path):
    from suites.training.precise import Mean

    norm = torch.nn.BatchNorm2d(2, momentum=1.0).train()
    # Images of several sizes: each batch counts by its pixels.
    mean, parts = Mean(norm), [torch.randn(2, 2, 2 + size, 3) * 3 + size for size in range(6)]
    for part in parts:
        norm(part)
        mean.note()
    mean.note()  # A batch that did not come by here adds nothing.
    mean.settle()
    pixels = torch.cat([part.transpose(0, 1).flatten(1) for part in parts], 1)
    torch.testing.assert_close(norm.running_mean, pixels.mean(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, pixels.var(1, correction=0), rtol=1e-4, atol=1e-4)


def test_the_stem_is_fixed_where_the_protocol_says_so():
    reader = Reader(tiny(), frozen=False, fixed=True, fixed_stem=True)
    fixed = {name.split(".")[0] for name, p in reader.trunk.named_parameters() if not p.requires_grad}
    learned = {name.split(".")[0] for name, p in reader.trunk.named_parameters() if p.requires_grad}
    assert fixed == {"conv1", "bn1", "layer1"}
    assert learned == {"layer2", "layer3", "layer4"}


@pytest.mark.parametrize(("name", "iterations", "steps", "batch", "lr", "more"), [
    ("coco/maskrcnn-fpn-1x", 90_000, (60_000, 80_000), 16, 0.02, {"warmup": 1000, "precise_bn": True}),
    ("coco/maskrcnn-fpn-2x", 180_000, (120_000, 160_000), 16, 0.02, {"precise_bn": True, "head": "fpn"}),
    ("coco/moco-c4-2x", 180_000, (120_000, 160_000), 16, 0.02, {"head": "c4", "masks": True, "precise_bn": True}),
    ("coco/dcd-fasterrcnn", 180_000, (120_000, 160_000), 8, 0.01, {"masks": False, "bn": "fixed", "fixed_stem": True}),
    ("coco/vitdet-100ep", 184_375, (163_889, 177_546), 64, 1e-4, {"layer_decay": 0.7, "drop_path": 0.1, "warmup": 250}),
    ("coco/vitdet-cascade-100ep", 184_375, (163_889, 177_546), 64, 1e-4, {"layer_decay": 0.7, "head": "cascade"}),
    ("coco/vitdet-l-100ep", 184_375, (163_889, 177_546), 64, 1e-4, {"layer_decay": 0.8, "drop_path": 0.4}),
    ("coco/vitdet-h-75ep", 138_281, (122_916, 133_159), 64, 1e-4, {"layer_decay": 0.9, "drop_path": 0.5}),
    ("voc07/moco-c4-24k", 24_000, (18_000, 22_000), 16, 0.02, {"warmup": 100, "head": "c4", "masks": False}),
])  # fmt: skip
def test_schedules_of_the_published_engine_are_the_configurations(name, iterations, steps, batch, lr, more):
    """As MoCo's, ViTDet's and mdistiller's detectron2 configurations have them."""
    settings = get(*name.split("/")).settings
    assert settings["engine"] == "detectron2"
    assert (settings["iterations"], settings["batch"], settings["lr"]) == (iterations, batch, lr)
    # As the training rounds them.
    assert tuple(round(share * iterations) for share in settings["steps"]) == steps
    assert {key: settings[key] for key in more} == more
