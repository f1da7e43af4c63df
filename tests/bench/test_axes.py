"""Axes of the frozen protocols: input size, block, layers, tokens; each a variant of its own name, never silent."""

import copy

import numpy as np
import pytest
import torch

import bench
from adapters.timm_backbone import TimmBackbone, create
from bench import protocol
from bench.axes import AXES, at_size, axes_of
from bench.card import Card, Transform
from bench.data.opening import open_data
from bench.errors import BenchError
from bench.registry import table
from bench.transform import apply
from reports.comparable import WHOLE, column_of

OPTIONS = {"knn": {"k": [3], "headline_k": 3}, "linear": {"C": 1.0}, "ridge": {"penalty": 1.0}, "retrieval": {"k": [1]}}


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    network = create("vit_tiny_patch16_224", pretrained=False, depth=3, embed_dim=24, num_heads=2, num_classes=0)
    return TimmBackbone(network, card("small", Transform(resize=36, crop=32)), feature="cls")


@pytest.fixture(scope="module")
def cnn():
    return bench.load("demo:mobilenetv2@32")


def card(name, transform):
    return Card(
        name=name, spec=f"timm:{name}", architecture=name, family="vit", dims={}, feature="", transform=transform,
        weight_digest="",
    )  # fmt: skip


def run(model, pictures, suites, **settings):
    plain = {f"{suite}.{name}": value for suite in suites for name, value in OPTIONS.get(suite, {}).items()}
    return bench.run(model, suites, pictures, settings={**plain, **settings}, workers=0, device="cpu")


def by_hand(model, pictures, read, size=None):
    """float32 [N, D] of the test split, in plain steps."""
    network = model if size is None else at_size(model, size)
    images = open_data(pictures).test
    with torch.inference_mode():
        return torch.cat([read(network, network.preprocess(images.image(i))[None]) for i in range(len(images))]).numpy()


def seen_by(suite, model, pictures, monkeypatch, **axes):
    """(the test features that the suite was handed, the run's record)."""
    from bench.registry import resolve

    kept = {}
    kind = resolve("suites", suite)
    original = kind.evaluate

    def evaluate(self, task):
        kept["x"] = np.array(task.data["test"].array("pooled"))
        width = task.data["test"].widths["pooled"]
        blocks = [block for _, block in task.data["test"].blocks("pooled", 5)]
        assert np.array_equal(np.concatenate(blocks), kept["x"])
        assert kept["x"].shape[1] == width
        yield from original(self, task)

    monkeypatch.setattr(kind, "evaluate", evaluate)
    record = run(model, pictures, [suite], **{f"{suite}.{axis}": value for axis, value in axes.items()})
    return kept["x"], record


def test_every_axis_reads_what_it_says(vit, pictures, monkeypatch):
    def block(number, kind):
        def read(network, images):
            patches, token = network.blocks(images, n=3 - number + 1)[0]
            return token if kind == "cls" else patches.mean(dim=1)

        return read

    def last(count):
        return lambda network, images: torch.cat([token for _, token in network.blocks(images, n=count)], dim=1)

    cases = [
        ({"block": 1}, block(1, "cls"), None, {"tokens": "cls", "block": 1}),
        ({"block": 2, "tokens": "avg"}, block(2, "avg"), None, {"tokens": "avg", "block": 2}),
        ({"layers": 2}, last(2), None, {"tokens": "cls", "layers": 2}),
        ({"tokens": "avg"}, lambda m, x: m.features(x)["avg"], None, {"tokens": "avg", "layers": 1}),
        ({"size": 48}, lambda m, x: m.features(x)["pooled"], 48, {"tokens": "cls", "layers": 1}),
        ({"block": 3, "size": 48}, block(3, "cls"), 48, {"tokens": "cls", "block": 3}),
    ]  # fmt: skip
    for axes, read, size, told in cases:
        found, record = seen_by("knn", vit, pictures, monkeypatch, **axes)
        np.testing.assert_allclose(found, by_hand(vit, pictures, read, size), atol=1e-5)
        suffix = "".join(f"+{name}={value}" for name, value in sorted({**OPTIONS["knn"], **axes}.items()))
        assert record.measurements[0].protocol == f"knn/dino@1{suffix.replace('[3]', '3')}"
        assert told.items() <= record.measurements[0].feature.items()
        assert record.measurements[0].transform.crop == (size or 32)
        assert record.model.transform.crop == 32
    joined, _ = seen_by("knn", vit, pictures, monkeypatch, layers=2, tokens="cls:avg")
    both = by_hand(vit, pictures, lambda m, x: torch.cat([last(2)(m, x), m.features(x)["avg"]], dim=1))
    np.testing.assert_allclose(joined, both, atol=1e-5)


