"""Attention agreement: the maps against other readings of them, identity, known similarities, refusals."""

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import torch
from lookhelp import backbone, pictures, vit
from torch import nn
from torch.nn import functional as F

import bench
from bench.errors import BenchError
from bench.ledger import Ledger
from suites import map_similarity
from suites.attention_maps import _plain_attention, _Reader, class_attention


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("squares"), np.random.default_rng(0))


def run(student, teacher, data, **settings):
    given = {f"attention.{k}": v for k, v in {"replicates": 200, **settings}.items()}
    return {m.metric: m for m in bench.run(student, ["attention"], data, teacher=teacher, settings=given).measurements}


@pytest.mark.parametrize("fused", [True, False])
def test_maps_are_the_softmax_that_the_block_computes(fused):
    """By a hook behind the softmax of the last block, whichever way the block computes it."""
    network = vit()
    x = torch.randn(2, 3, 32, 32)
    last = network.network.blocks[-1].attn
    seen = []
    last.attn_drop.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    last.fused_attn = False
    with torch.no_grad():
        network.features(x)
        for block in network.network.blocks:
            block.attn.fused_attn = fused
        mine = class_attention(network, x)
    (weights, *_) = seen
    patches = mine.shape[1] * mine.shape[2]
    expected = weights[:, :, 0, -patches:].mean(1)
    expected = expected / expected.sum(1, keepdim=True)
    assert mine.shape == (2, 2, 2)
    torch.testing.assert_close(mine.flatten(1), expected)
    assert mine.sum((1, 2)).tolist() == pytest.approx([1, 1])


def test_reader_sees_torch_layers_and_masks():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    with torch.inference_mode(), _plain_attention(), _Reader() as reader:
        out, none = layer(x, x, x, need_weights=False)
        _, averaged = layer(x, x, x)
    _, expected = layer(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(reader.read(), expected)
    torch.testing.assert_close(averaged, expected.mean(1))
    torch.testing.assert_close(out, layer(x, x, x)[0])
    assert none is None
    q = torch.randn(1, 2, 4, 3)
    mask = torch.tensor([[True, False, True, True]]).expand(4, 4)
    with _Reader() as reader:
        out = F.scaled_dot_product_attention(q, q, q, attn_mask=mask, scale=0.3)
    torch.testing.assert_close(reader.read() @ q, out)
    assert (reader.read()[..., 1] == 0).all()
    with _Reader() as reader:  # An attention pool's single query looks, but no block does.
        F.scaled_dot_product_attention(q[:, :, :1], q, q)
    assert reader.read() is None


def test_reader_agrees_with_hugging_face():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=8, image_size=16, patch_size=8
    )
    for how in ("eager", "sdpa"):
        config._attn_implementation = how
        torch.manual_seed(1)
        model = transformers.ViTModel(config, add_pooling_layer=False).eval()
        x = torch.randn(2, 3, 16, 16)
        with torch.no_grad(), _Reader() as reader:
            model(x)
        if how == "eager":
            with torch.no_grad():
                expected = model(x, output_attentions=True).attentions[-1]
            torch.testing.assert_close(reader.read(), expected)
        assert reader.read().shape == (2, 4, 5, 5)


def test_a_network_against_itself_is_exactly_alike(images):
    found = run(vit(), vit(), images)
    assert {k: m.value for k, m in found.items()} == {
        "cosine": 1.0, "spearman": 1.0, "kl": 0.0, "js": 0.0
    }  # fmt: skip
    assert found["cosine"].interval == (1.0, 1.0)
    assert found["cosine"].headline
    assert found["cosine"].n == 12


