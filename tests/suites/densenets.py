"""Tiny backbones for the suites that train: timm's test networks with seeded weights."""

import torch

from adapters.timm_backbone import TimmBackbone, create, transform_of
from bench.card import Card


def tiny(name="test_resnet", seed=0, **arguments):
    """A backbone whose weights are random and whose name says so."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = create(name, num_classes=0, **arguments)
    card = Card(
        name=f"random-{name}", spec=f"test:{name}", architecture=name, family="module", dims={}, feature="",
        weight_digest="", transform=transform_of(network),
    )  # fmt: skip
    return TimmBackbone(network, card, feature="avg")


def tiny_beit(patch=16):
    """BEiT's kind of network, for images of 14 x 14 patches alone: its relative positions are drawn, not zero."""
    backbone = tiny(
        "beit_base_patch16_224", embed_dim=48, num_heads=3, depth=4, patch_size=patch, img_size=14 * patch
    )  # fmt: skip
    with torch.no_grad():
        for block in backbone.network.blocks:
            block.attn.relative_position_bias_table.normal_(std=0.3)
    return backbone