def test_the_last_block_alone_is_the_feature_itself(vit, pictures, monkeypatch):
    plain, _ = seen_by("knn", vit, pictures, monkeypatch)
    for axes in ({"block": 3}, {"layers": 1}, {"tokens": "cls"}, {"tokens": "pooled"}, {"size": 32}):
        np.testing.assert_allclose(seen_by("knn", vit, pictures, monkeypatch, **axes)[0], plain, atol=1e-6)


def test_a_convolutional_network_has_the_maps_of_its_pyramid(cnn, pictures, monkeypatch):
    levels = len(cnn.card.strides)
    found, record = seen_by("ridge", cnn, pictures, monkeypatch, block=levels - 1)
    maps = by_hand(cnn, pictures, lambda m, x: m.pyramid(x)[-2].mean(dim=(2, 3)))
    np.testing.assert_allclose(found, maps, atol=1e-5)
    assert record.measurements[0].feature["block"] == levels - 1
    two, _ = seen_by("ridge", cnn, pictures, monkeypatch, layers=2)
    assert two.shape[1] == sum(cnn.card.channels[-2:])


def test_sizes_of_one_run_are_features_of_their_own(vit, pictures):
    record = run(vit, pictures, ["knn", "ridge", "retrieval"], **{"ridge.size": 48, "retrieval.size": 48})
    sizes = {m.suite: m.transform.crop for m in record.measurements}
    assert sizes == {"knn": 32, "ridge": 48, "retrieval": 48}
    assert record.environment["images_forwarded"] <= 2 * 45


def test_the_shorter_side_before_the_crop(vit, pictures, monkeypatch):
    """32 of 32 pixels where the model's own transform takes 32 of 36, and 48 of 60 where it takes 48 of 54."""

    def shrunk(resize, crop):
        own = Transform(resize=resize, crop=crop)
        images = open_data(pictures).test
        with torch.inference_mode():
            every = [vit.features(apply(own, images.image(i))[None])["pooled"] for i in range(len(images))]
        return torch.cat(every).numpy()

    found, record = seen_by("knn", vit, pictures, monkeypatch, resize=32)
    np.testing.assert_allclose(found, shrunk(32, 32), atol=1e-5)
    assert record.measurements[0].protocol.endswith("+resize=32")
    assert (record.measurements[0].transform.resize, record.measurements[0].transform.crop) == (32, 32)
    assert np.abs(found - shrunk(36, 32)).max() > 1e-3
    both, _ = seen_by("knn", vit, pictures, monkeypatch, resize=60, size=48)
    np.testing.assert_allclose(both, shrunk(60, 48), atol=1e-5)
    whole, record = seen_by("knn", vit, pictures, monkeypatch, resize=0)
    np.testing.assert_allclose(whole, found, atol=1e-6)
    assert column_of(record.measurements[0], record.model).transform == WHOLE
    uncut = copy.copy(vit)
    uncut.card = card("uncut", Transform(resize=36, crop=None))
    assert at_size(uncut, None, 0).card.transform == uncut.card.transform, "nothing is cut off"
    with pytest.raises(BenchError, match="no square crop"):
        at_size(uncut, None, 40)
    record = run(vit, pictures, ["knn", "ridge"], **{"ridge.resize": 32})
    assert {m.suite: m.transform.resize for m in record.measurements} == {"knn": 36, "ridge": 32}


def test_the_filter_of_the_resizing(vit, pictures, monkeypatch):
    def filtered(name):
        # The pictures' own side is 36 pixels: to 60 there is something to interpolate.
        own = Transform(resize=60, crop=32, interpolation=name)
        images = open_data(pictures).test
        with torch.inference_mode():
            every = [vit.features(apply(own, images.image(i))[None])["pooled"] for i in range(len(images))]
        return torch.cat(every).numpy()

    found, record = seen_by("knn", vit, pictures, monkeypatch, resample="bilinear", resize=60)
    np.testing.assert_allclose(found, filtered("bilinear"), atol=1e-5)
    assert np.abs(found - filtered("bicubic")).max() > 1e-4
    (top1, *_) = record.measurements
    assert "+resample=bilinear+" in top1.protocol
    assert top1.transform.interpolation == "bilinear"
    assert vit.card.transform.interpolation == "bicubic"
    record = run(vit, pictures, ["knn", "ridge"], **{"ridge.resample": "nearest"})
    assert {m.suite: m.transform.interpolation for m in record.measurements} == {"knn": "bicubic", "ridge": "nearest"}


