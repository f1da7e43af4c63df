"""What a dialect is, and the translation by it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.errors import BenchError

Finish = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Dialect:
    """``shown``: a name that shows the dialect, its first group the prefix.

    ``rules``: (pattern, name in timm), for what follows the prefix; the first that matches wholly is taken, an empty
    name drops the tensor, no match keeps the name. ``finish``: what cannot be said by renaming, over the prefix's own
    tensors. ``beside``: rules for names outside the prefix (a final norm beside the encoder).
    """

    name: str
    shown: re.Pattern[str]
    rules: tuple[tuple[str, str], ...]
    finish: tuple[Finish, ...] = field(default=())
    beside: tuple[tuple[str, str], ...] = ()


def translate(dialect: Dialect, tensors: Mapping[str, Tensor], prefixes: list[str]) -> dict[str, Tensor]:
    """All of ``tensors``, those under ``prefixes`` renamed (the prefix stays in front)."""
    rules = [(re.compile(pattern), ours) for pattern, ours in dialect.rules]
    beside = [(re.compile(pattern), ours) for pattern, ours in dialect.beside]
    inside: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in sorted(prefixes, key=len, reverse=True)}
    outside: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        prefix = next((p for p in inside if name.startswith(p)), None)
        renamed = _renamed(name[len(prefix) :], rules) if prefix is not None else None
        if prefix is not None and renamed is not None:
            if renamed:
                inside[prefix][renamed] = tensor
        elif any(pattern.fullmatch(name) for pattern, _ in beside) and (moved := _renamed(name, beside)):
            next(iter(inside.values()))[moved] = tensor
        else:
            outside[name] = tensor
    for prefix, own in inside.items():
        for finish in dialect.finish:
            # Tensors of shapes that cannot be joined keep their names; the network's own then say which they are.
            with contextlib.suppress(RuntimeError, IndexError, ValueError):
                own = finish(own)
        outside.update({prefix + name: tensor for name, tensor in own.items()})
    return outside


def _renamed(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, ours in rules:
        if match := pattern.fullmatch(name):
            return match.expand(ours) if ours else ""
    return name


def in_blocks(start: str, rules: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Rules for names inside a block: ``start`` is the pattern before the rest, its one group the block's number."""

    def shifted(ours: str) -> str:
        return re.sub(r"\\(\d)", lambda m: rf"\{int(m[1]) + 1}", ours)

    every = tuple((start + pattern, rf"blocks.\1.{shifted(ours)}") for pattern, ours in rules)
    return (*every, (start + r"(.*)", r"blocks.\1.\2"))


def fuse_attention(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """``attn.{q,k,v}`` joined as timm's ``attn.qkv``; without a key bias, BEiT's q_bias and v_bias."""
    fused = dict(tensors)
    for name in tensors:
        match = re.fullmatch(r"(.*\.attn\.)q\.weight", name)
        if match is None:
            continue
        stem = match[1]
        parts = [fused.pop(f"{stem}{part}.weight", None) for part in "qkv"]
        biases = [fused.pop(f"{stem}{part}.bias", None) for part in "qkv"]
        if all(part is not None for part in parts):
            fused[f"{stem}qkv.weight"] = torch.cat([part for part in parts if part is not None])
        query, key, value = biases
        if query is not None and key is not None and value is not None:
            fused[f"{stem}qkv.bias"] = torch.cat([query, key, value])
        elif query is not None and value is not None:
            fused[f"{stem}q_bias"], fused[f"{stem}v_bias"] = query, value
    return fused


def share_position_biases(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """BEiT's one relative-position table for all blocks, given to each of them."""
    shared = dict(tensors)
    table = shared.pop("rel_pos_bias.relative_position_bias_table", None)
    shared.pop("rel_pos_bias.relative_position_index", None)
    if table is not None:
        blocks = {match[1] for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name))}
        shared.update({f"blocks.{index}.attn.relative_position_bias_table": table for index in blocks})
    return shared


def class_position_apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With registers timm keeps no position for the class token: it is added to the token itself."""
    moved = dict(tensors)
    if "reg_token" in moved and "pos_embed" in moved and "cls_token" in moved:
        positions = moved["pos_embed"]
        moved["cls_token"] = moved["cls_token"] + positions[:, :1]
        moved["pos_embed"] = positions[:, 1:]
    return moved


def batch_dimensions(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's class embedding [D] and positions [N, D] with the leading dimensions that timm has."""
    widened = dict(tensors)
    if "cls_token" in widened and widened["cls_token"].ndim == 1:
        widened["cls_token"] = widened["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in widened and widened["pos_embed"].ndim == 2:
        widened["pos_embed"] = widened["pos_embed"][None]
    return widened


def split_attention_bias(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINOv3 masks the key's part of its attention bias (where it may hold NaN); timm has q_bias and v_bias alone."""
    split = dict(tensors)
    for name in tensors:
        if not name.endswith("attn.qkv.bias_mask"):
            continue
        mask = split.pop(name)
        stem = name.removesuffix("qkv.bias_mask")
        bias = split.pop(f"{stem}qkv.bias", None)
        if bias is not None and len(bias) == len(mask):
            query, _, value = bias.chunk(3)
            split[f"{stem}q_bias"], split[f"{stem}v_bias"] = query, value
    return split


def flat_normalisation(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """ConvNeXt V2's global response normalisation [1, 1, 1, C] as [C]."""
    return {n: t.reshape(-1) if re.search(r"\.grn\.(weight|bias)$", n) else t for n, t in tensors.items()}


def split_pooling(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """An attention pooling's joined projection as timm has it: the query's, and key's and value's together."""
    split = dict(tensors)
    for kind in ("weight", "bias"):
        joined = split.pop(f"attn_pool.qkv.{kind}", None)
        if joined is not None:
            width = len(joined) // 3
            split[f"attn_pool.q.{kind}"], split[f"attn_pool.kv.{kind}"] = joined[:width], joined[width:]
    return split


def unfolded_merging(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Swin's patch merging by ``nn.Unfold``: four neighbours beside each other for every channel, rows before columns.

    Everybody else has the channels beside each other for every neighbour, columns before rows.
    """
    ordered = dict(tensors)
    for name, tensor in tensors.items():
        if re.fullmatch(r"layers\.\d+\.downsample\.(?:norm\.(?:weight|bias)|reduction\.weight)", name):
            rows = tensor.reshape(-1, tensor.shape[-1] // 4, 4)[:, :, [0, 2, 1, 3]]
            ordered[name] = rows.transpose(1, 2).reshape(tensor.shape)
    return ordered


def ungated(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A perceptron without a gate has one first layer, which then needs no letter."""
    if any(".mlp.fc1_g." in name for name in tensors):
        return tensors
    return {name.replace(".mlp.fc1_x.", ".mlp.fc1."): tensor for name, tensor in tensors.items()}


def refuse_merged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Refuse the ResNets of Caffe2, whose names and shapes are detectron2's too and which compute something else."""
    mean, variance = tensors.get("bn1.running_mean"), tensors.get("bn1.running_var")
    if mean is None or variance is None or mean.is_meta:
        return tensors
    if not mean.any() and bool((variance - 1).abs().max() < 1e-4):
        raise BenchError(
            "the file's batch normalisation is merged, as in the ResNets of Caffe2 (MSRA), which take BGR images of 0 "
            "to 255 and stride in the first convolution of a block, as no network of bench does: give weights that "
            "began as PyTorch's"
        )
    return tensors
