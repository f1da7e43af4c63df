"""coco and voc07 by detectron2, where it is installed: its networks over our maps, its samples, and whole runs."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from densehelp import assert_shared, by_pycocotools, write_coco, write_document, write_voc
from densenets import tiny

import bench
from bench.data.opening import open_data
from bench.errors import BenchError
from bench.ledger import Ledger
from suites.detection import detectron_package

SMALL = [
    "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 64, "MODEL.ROI_BOX_HEAD.CONV_DIM", 32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM", 32, "MODEL.ROI_MASK_HEAD.NUM_CONV", 2, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 48,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN", 300, "MODEL.RPN.PRE_NMS_TOPK_TEST", 150, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 60,
    "MODEL.RPN.POST_NMS_TOPK_TEST", 60,
]  # fmt: skip


@pytest.fixture
def d2(monkeypatch):
    """detectron2 with few regions and narrow heads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("detectron2", reason="detectron2 is not installed (docs/dense.md says how it is built)")
        from suites.detection import detectron_networks

    monkeypatch.setattr(detectron_networks, "OVERRIDES", SMALL)
    return detectron_networks


def own_images(folder, n=4, **more):
    """A `coco:` folder whose test images are its training images."""
    (document, _) = write_coco(folder, (n, 1), **more)
    shutil.rmtree(folder / "val")
    shutil.copytree(folder / "train", folder / "val")
    write_document(folder, "val", document)
    return document


def ran(suite, data, protocol, backbone=None, precision="fp32", runs=None, **settings):
    options = {"iterations": 2, "batch": 2, "size": 64, "warmup": 1} | settings
    return bench.run(
        backbone or tiny(), [suite], data, protocols={suite: protocol}, workers=0, runs=runs, precision=precision,
        settings={f"{suite}.{key}": value for key, value in options.items()},
    )  # fmt: skip


def test_without_detectron2_the_refusal_says_how_to_build_it(monkeypatch):
    monkeypatch.setattr(detectron_package.importlib.util, "find_spec", lambda name: None)
    lines = (
        r"not installed here: pip install .*\[detectron2\].* pip install --no-build-isolation 'git\+https://github.com/"
    )
    for suite, protocol in (("coco", "maskrcnn-fpn-1x"), ("voc07", "moco-c4-24k")):
        with pytest.raises(BenchError, match=lines):
            bench.run(tiny(), [suite], "coco:x", protocols={suite: protocol})


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "patches of 14"])
def test_the_adapter_is_a_backbone_of_detectron2(d2, name):
    from detectron2.modeling import Backbone

    from suites.detection.pyramids import Reader

    backbone = tiny("test_vit", patch_size=14, img_size=98) if name == "patches of 14" else tiny(name)
    plain = backbone.depth > 0
    reader = Reader(backbone, frozen=False, fixed=True, window=2 if plain else 0, positions=4 if plain else 0)
    bottom = d2.Bottom(reader)
    assert isinstance(bottom, Backbone)
    settings = d2.RCNNSettings(3, True, "BN", [0.0] * 3, [1.0] * 3, 0, plain)
    network = d2.rcnn(bottom, settings)
    assert network.input_format == "RGB"
    shapes = network.backbone.output_shape()
    assert {key: shape.stride for key, shape in shapes.items()} == {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
    assert list(bottom.output_shape()) == (["last_feat"] if plain else ["res2", "res3", "res4", "res5"])
    maps = network.backbone(torch.randn(1, 3, 64, 96))
    assert {key: tuple(value.shape[1:]) for key, value in maps.items()} == {
        "p2": (32, 16, 24), "p3": (32, 8, 12), "p4": (32, 4, 6), "p5": (32, 2, 3), "p6": (32, 1, 2),
    }  # fmt: skip
    sum(level.sum() for level in maps.values()).backward()
    assert any(p.grad is not None for p in reader.backbone.parameters())
    assert not any(p.requires_grad for p in backbone.parameters())
    heads = network.roi_heads.box_head
    assert len(heads.conv_norm_relus) == (4 if plain else 0)


def test_the_published_configuration_stands_but_for_ours(d2, monkeypatch):
    from suites.detection.pyramids import Reader

    monkeypatch.setattr(d2, "OVERRIDES", [])
    cfg = d2.configuration(
        d2.Bottom(Reader(tiny(), frozen=True, fixed=True)),
        d2.RCNNSettings(7, False, "", [0.0] * 3, [1.0] * 3, 0, False),
    )
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[32], [64], [128], [256], [512]]
    assert (cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN, cfg.MODEL.RPN.PRE_NMS_TOPK_TEST) == (2000, 1000)
    assert (cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN, cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE) == (1000, 512)
    assert (cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION, cfg.MODEL.ROI_HEADS.NUM_CLASSES) == (0.25, 7)
    assert (cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE) == (0.05, 100)


