"""The attentive probe: its attention by hand, the network untouched, resumed, and refused where there are no tokens."""

import math

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import bench
from adapters.timm_backbone import TimmBackbone
from bench.backbone import freeze
from bench.card import Card, Transform
from bench.errors import BenchError
from suites.attentive import heads_of
from suites.attentive_head import Attentive


def vit():
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=0, img_size=32)
    card = Card(
        name="test_vit", spec="timm:test_vit", architecture="test_vit", family="vit", dims={}, feature="cls",
        transform=Transform(resize=32, crop=32), weight_digest="",
    )  # fmt: skip
    return freeze(TimmBackbone(network, card))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Stripes lying and standing, 16 + 12 of 32 x 32."""
    root = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:32, :32]
    for split, count in (("train", 8), ("val", 6)):
        for name, axis in (("lying", row), ("standing", column)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = (axis + rng.integers(8)) // 4 % 2 * 150 + 50 + rng.integers(-20, 20, (32, 32))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / split / name / f"{i}.png")
    return f"imagefolder:{root}"


def run(model, pictures, **options):
    settings = {"batch": 8, "epochs": 12, "lr": 0.01, "warmup": 1, "crop": "none", **options}
    return bench.run(
        model, ["attentive"], pictures, settings={f"attentive.{k}": v for k, v in settings.items()}, device="cpu",
        workers=0,
    )  # fmt: skip


def test_the_attention_is_the_formula():
    model = vit()
    probe = Attentive(model, 3, 2, seed=0).eval()
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        ((patches, token),) = model.blocks(images, n=1)
        x = torch.nn.functional.layer_norm(
            torch.cat([token[:, None], patches], dim=1), (64,), probe.norm.weight, probe.norm.bias
        )
        (wq, wk, wv), (bq, bk, bv) = (
            tensor.chunk(3) for tensor in (probe.attention.in_proj_weight, probe.attention.in_proj_bias)
        )
        query, key, value = probe.query[0] @ wq.T + bq, x @ wk.T + bk, x @ wv.T + bv
        parts = []
        for head in range(2):
            own = slice(32 * head, 32 * (head + 1))
            weights = torch.softmax(key[..., own] @ query[0, own] / math.sqrt(32), dim=1)
            parts.append((weights[..., None] * value[..., own]).sum(dim=1))
        wanted = probe.head(probe.attention.out_proj(torch.cat(parts, dim=1)))
        torch.testing.assert_close(probe.logits(images), wanted, atol=1e-4, rtol=1e-4)


def test_it_learns_and_the_network_stays_as_it_is(pictures):
    model = vit()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    record = run(model, pictures)
    top1 = record.measurements[0]
    assert top1.headline
    assert (top1.metric, top1.n, top1.selection) == ("top1", 12, "last")
    assert top1.value > 80
    assert top1.details["attention_heads"] == 1
    assert not top1.verified
    assert top1.details["curve"][-1]["loss"] < top1.details["curve"][0]["loss"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    again = run(vit(), pictures)
    assert [m.value for m in again.measurements] == [m.value for m in record.measurements]


def test_with_crops(pictures):
    record = run(vit(), pictures, crop="resized", epochs=1)
    assert record.measurements[0].protocol.startswith("attentive/single-query@1+batch=8")


def test_only_the_probe_is_learnt():
    probe = Attentive(vit(), 3, 2, seed=0)
    assert {name.partition(".")[0] for name, _ in probe.named_parameters()} == {"norm", "query", "attention", "head"}
    same = Attentive(vit(), 3, 2, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(probe.parameters(), same.parameters(), strict=True))


def test_refusals(pictures):
    with pytest.raises(BenchError, match=r"has none: use suite 'linear'"):
        bench.run("demo:mobilenetv2@32", ["attentive"], pictures, workers=0)
    with pytest.raises(BenchError, match="does not divide the width 64"):
        run(vit(), pictures, heads=5)
    assert [heads_of(vit().card.model_copy(update={"dims": {"pooled": d}}), 0) for d in (768, 384, 100)] == [12, 6, 1]
