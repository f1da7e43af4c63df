"""Detectors learn photographs, where the packages that carry them are installed: minutes each, so all are slow."""

import json

import pytest
from densehelp import by_pycocotools
from densenets import tiny
from photographs import deepforest_coco, labelme_coco

import bench
from suites.detection import pyramids

pytestmark = pytest.mark.slow


@pytest.fixture
def few(monkeypatch):
    """Few regions and narrow heads: the published numbers are for images a hundred times larger."""
    monkeypatch.setattr(pyramids, "WIDTH", 32)
    monkeypatch.setattr(pyramids, "MASK_HEAD", (32, 32))
    monkeypatch.setattr(pyramids, "SAMPLED", 64)
    monkeypatch.setattr(pyramids, "PROPOSALS", (400, 300, 100))


@pytest.mark.parametrize(
    ("make", "protocol", "network", "settings"),
    [
        (labelme_coco, "tv-maskrcnn-fpn-1x", "cnn", {"iterations": 400, "batch": 3, "size": 192}),
        (labelme_coco, "tv-vitdet-100ep", "vit", {"iterations": 400, "batch": 3, "size": 192}),
        (deepforest_coco, "tv-fasterrcnn-fpn-1x", "cnn", {"iterations": 400, "batch": 4, "size": 192}),
        (deepforest_coco, "tv-vitdet-100ep", "vit", {"iterations": 400, "batch": 4, "size": 192, "masks": False}),
    ],
    ids=["labelme-mask-cnn", "labelme-mask-vit", "deepforest-box-cnn", "deepforest-box-vit"],
)
def test_training_photographs_are_found_again(few, tmp_path, make, protocol, network, settings):
    """Three to nine minutes each. No pretrained plain transformer can be had: that one is random, says so in its name,
    and is trained whole."""
    document = make(tmp_path / "set")
    if network == "cnn":
        backbone = bench.load("demo:efficientnet-lite0")
        options = {"lr": 0.005, "bn": "fixed"}
    else:
        backbone = tiny("test_vit", patch_size=8)
        assert backbone.card.name.startswith("random-")
        options = {"lr": 0.001, "jitter": False, "layer_decay": 1.0, "window": 8, "drop_path": 0.0}
    record = bench.run(
        backbone, ["coco"], f"coco:{tmp_path / 'set'}", protocols={"coco": protocol}, workers=0, runs=tmp_path / "runs",
        settings={f"coco.{key}": value for key, value in {**options, **settings, "warmup": 20}.items()},
    )  # fmt: skip
    found = {m.metric: m.value for m in record.measurements}
    print(found)
    (stored,) = [path for path in record.artifacts if path.endswith("-detections.json")]
    rows = json.loads((tmp_path / "runs" / stored).read_text())
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        if f"{name}_ap" in found:
            assert [found[f"{name}_ap"], found[f"{name}_ap50"]] == pytest.approx(
                by_pycocotools(document, rows, kind)[:2], abs=1e-6
            )
    assert found["box_ap50"] > 80