@pytest.mark.parametrize("jitter", [False, True])
def test_samples_keep_image_boxes_and_masks_together(d2, tmp_path, jitter):
    from densehelp import COLOURS
    from detectron2.data import transforms as T

    from suites.detection.detectron import Mapped
    from suites.training.feed import seed_all

    write_coco(tmp_path)
    steps = [T.RandomFlip(), T.ResizeScale(0.5, 2.0, 96, 96), T.FixedSizeCrop((96, 96), pad=False)]
    steps = steps if jitter else [T.ResizeShortestEdge((64, 90), 120, "choice"), T.RandomFlip()]
    samples = Mapped(open_data(f"coco:{tmp_path}").train, steps, masks=True, recompute=jitter)
    assert samples.form == "polygon"
    colours = torch.tensor(list(COLOURS.values())).float()
    checked = 0
    for index in range(len(samples)):
        for seed in range(6):
            seed_all(seed)
            found = samples[index]
            seed_all(seed)
            assert torch.equal(samples[index]["image"], found["image"])
            for box, label in zip(found["instances"].gt_boxes.tensor, found["instances"].gt_classes, strict=True):
                left, top, right, bottom = box.round().int().tolist()
                if min(right - left, bottom - top) < 10:
                    continue
                inside = found["image"][:, top + 3 : bottom - 3, left + 3 : right - 3].flatten(1).float()
                assert (inside - colours[label][:, None]).abs().max() < 40
                checked += 1
    assert checked > 30