def test_other_weights_look_elsewhere_and_grids_may_differ(images, tmp_path):
    student, teacher = vit(1, size=64), vit(0, size=96)
    given = {"attention.replicates": 200, "attention.samples": 5}
    record = bench.run(student, ["attention"], images, teacher=teacher, settings=given, runs=tmp_path)
    found = {m.metric: m for m in record.measurements}
    m = found["cosine"]
    assert 0 < m.value < 1
    assert m.interval[0] <= m.value <= m.interval[1]
    assert m.n == 5
    assert m.details["grid"] == {"teacher": [6, 6], "student": [4, 4]}
    assert "64" in m.details["networks"]["student"]["transform"]
    assert "96" in m.details["networks"]["teacher"]["transform"]
    assert 0 < m.details["of_different_images"] < 1
    table = Ledger(tmp_path).outcomes(record, m.outcomes)
    assert table["cosine"].mean() == pytest.approx(m.value)
    # The same by scipy, from the maps themselves.
    both = []
    for network in (teacher, student):
        with torch.inference_mode():
            both.append(np.concatenate([
                class_attention(network, network.preprocess(_image(images, row))[None]).numpy() for row in table["row"]
            ]))  # fmt: skip
    mine = map_similarity.on_grid(both[1], 6, 6).reshape(5, -1)
    theirs = both[0].reshape(5, -1)
    values = [1 - scipy.spatial.distance.cosine(a, b) for a, b in zip(theirs, mine, strict=True)]
    assert m.value == pytest.approx(np.mean(values), rel=1e-5)
    p = mine / mine.sum(1, keepdims=True)
    kl = [scipy.stats.entropy(a, b) for a, b in zip(theirs, p, strict=True)]
    assert found["kl"].value == pytest.approx(np.mean(kl), rel=1e-4)
    js = [scipy.spatial.distance.jensenshannon(a, b) ** 2 for a, b in zip(theirs, p, strict=True)]
    assert found["js"].value == pytest.approx(np.mean(js), rel=1e-4)
    rho = [scipy.stats.spearmanr(a, b).statistic for a, b in zip(theirs, mine, strict=True)]
    assert found["spearman"].value == pytest.approx(np.mean(rho), rel=1e-4)


def _image(spec, row):
    from bench.data.opening import open_data

    return open_data(spec).test.image(int(row))


def test_similarities_of_rows():
    a = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    p = map_similarity.shares(a[:, None])
    assert np.isnan(p[2]).all()
    assert map_similarity.cosine(p, p)[[0, 1, 3]].tolist() == [1, 1, 1]
    assert np.isnan(map_similarity.cosine(p, p)[2])
    rho = map_similarity.spearman(p, p)
    assert rho[[0, 3]].tolist() == [1, 1]
    assert np.isnan(rho[[1, 2]]).all(), "one value throughout has no order"
    turned = map_similarity.shares(a[:1, None, ::-1])
    assert map_similarity.spearman(p[:1], turned).tolist() == pytest.approx([-1])
    apart = map_similarity.shares(np.array([[[0.0, 0.0, 0.0, 1.0]]]))
    assert map_similarity.jensen_shannon(p[3:], apart).tolist() == pytest.approx([np.log(2)])
    assert map_similarity.divergence(p[:2], p[:2]).tolist() == [0, 0]
    assert np.isfinite(map_similarity.divergence(p[3:], apart)).all()
    flat = map_similarity.on_grid(np.ones((1, 7, 7)), 3, 5)
    np.testing.assert_allclose(flat, 1)


def test_refusals(images, tmp_path):
    cnn = backbone("test_resnet")
    with pytest.raises(BenchError, match="no vision transformer, so it has no attention maps: .*'gradcam'"):
        run(cnn, vit(), images)
    with pytest.raises(BenchError, match="the teacher 'test_resnet-0'"):
        run(vit(), cnn, images)
    with pytest.raises(BenchError, match="no class token"):
        run(vit(class_token=False, global_pool="avg"), vit(), images)
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=np.eye(12, dtype=np.float32), y=np.arange(12) % 2)
    with pytest.raises(BenchError, match="the teacher .* is stored features: give the network itself"):
        run(vit(), f"features:{tmp_path}", images)
    with pytest.raises(BenchError, match="say which with --teacher"):
        bench.run(vit(), ["attention"], images)
