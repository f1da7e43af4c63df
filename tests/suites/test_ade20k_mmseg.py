"""ade20k by mmsegmentation, where it is installed: its parts against ours, and whole runs on generated shapes."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from densenets import tiny, tiny_beit
from PIL import Image

import bench
from bench.data.opening import open_data
from bench.errors import BenchError
from bench.ledger import Ledger
from suites.segmentation import published
from suites.segmentation.networks import LinearSegmenter, loss_of
from suites.segmentation.overlap import Overlap
from suites.segmentation.windows import slide

QUICK = {"ade20k.size": 64, "ade20k.stride": 48, "ade20k.batch": 6, "ade20k.warmup": 5, "ade20k.width": 32}


@pytest.fixture
def mmseg():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("mmseg", reason="mmsegmentation is not installed (the extra [mmseg])")
        return pytest.importorskip("mmseg.models", reason="mmsegmentation is not installed (the extra [mmseg])")


def ran(folder, backbone=None, protocol="upernet-160k", precision="fp32", runs=None, **settings):
    options = {**QUICK, "ade20k.iterations": 3, **{f"ade20k.{key}": value for key, value in settings.items()}}
    return bench.run(
        backbone or tiny(), ["ade20k"], f"segfolder:{folder}", protocols={"ade20k": protocol}, settings=options,
        workers=0, precision=precision, runs=runs,
    )  # fmt: skip


class Settings:
    """What a job reads of its task."""

    def __init__(self, backbone, **settings):
        self.backbone, self.card, self.device, self.files, self.seed = backbone, backbone.card, "cpu", {}, 0
        self.settings = {
            "head": "linear", "layers": 2, "size": 64, "stride": 40, "dropout": 0.0, "width": 16, "test": "single",
            "drop_path": 0.0, "blocks": "last", "batch_norm": True, "scale_least": 0.5, "scale_most": 2.0,
            "long_side": 4.0, **settings,
        }  # fmt: skip


def job(backbone, classes=4, **settings):
    return published.PublishedJob(Settings(backbone, **settings), tuple(map(str, range(classes))))


def test_without_mmsegmentation_the_refusal_names_the_line(monkeypatch, tmp_path):
    monkeypatch.setattr(published, "MODULES", ("mmengine_that_nobody_has",))
    with pytest.raises(BenchError, match=r"not installed here: pip install 'bench-representations\[mmseg\]'"):
        bench.run(tiny(), ["ade20k"], f"segfolder:{tmp_path}", protocols={"ade20k": "upernet-160k"})


def test_overlap_is_that_of_ioumetric_and_of_a_confusion_matrix_by_hand(mmseg):
    from mmseg.evaluation import IoUMetric

    rng = np.random.default_rng(0)
    classes, void = 7, 255
    ours, through = Overlap(classes), Overlap(classes)
    metric = IoUMetric(ignore_index=void, iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": tuple(map(str, range(classes)))}
    matrix = np.zeros((classes, classes), dtype=np.int64)
    for _ in range(5):
        # Class 6 is neither labelled nor predicted, class 5 predicted alone.
        truth = rng.integers(-1, 5, (40, 30))
        predicted = np.where(rng.random((40, 30)) < 0.6, truth.clip(0), rng.integers(0, 6, (40, 30)))
        ours.add(predicted, truth)
        for a, b in zip(truth[truth >= 0], predicted[truth >= 0], strict=True):
            matrix[a, b] += 1
        labels = torch.from_numpy(published.stored(truth, void).astype(np.int64))
        sample = {"pred_sem_seg": {"data": torch.from_numpy(predicted)[None]}, "gt_sem_seg": {"data": labels[None]}}
        metric.process({}, [sample])
        right, _, marked, labelled = metric.results[-1]
        through.add_areas(right.numpy(), marked.numpy(), labelled.numpy())
    values = ours.values()
    assert through.values() == values
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    by_hand = np.mean([matrix[k, k] / union[k] for k in range(classes) if union[k]])
    assert values["miou"] == pytest.approx(100 * by_hand)
    theirs = metric.compute_metrics(list(metric.results))
    assert (theirs["mIoU"], theirs["mAcc"], theirs["aAcc"]) == pytest.approx(
        (values["miou"], values["macc"], values["pixel_acc"]), abs=0.00501
    )


def test_the_linear_head_gives_our_logits_loss_and_windows(mmseg):
    backbone = tiny()
    made = job(backbone)
    learner = made.network()
    mine = LinearSegmenter(backbone, 4, layers=2)
    head, neck = learner.segmentor.decode_head, learner.segmentor.neck
    mine.head.load_state_dict(head.conv_seg.state_dict())
    mine.norm.load_state_dict(neck.norm.state_dict())
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(-1, 4, (2, 64, 64))
    mine.train(), learner.train()
    samples = mmseg_samples(labels)
    losses = learner.segmentor(images, samples, mode="loss")
    torch.testing.assert_close(losses["decode.loss_ce"], loss_of(mine.logits(images), labels))
    mine.eval(), learner.eval()
    image = torch.randn(1, 3, 96, 128)
    metas = [{"ori_shape": (96, 128), "img_shape": (96, 128), "pad_shape": (96, 128)}]
    with torch.no_grad():
        torch.testing.assert_close(
            learner.segmentor.inference(image, metas), slide(mine.logits, image, 64, 40), rtol=1e-4, atol=1e-4
        )


def mmseg_samples(labels):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    made = []
    for one in labels:
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=one.where(one >= 0, 255)[None])
        made.append(sample)
    return made


def test_samples_are_the_pipelines_and_keep_image_and_mask_together(mmseg, shapes):
    from suites.training.feed import seed_all

    pipeline = published.Pipeline(open_data(f"segfolder:{shapes}").train, 48, (0.5, 2.0), 4.0)
    red = 0
    for seed in range(6):
        seed_all(seed)
        found = pipeline[0]
        labels = found["data_samples"].gt_sem_seg.data[0]
        assert found["inputs"].shape[1:] == labels.shape
        assert set(labels.unique().tolist()) <= {0, 1, 2, 3, 255}
        painted = found["inputs"][:, labels == 1].float().mean(dim=1)  # BGR
        if labels.eq(1).sum() > 50:
            red += 1
            assert painted[2] > painted[:2].max() + 40
        seed_all(seed)
        assert torch.equal(pipeline[0]["inputs"], found["inputs"])
    assert red or not (open_data(f"segfolder:{shapes}").train.mask(0) == 1).any()


def test_our_own_colours_are_mmsegmentation_s(mmseg, monkeypatch):
    from mmseg.datasets.transforms import PhotoMetricDistortion
    from mmseg.datasets.transforms import transforms as theirs

    from suites.segmentation import colours

    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for number in range(40):
        rng = np.random.default_rng(number)
        coins, numbers, turn = rng.integers(0, 2, 5).tolist(), rng.random(3).tolist(), int(rng.integers(-18, 18))
        found = []
        for module in (theirs, colours):
            coin, number = iter(coins), iter(numbers)
            # mmsegmentation tosses its coins by randint(2).
            drawn = SimpleNamespace(
                random=lambda coin=coin: 1.0 - next(coin),
                randint=lambda low, high=None, coin=coin, turn=turn: next(coin) if high is None else turn,
                uniform=lambda low, high, number=number: low + (high - low) * next(number),
            )
            monkeypatch.setattr(module, "random", drawn)
        found.append(PhotoMetricDistortion().transform({"img": pixels[:, :, ::-1].copy()})["img"][:, :, ::-1])
        found.append(np.asarray(colours.distorted(Image.fromarray(pixels))))
        # OpenCV's HSV has steps of two degrees and of 1/255: some levels in bright colours.
        difference = np.abs(found[0].astype(int) - found[1])
        assert difference.max() <= 12, coins
        assert difference.mean() < 1.5, coins


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("head", ["linear", "upernet"])
def test_runs_of_both_heads_are_whole(mmseg, shapes, tmp_path, head, name, capsys):
    backbone = tiny(name)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    record = ran(shapes, backbone, runs=tmp_path / "runs", head=head, layers=2, blocks="last")
    found = {m.metric: m for m in record.measurements}
    assert set(found) == {"miou", "macc", "pixel_acc"}
    assert found["miou"].engine.name.startswith("mmseg+onedl-mmcv 2")
    assert found["miou"].protocol.startswith("ade20k/upernet-160k@2+")
    terms = set(found["miou"].details["curve"][-1]) - {"iteration", "epoch", "lr"}
    assert terms == {"decode.loss_ce"} | ({"aux.loss_ce"} if head == "upernet" else set())
    assert Ledger(tmp_path / "runs").check() == []
    table = Ledger(tmp_path / "runs").outcomes(record, found["miou"].outcomes)
    labelled = table["union"].sum(0) > 0
    ratio = (table["intersection"].sum(0)[labelled] / table["union"].sum(0)[labelled]).mean()
    assert 100 * ratio == pytest.approx(found["miou"].value)
    assert sum(path.endswith(".png") for path in record.artifacts) == 4
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert capsys.readouterr().out == ""
    again = ran(shapes, backbone, head=head, layers=2, blocks="last")
    assert [m.value for m in again.measurements] == [m.value for m in record.measurements]


def test_beits_relative_positions_are_made_for_the_windows(mmseg, shapes):
    backbone = tiny_beit(8)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    for settings in ({"head": "upernet", "test": "multi"}, {"head": "linear", "layers": 2, "blocks": "last"}):
        assert ran(shapes, backbone, **settings, iterations=1).measurements[0].metric == "miou"
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_several_scales_and_half_precision_run(mmseg, shapes):
    record = ran(shapes, head="linear", layers=2, blocks="last", test="multi", iterations=2)
    assert "+test=multi" in record.measurements[0].protocol
    # The card's own precision.
    assert (
        ran(shapes, head="linear", layers=2, blocks="last", precision="auto", iterations=1).measurements[0].precision
        == "fp16"
    )


@pytest.mark.slow
def test_two_processes_share_every_batch(mmseg, shapes, monkeypatch):
    """Half a minute: two interpreters start."""
    options = {"head": "upernet", "dropout": 0.0, "drop_path": 0.0, "iterations": 4}
    alone = ran(shapes, **options)
    monkeypatch.setenv("BENCH_PROCESSES", "2")
    both = ran(shapes, **options)
    mine, theirs = (record.measurements[0].details for record in (both, alone))
    assert mine["training"] == {**theirs["training"], "processes": 2, "images_at_once": 3}
    for a, b in zip(mine["curve"], theirs["curve"], strict=True):
        assert a["decode.loss_ce"] == pytest.approx(b["decode.loss_ce"], rel=1e-2)


@pytest.mark.parametrize("protocol", ["linear-ms", "ibot-linear", "dinov3-linear"])
def test_the_frozen_heads_are_ours_by_the_other_engine(mmseg, shapes, protocol):
    """Their parts, of equal weights: the same logits."""
    from bench.protocol import get

    backbone = tiny("test_vit")
    card = get("ade20k", protocol).settings | {"size": 64, "stride": 40, "engine": "mmseg"}
    learner = job(backbone, **card).network()
    head, neck = learner.segmentor.decode_head, learner.segmentor.neck
    mine = LinearSegmenter(
        backbone, 4, layers=card["layers"], spread=card["blocks"] == "spread", batch_norm=card["batch_norm"],
        dropout=card["dropout"],
    )  # fmt: skip
    mine.head.load_state_dict(head.conv_seg.state_dict())
    mine.norm.load_state_dict(neck.norm.state_dict())
    assert (neck.dropout.p, head.dropout_ratio) == (card["dropout"], 0.0)
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(-1, 4, (2, 64, 64))
    torch.manual_seed(0)
    losses = learner.segmentor(images, mmseg_samples(labels), mode="loss")
    torch.manual_seed(0)
    torch.testing.assert_close(losses["decode.loss_ce"], loss_of(mine.logits(images), labels))
    settings = {"engine": "mmseg", "iterations": 1, "batch": 2}
    assert ran(shapes, backbone, protocol, **settings).measurements[0].metric == "miou"


def test_a_crop_that_the_network_cannot_read_is_refused(mmseg, shapes):
    with pytest.raises(BenchError, match=r"ade20k.size=70 pixels, and .* multiples of 32: --set ade20k.size=64"):
        ran(shapes, size=70)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("demo:efficientnet-lite0", {"head": "linear", "layers": 4, "lr": 0.01, "iterations": 60}),
        ("test_resnet", {"head": "upernet", "lr": 0.004, "iterations": 120, "layer_decay": 1.0, "drop_path": 0}),
    ],
    ids=["linear", "upernet"],
)
def test_it_learns_its_own_training_images(mmseg, shapes, name, settings):
    backbone = bench.load(name) if name.startswith("demo:") else tiny(name)
    record = ran(shapes, backbone, **settings)
    assert record.measurements[0].value > 80