def test_the_network_in_the_loop_takes_a_size(vit, pictures):
    record = bench.run(
        vit, ["linear", "attentive"], pictures, protocols={"linear": "moco"}, workers=0, device="cpu",
        settings={"linear.size": 48, "linear.batch": 12, "linear.epochs": 1, "attentive.size": 48,
                  "attentive.batch": 12, "attentive.epochs": 1, "attentive.warmup": 0},
    )  # fmt: skip
    assert {m.transform.crop for m in record.measurements} == {48}
    assert all("+size=48" in m.protocol for m in record.measurements)


def test_the_linear_grid_takes_single_blocks(vit, pictures):
    record = bench.run(
        vit, ["linear"], pictures, protocols={"linear": "moco-cached"}, workers=0, device="cpu",
        settings={"linear.features": ["block1.cls", "block2.avg", "cls"], "linear.select": "holdout",
                  "linear.holdout": 0.3, "linear.iterations": 3, "linear.batch": 8},
    )  # fmt: skip
    path = record.measurements[0].details["path"]
    assert [point["feature"] for point in path] == ["block1.cls", "block2.avg", "cls"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"knn.block": 4}, "has 3 blocks: there is no block 4"),
        ({"knn.block": 0}, "at least 1"),
        ({"knn.block": 1, "knn.layers": 2}, "set one of them"),
        ({"knn.tokens": "patches"}, "cls, avg or cls:avg"),
        ({"knn.size": "large"}, "knn.size takes a whole number"),
        ({"knn.size": 7}, "cannot take images of 7x7 pixels"),
        ({"knn.sise": 7}, "nearest: size"),
        ({"knn.resize": 31}, "smaller than the crop of 32 pixels: set size too"),
        ({"attentive.resize": 40}, "has no option 'resize'"),
        ({"knn.resample": "cubic"}, "knn.resample is nearest, bilinear, bicubic"),
        ({"agreement.size": 7}, "has no option 'size'"),
    ],
)
def test_refusals(vit, pictures, settings, said):
    suite = next(iter(settings)).partition(".")[0]
    with pytest.raises(BenchError, match=said):
        run(vit, pictures, [suite], **settings)


def test_refusals_of_other_models(cnn, pictures, tmp_path):
    with pytest.raises(BenchError, match="has no blocks but"):
        run(cnn, pictures, ["knn"], **{"knn.block": 9})
    with pytest.raises(BenchError, match="no token blocks"):
        run(cnn, pictures, ["knn"], **{"knn.block": 1, "knn.tokens": "cls"})
    with pytest.raises(BenchError, match=r"set linear\.features"):
        bench.run(cnn, ["linear"], pictures, protocols={"linear": "moco-cached"}, settings={"linear.block": 1})
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=rng.standard_normal((8, 4)).astype(np.float32), y=np.arange(8) % 2)
    with pytest.raises(BenchError, match="are past"):
        bench.run(f"features:{tmp_path}", ["knn"], settings={"knn.size": 32})
    live = bench.wrap(torch.nn.Flatten(), transform=lambda image: torch.zeros(3, 2, 2))
    with pytest.raises(BenchError, match="cannot be set to 32"):
        bench.run(live, ["knn"], pictures, settings={"knn.size": 32}, workers=0)


def test_no_option_of_a_card_has_the_name_of_an_axis_of_its_suite():
    for suite in table("suites"):
        for one in protocol.cards().values():
            if one.suite == suite:
                assert not set(axes_of(suite)) & set(one.settings), one.id
    frozen = {
        "knn",
        "linear",
        "inat18",
        "ridge",
        "fewshot",
        "transfer",
        "voc07cls",
        "retrieval",
        "quality",
        "ood",
        "robust",
    }
    assert {suite for suite in table("suites") if set(axes_of(suite)) == set(AXES)} >= frozen
