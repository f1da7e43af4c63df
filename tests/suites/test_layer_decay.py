"""Layer decay, parameter by parameter, against the published formula and against timm's own grouping."""

import re

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from bench.errors import BenchError
from suites.training.groups import grouped, layers_of

DECAY = 0.75


def groups_by_name(network: nn.Module) -> dict[str, tuple[float, float]]:
    """(scale of the learning rate, weight decay) of every parameter."""
    head = nn.Linear(4, 2)
    groups = grouped([(network, 1.0), (head, 10.0)], weight_decay=0.05, layer_decay=DECAY)
    where = {id(p): (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert where[id(head.weight)] == (10.0, 0.05)
    assert where[id(head.bias)] == (10.0, 0.0)
    assert len(where) == len(list(network.parameters())) + 2
    return {name: where[id(p)] for name, p in network.named_parameters()}


def test_vit_is_the_formula_parameter_by_parameter():
    network = timm.create_model("test_vit", num_classes=0)
    depth = len(network.blocks)
    assert depth > 1
    for name, (scale, decay) in groups_by_name(network).items():
        if name in ("cls_token", "pos_embed") or name.startswith("patch_embed."):
            layer = 0
        elif name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        else:
            assert name.startswith("norm.")
            layer = depth + 1
        assert scale == pytest.approx(DECAY ** (depth + 1 - layer), rel=1e-12), name
        bare = network.get_parameter(name).ndim == 1 or name in ("cls_token", "pos_embed")
        assert decay == (0.0 if bare else 0.05), name


@pytest.mark.parametrize(
    "model", ["test_vit2", "test_vit3", "beit_base_patch16_224", "deit_tiny_distilled_patch16_224"]
)
def test_other_vits_agree_with_timm_up_to_the_final_norm(model):
    with torch.device("meta"):
        network = timm.create_model(model, num_classes=5)
    ours = layers_of(network)
    theirs = {}
    for group in param_groups_layer_decay(network, layer_decay=DECAY, no_weight_decay_list=network.no_weight_decay()):
        theirs |= {id(p): group["lr_scale"] for p in group["params"]}
    for name, parameter in network.named_parameters():
        if not name.startswith(("norm", "fc_norm", "attn_pool", "head", "reg_token")):
            assert DECAY ** (ours.last - ours.of[name]) == pytest.approx(theirs[id(parameter)]), name
        elif name == "reg_token":
            assert ours.of[name] == 0
        else:
            assert ours.of[name] == ours.last, name


def test_resnet_is_the_formula_block_by_block():
    network = timm.create_model("resnet18", num_classes=7)
    blocks = ["layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0", "layer4.1"]
    for name, (scale, decay) in groups_by_name(network).items():
        layer = 0 if name.startswith(("conv1", "bn1")) else 9 if name.startswith("fc.") else None
        if layer is None:
            layer = 1 + next(i for i, block in enumerate(blocks) if name.startswith(f"{block}."))
        assert scale == pytest.approx(DECAY ** (9 - layer), rel=1e-12), name
        assert decay == (0.0 if network.get_parameter(name).ndim == 1 else 0.05), name
    # Without its classifier the last block is still one layer below a new head.
    bare = layers_of(timm.create_model("resnet18", num_classes=0))
    assert bare.last == 9
    assert bare.of["layer4.1.conv1.weight"] == 8


def test_a_table_of_positions_that_all_blocks_share_learns_as_the_head_does():
    """BEiT's, SimMIM's and data2vec's ``rel_pos_bias``: the last layer."""
    network = timm.create_model(
        "beit_base_patch16_224", depth=2, embed_dim=48, num_heads=3, use_rel_pos_bias=False,
        use_shared_rel_pos_bias=True,
    )  # fmt: skip
    found = layers_of(network)
    assert found.last == 3
    assert found.of["rel_pos_bias.relative_position_bias_table"] == 3


def test_swin_counts_blocks_through_its_stages():
    with torch.device("meta"):
        network = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5)
    found = layers_of(network)
    depths = [2, 2, 6, 2]
    assert found.last == sum(depths) + 1
    for name, layer in found.of.items():
        if match := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
            assert layer == sum(depths[: int(match[1])]) + int(match[2]) + 1, name
        elif match := re.match(r"layers\.(\d+)\.downsample\.", name):
            # Of the stage before, where SimMIM's network has it: sum(depths[:stage + 1]).
            assert layer == sum(depths[: int(match[1])]), name
        elif name.startswith("patch_embed"):
            assert layer == 0, name
        elif name.startswith(("norm.", "head.")):
            assert layer == found.last, name


def test_a_decay_of_one_needs_no_layers_and_another_needs_them():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    (weights, biases) = grouped([(network, 1.0)], weight_decay=0.1)
    assert (weights["lr_scale"], weights["weight_decay"], len(weights["params"])) == (1.0, 0.1, 2)
    assert (biases["lr_scale"], biases["weight_decay"], len(biases["params"])) == (1.0, 0.0, 2)
    with pytest.raises(BenchError, match="layer decay of 1"):
        grouped([(network, 1.0)], weight_decay=0.1, layer_decay=0.9)
    assert len(grouped([(network, 1.0)], weight_decay=0.1, undecayed=False)) == 1


def test_frozen_parameters_are_left_out():
    network = nn.Linear(3, 2).requires_grad_(False)
    assert grouped([(network, 1.0)], weight_decay=0.1) == []