@pytest.mark.parametrize("protocol", ["maskrcnn-fpn-1x", "dcd-fasterrcnn", "vitdet-100ep", "moco-c4-2x"])
def test_coco_runs_are_whole_and_stored_detections_give_the_printed_numbers(d2, tmp_path, protocol):
    document = own_images(tmp_path / "set")
    backbone = tiny("test_vit" if protocol == "vitdet-100ep" else "test_resnet")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    more = {"window": 2, "lr": 0.001} if protocol == "vitdet-100ep" else {}
    record = ran("coco", f"coco:{tmp_path / 'set'}", protocol, backbone, runs=tmp_path / "runs", iterations=4, **more)
    found = {m.metric: m for m in record.measurements}
    assert found["box_ap"].engine.name.startswith("faster-coco-eval")
    assert "detectron2 0.6" in found["box_ap"].engine.name
    masks = protocol != "dcd-fasterrcnn"
    assert ("mask_ap" in found) is masks
    curve = set(found["box_ap"].details["curve"][-1]) - {"iteration", "epoch", "lr"}
    assert curve == {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"} | ({"loss_mask"} if masks else set())
    assert Ledger(tmp_path / "runs").check() == []
    stored = json.loads(next((tmp_path / "runs").rglob("*-detections.json")).read_text())
    for kind, name in (("bbox", "box"), ("segm", "mask"))[: 1 + masks]:
        ap, ap50 = by_pycocotools(document, stored, kind)[:2]
        assert found[f"{name}_ap"].value == pytest.approx(max(ap, 0), abs=1e-6)
        assert found[f"{name}_ap50"].value == pytest.approx(max(ap50, 0), abs=1e-6)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    again = ran("coco", f"coco:{tmp_path / 'set'}", protocol, backbone, iterations=4, **more)
    assert [m.value for m in again.measurements] == [m.value for m in record.measurements]


def test_mocos_c4_head_is_the_last_stage_and_trained(d2, tmp_path):
    from suites.detection.pyramids import Reader

    write_voc(tmp_path / "year", (3, 2))
    data = f"voc:{tmp_path / 'year'}"
    record = ran("voc07", data, "moco-c4-24k", iterations=2)
    assert [m.metric for m in record.measurements] == ["box_ap50", "box_ap", "box_ap75"]
    backbone = tiny()
    reader = Reader(backbone, frozen=False, fixed=False)
    stem = d2.Stem(reader)
    whole = backbone.pyramid(torch.ones(1, 3, 64, 64))
    with torch.no_grad():
        found = stem.eval()(torch.ones(1, 3, 64, 64))["res4"]
        torch.testing.assert_close(found, whole[-2])
        last, width = stem.take_last()
        torch.testing.assert_close(last.eval()(found), whole[-1])
    assert width == whole[-1].shape[1]
    with pytest.raises(BenchError, match=r"is no ResNet of stages \(no conv1\): --set voc07.head=fpn"):
        ran("voc07", data, "moco-c4-24k", tiny("test_vit"))
    with pytest.raises(BenchError, match="coco.head=c4 is of detectron2 alone"):
        own_images(tmp_path / "set")
        ran("coco", f"coco:{tmp_path / 'set'}", "tv-fasterrcnn-fpn-1x", head="c4")


def test_masks_of_a_c4_head_are_read_from_the_last_stage(d2, tmp_path, monkeypatch):
    from suites.detection.pyramids import Reader

    backbone = tiny()
    stem = d2.Stem(Reader(backbone, frozen=False, fixed=False))
    with monkeypatch.context() as patch:
        patch.setattr(d2, "OVERRIDES", [])
        network = d2.rcnn(stem, d2.RCNNSettings(3, True, "", [0.0] * 3, [1.0] * 3, 0, False))
    head = network.roi_heads.mask_head
    # As Base-RCNN-C4 has it: no convolution of its own before the one that doubles the map.
    assert [type(part).__name__ for part in head.children()] == ["ConvTranspose2d", "ReLU", "Conv2d"]
    assert head.deconv.in_channels == backbone.card.channels[-1]
    assert head.predictor.out_channels == 3
    own_images(tmp_path / "set")
    with pytest.raises(BenchError, match="trained whole with it: --set coco.head=fpn, or --set coco.frozen=no"):
        ran("coco", f"coco:{tmp_path / 'set'}", "moco-c4-2x", frozen=True)


def test_a_cascade_has_three_box_heads_as_published(d2, tmp_path):
    from suites.detection.pyramids import Reader

    bottom = d2.Bottom(Reader(tiny("test_vit"), frozen=False, fixed=True))
    heads = d2.rcnn(bottom, d2.RCNNSettings(3, True, "", [0.0] * 3, [1.0] * 3, 0, True, cascade=True)).roi_heads
    assert [matcher.thresholds[1] for matcher in heads.proposal_matchers] == [0.5, 0.6, 0.7]
    weights = [predictor.box2box_transform.weights for predictor in heads.box_predictor]
    assert weights == [(10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)]
    # One box for all classes.
    assert [predictor.bbox_pred.out_features for predictor in heads.box_predictor] == [4, 4, 4]
    own_images(tmp_path / "set")
    record = ran("coco", f"coco:{tmp_path / 'set'}", "vitdet-cascade-100ep", tiny("test_vit"), window=2, iterations=1)
    terms = set(record.measurements[0].details["curve"][-1])
    assert {f"loss_{what}_stage{stage}" for what in ("cls", "box_reg") for stage in range(3)} <= terms
    assert "loss_mask" in terms


def test_weight_decay_is_grouped_as_detectron2_groups_it(d2, tmp_path):
    from detectron2.solver.build import get_default_optimizer_params

    from suites.detection.detectron import DetectronJob

    class Task:
        backbone = tiny()
        card = backbone.card
        device, seed = "cpu", 0
        protocol = bench.protocol.get("coco", "maskrcnn-fpn-1x")
        settings = protocol.settings

    job = DetectronJob(Task(), 3, True)
    learner = job.learner()
    ours = {id(p): group["weight_decay"] for group in job.groups(learner) for p in group["params"]}
    theirs = get_default_optimizer_params(learner.network, weight_decay=1e-4, weight_decay_norm=0.0)
    wanted = {id(p): group["weight_decay"] for group in theirs for p in group["params"]}
    assert ours == wanted
    assert set(ours.values()) == {0.0, 1e-4}


def test_a_training_that_diverges_is_one_sentence(d2, tmp_path):
    own_images(tmp_path / "set")
    with pytest.raises(BenchError, match=r"has diverged .*: lower coco.lr|the loss is .*: lower the learning rate"):
        ran("coco", f"coco:{tmp_path / 'set'}", "dcd-fasterrcnn", iterations=12, lr=50.0)


@pytest.mark.slow
def test_two_processes_share_every_batch(d2, tmp_path, monkeypatch):
    """Half a minute: two interpreters start. Which regions are learned from is drawn anew for every piece."""
    own_images(tmp_path / "set")
    data, options = f"coco:{tmp_path / 'set'}", {"iterations": 6, "batch": 4, "lr": 0.005, "precise_bn": False}
    alone = ran("coco", data, "maskrcnn-fpn-1x", **options)
    monkeypatch.setenv("BENCH_PROCESSES", "2")
    both = ran("coco", data, "maskrcnn-fpn-1x", **options)
    assert_shared(both, alone)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["maskrcnn-fpn-1x", "dcd-fasterrcnn", "vitdet-100ep"])
def test_it_learns_its_own_images(d2, tmp_path, kind):
    """Some minutes: a detector's heads are large whatever the images."""
    own_images(tmp_path / "set", 6, least=20)
    if kind == "vitdet-100ep":
        backbone, more = tiny("test_vit", patch_size=8), {"iterations": 250, "lr": 0.001, "jitter": False,
                                                          "layer_decay": 1.0, "window": 6, "drop_path": 0}  # fmt: skip
    else:
        backbone = bench.load("demo:efficientnet-lite0")
        rate = 0.005 if kind == "maskrcnn-fpn-1x" else 0.002
        more = {"iterations": 350, "lr": rate, "bn": "fixed", "precise_bn": False, "fixed_stem": False}
    record = ran("coco", f"coco:{tmp_path / 'set'}", kind, backbone, batch=3, size=128, warmup=20,
                 **more)  # fmt: skip
    assert {m.metric: m.value for m in record.measurements}["box_ap50"] > 80
    assert np.isfinite([m.value for m in record.measurements]).all()
