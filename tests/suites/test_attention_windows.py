"""Attention in windows: against the whole map where they must agree, relative positions, and ViTDet's own blocks."""

import warnings

import pytest
import torch
from densenets import tiny, tiny_beit

from bench.errors import BenchError
from suites.detection.pyramids import Reader
from suites.detection.windows import Windowed, distances, divided, together


def read(backbone, images, **more):
    reader = Reader(backbone, frozen=False, fixed=True, **more).eval()
    with torch.no_grad():
        return reader.maps(images)[0], reader


def test_a_window_that_covers_the_map_is_the_whole_map():
    images = torch.randn(2, 3, 64, 96)
    for name, arguments in (("test_vit", {}), ("test_vit", {"qk_norm": True, "init_values": 0.5})):
        backbone = tiny(name, **arguments)
        whole, _ = read(backbone, images)
        covered, _ = read(backbone, images, window=6)
        torch.testing.assert_close(covered, whole, rtol=1e-4, atol=1e-5)
        # Relative positions start at nothing.
        torch.testing.assert_close(read(backbone, images, window=6, positions=8)[0], whole, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(read(backbone, images, window=2)[0], whole, atol=1e-3)


def test_patches_know_nothing_of_the_class_token_where_it_is_left_out():
    backbone = tiny("test_vit", class_token=True, global_pool="token", depth=2)
    images = torch.randn(1, 3, 64, 64)
    found, reader = read(backbone, images, window=2, sees_prefix=False)
    seen, _ = read(backbone, images, window=2, sees_prefix=True)
    reader.trunk.cls_token.data += 9
    with torch.no_grad():
        torch.testing.assert_close(reader.maps(images)[0], found)
    assert not torch.allclose(seen, found, atol=1e-4)


def test_four_blocks_see_the_whole_map_and_the_others_their_window():
    backbone = tiny("test_vit", depth=12)
    _, reader = read(backbone, torch.randn(1, 3, 64, 64), window=2, positions=4)
    sides = [block.attn.side for block in reader.trunk.blocks]
    assert [number for number, side in enumerate(sides) if side == 0] == [2, 5, 8, 11]
    assert {len(table) for table in reader.trunk.blocks[0].attn.relative} == {3}
    assert {len(table) for table in reader.trunk.blocks[2].attn.relative} == {7}
    # The caller's network has its attention as it was.
    assert type(backbone.network.blocks[0].attn).__name__ == "Attention"


def test_what_a_patch_sees_ends_at_its_window():
    torch.manual_seed(0)
    backbone = tiny("test_vit", class_token=False, global_pool="avg")
    inner = backbone.network.blocks[0].attn
    from suites.detection.windows import Grid

    grid = Grid()
    grid.shape = (5, 7)
    part = Windowed(inner, grid, side=3, positions=3, sees_prefix=True).eval()
    for table in part.relative:
        torch.nn.init.normal_(table)
    x = torch.randn(1, 35, inner.qkv.in_features)
    with torch.no_grad():
        before = part(x).unflatten(1, (5, 7))
        x.unflatten(1, (5, 7))[0, 4, 6] += 5
        moved = (part(x).unflatten(1, (5, 7)) - before).abs().sum(-1)[0] > 1e-6
    assert moved[3:, 6:].all()
    assert moved.sum() == 2


@pytest.mark.parametrize("window", [(2, 2), (3, 4), (5, 7), (4, 3)])
def test_windows_are_put_together_as_they_were(window):
    x = torch.randn(2, 5, 7, 3)
    parts, count = divided(x, window)
    assert parts.shape == (2 * count[0] * count[1], window[0] * window[1], 3)
    assert torch.equal(together(parts, window, count, (5, 7)), x)


def test_distances_are_those_between_query_and_key():
    table = torch.arange(7.0)[:, None]
    assert distances(table, 4)[..., 0].tolist() == [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]
    assert distances(table, 2).shape == (2, 2, 1)


def test_attention_of_another_kind_is_refused():
    with pytest.raises(BenchError, match=r"does not divide into windows: --set coco.window=0"):
        Reader(tiny("beit_base_patch16_224", depth=2, embed_dim=24, num_heads=2), frozen=False, fixed=True, window=2)
    with pytest.raises(BenchError, match="cannot take images of 64x96 pixels"):
        Reader(tiny_beit(8), frozen=False, fixed=True).maps(torch.zeros(1, 3, 64, 96))


def test_it_is_vitdets_own_attention():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vit = pytest.importorskip("detectron2.modeling.backbone.vit", reason="detectron2 is not installed")
    backbone = tiny("test_vit", depth=8, img_size=96)
    reader = Reader(backbone, frozen=False, fixed=True, window=4, positions=6, sees_prefix=False).eval()
    trunk = reader.trunk
    width = trunk.embed_dim
    theirs = vit.ViT(
        img_size=96, patch_size=16, embed_dim=width, depth=8, num_heads=trunk.blocks[0].attn.inner.num_heads,
        mlp_ratio=trunk.blocks[0].mlp.fc1.out_features / width, window_size=4, window_block_indexes=[0, 2, 4, 6],
        use_rel_pos=True, pretrain_img_size=96, pretrain_use_cls_token=trunk.num_prefix_tokens > 0,
        norm_layer=lambda n: torch.nn.LayerNorm(n, eps=trunk.blocks[0].norm1.eps),
    ).eval()  # fmt: skip
    ours = {}
    for block in trunk.blocks:
        for table in block.attn.relative:
            torch.nn.init.normal_(table, std=0.1)
    for name, value in trunk.state_dict().items():
        name = name.replace("attn.inner.", "attn.")
        ours[name.replace("relative.0", "rel_pos_h").replace("relative.1", "rel_pos_w")] = value
    report = theirs.load_state_dict(ours, strict=False)
    assert not report.missing_keys
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images)["last_feat"], reader.maps(images)[0], rtol=1e-4, atol=1e-5)
