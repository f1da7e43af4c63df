"""Maps and heads of segmentation networks."""

import pytest
import torch
from densenets import tiny, tiny_beit
from torch import nn

from suites.segmentation.maps import FourMaps, FrozenMaps, spread_of
from suites.segmentation.networks import LinearSegmenter, UperNet, loss_of


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


def test_pixels_that_count_nowhere_add_nothing():
    logits = torch.randn(1, 3, 2, 2)
    labels = torch.tensor([[[0, 1], [-1, -1]]])
    each = nn.functional.cross_entropy(logits[..., 0, :], labels[:, 0], reduction="sum")
    torch.testing.assert_close(loss_of(logits, labels), each / 4)
    assert loss_of(logits, torch.full((1, 2, 2), -1)).item() == 0
