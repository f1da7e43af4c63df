"""MViTv2 for video clips (Li et al. 2022), with SlowFast's names, as MaskFeat pretrains it: no final norm.

Pooled attention with decomposed relative positions in height, width and time; the query's pooled tokens are added to
the attention's output (residual pooling).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.networks.network import Network

Size = tuple[int, int, int]


def _pooled(tokens: Tensor, size: Size, pool: nn.Module | None) -> tuple[Tensor, Size]:
    """[B, heads, 1 + T * H * W, C] with its grid pooled; the class token passes by."""
    if pool is None:
        return tokens, size
    token, grid = tokens[:, :, :1], tokens[:, :, 1:]
    batch, heads, _, width = grid.shape
    maps = pool(grid.reshape(batch * heads, *size, width).permute(0, 4, 1, 2, 3))
    smaller: Size = (maps.shape[2], maps.shape[3], maps.shape[4])
    grid = maps.flatten(2).transpose(1, 2).reshape(batch, heads, -1, width)
    return torch.cat([token, grid], 2), smaller


def _relative(table: Tensor, queries: int, keys: int) -> Tensor:
    """[queries, keys, C] of a table of relative positions, resized where the sizes are others than the table's."""
    length = 2 * max(queries, keys) - 1
    if len(table) != length:
        table = F.interpolate(table.T[None], size=length, mode="linear")[0].T
    key_step, query_step = max(queries / keys, 1.0), max(keys / queries, 1.0)
    rows = torch.arange(queries, device=table.device)[:, None] * query_step
    columns = torch.arange(keys, device=table.device)[None] * key_step
    return table[(rows - columns + (keys - 1) * key_step).long()]


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, size: Size, query_stride: int, key_stride: int) -> None:
        super().__init__()
        width = dim // heads
        self.heads, self.scale = heads, width**-0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        for part, stride in (("q", query_stride), ("k", key_stride), ("v", key_stride)):
            pool = nn.Conv3d(width, width, 3, (1, stride, stride), 1, groups=width, bias=False)
            setattr(self, f"pool_{part}", pool)
            setattr(self, f"norm_{part}", nn.LayerNorm(width, eps=1e-6))
        spatial = 2 * max(size[1] // query_stride, size[1] // key_stride) - 1
        self.rel_pos_h = nn.Parameter(torch.zeros(spatial, width))
        self.rel_pos_w = nn.Parameter(torch.zeros(spatial, width))
        self.rel_pos_t = nn.Parameter(torch.zeros(2 * size[0] - 1, width))

    def forward(self, x: Tensor, size: Size) -> tuple[Tensor, Size]:
        batch, count, dim = x.shape
        parts = self.qkv(x).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, query_size = _pooled(parts[0], size, self.get_submodule("pool_q"))
        key, key_size = _pooled(parts[1], size, self.get_submodule("pool_k"))
        value, _ = _pooled(parts[2], size, self.get_submodule("pool_v"))
        query = self.get_submodule("norm_q")(query)
        key = self.get_submodule("norm_k")(key)
        value = self.get_submodule("norm_v")(value)
        scores = (query * self.scale) @ key.transpose(-2, -1)
        scores[:, :, 1:, 1:] += self._positions(query[:, :, 1:], query_size, key_size)
        out = scores.softmax(-1) @ value
        out[:, :, 1:] += query[:, :, 1:]
        return self.proj(out.transpose(1, 2).reshape(batch, -1, dim)), query_size

    def _positions(self, query: Tensor, query_size: Size, key_size: Size) -> Tensor:
        grid = query.reshape(*query.shape[:2], *query_size, -1)
        tables = (self.rel_pos_t, self.rel_pos_h, self.rel_pos_w)
        time, height, width = (_relative(table, q, k) for table, q, k in zip(tables, query_size, key_size, strict=True))
        sum_of_three = (
            torch.einsum("bythwc,tkc->bythwk", grid, time)[..., :, None, None]
            + torch.einsum("bythwc,hkc->bythwk", grid, height)[..., None, :, None]
            + torch.einsum("bythwc,wkc->bythwk", grid, width)[..., None, None, :]
        )
        return sum_of_three.reshape(*query.shape[:3], math.prod(key_size))


class _Mlp(nn.Module):
    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class _Block(nn.Module):
    """The width changes in the perceptron, not in the attention."""

    def __init__(self, dim: int, out: int, heads: int, size: Size, query_stride: int, key_stride: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = _Attention(dim, heads, size, query_stride, key_stride)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = _Mlp(dim, out)
        self.proj = nn.Linear(dim, out) if dim != out else None
        kernel = query_stride + 1
        self.pool_skip = (
            nn.MaxPool3d((1, kernel, kernel), (1, query_stride, query_stride), (0, kernel // 2, kernel // 2))
            if query_stride > 1
            else None
        )

    def forward(self, x: Tensor, size: Size) -> tuple[Tensor, Size]:
        attended, smaller = self.attn(self.norm1(x), size)
        skipped, _ = _pooled(x[:, None], size, self.pool_skip)
        x = skipped[:, 0] + attended
        normed = self.norm2(x)
        return (x if self.proj is None else self.proj(normed)) + self.mlp(normed), smaller


class VideoMViT(Network):
    """MViTv2-S on clips [B, 3, 16, 224, 224]. Maps of the pyramid are averaged over time."""

    head_name = "none"
    num_classes = 0
    input_size = 224
    strides = (4, 8, 16)
    channels = (192, 384, 768)
    num_features = 768
    class_token = True
    family = "video"

    def __init__(self, frames: int = 16, img_size: int = 224) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, 96, (3, 7, 7), (2, 4, 4), (1, 3, 3))})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 96))
        size: Size = (frames // 2, img_size // 4, img_size // 4)
        dim, heads, key_stride = 96, 1, 8
        blocks = []
        for index in range(16):
            query_stride = 2 if index in (1, 3) else 1
            key_stride //= query_stride
            out = 2 * dim if index in (0, 2, 13) else dim
            blocks.append(_Block(dim, out, heads, size, query_stride, key_stride))
            size = (size[0], size[1] // query_stride, size[2] // query_stride)
            heads, dim = heads * out // dim, out
        self.blocks = nn.ModuleList(blocks)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        maps, tokens = self._run(images)
        return maps, tokens[:, 1:].mean(1)

    def outputs(self, images: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        maps, tokens = self._run(images)
        mean = tokens[:, 1:].mean(1)
        return maps, {"pooled": mean, "avg": mean, "cls": tokens[:, 0]}

    def _run(self, clips: Tensor) -> tuple[list[Tensor], Tensor]:
        embedded = self.patch_embed["proj"](clips)
        size: Size = (embedded.shape[2], embedded.shape[3], embedded.shape[4])
        x = torch.cat([self.cls_token.expand(len(clips), -1, -1), embedded.flatten(2).transpose(1, 2)], 1)
        maps = []
        for index, block in enumerate(self.blocks):
            x, size = block(x, size)
            if index in (0, 2, 15):
                maps.append(x[:, 1:].reshape(len(x), *size, -1).mean(1).permute(0, 3, 1, 2))
        return maps, x
