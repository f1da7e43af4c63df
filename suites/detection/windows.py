"""Attention within windows of a plain transformer's map, as ViTDet has it (Li et al. 2022), with relative positions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError

GLOBAL = 4
"""Blocks that still see the whole map, the last of each of so many equal groups."""


class Grid:
    """How many patches the images of the moment have, (rows, columns): told before each forward pass."""

    shape: tuple[int, int] = (0, 0)


class Windowed(nn.Module):
    """``inner`` (timm's ``Attention``) within windows of ``side`` patches; 0: over the whole map.

    The map is padded with zeros to whole windows, which take part as ViTDet has it; a window never is larger than the
    map. Class and register tokens: ``sees_prefix`` has every patch see them beside its window, and them see everything;
    otherwise patches do not know of them, which is what leaving them out comes to. ``positions``: the length of a side
    in patches for which relative positions are learned, from zero; 0: none.
    """

    def __init__(self, inner: Any, grid: Grid, *, side: int, positions: int, sees_prefix: bool) -> None:
        super().__init__()
        self.inner = inner
        self.grid = grid
        self.side = side
        self.sees_prefix = sees_prefix
        tables = [nn.Parameter(torch.zeros(2 * positions - 1, inner.head_dim)) for _ in range(2 * bool(positions))]
        self.relative = nn.ParameterList(tables)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if attn_mask is not None or is_causal:
            raise BenchError("windows of attention take no mask")
        rows, columns = self.grid.shape
        prefix = x.shape[1] - rows * columns
        window = (min(self.side, rows), min(self.side, columns)) if self.side else (rows, columns)
        patches = split(x[:, prefix:], 1, (rows, columns))
        parts, padded = divided(patches, window)
        q, k, v = self._projected(parts)
        bias = self._bias(q, window) if len(self.relative) else None
        if not prefix:
            found = self._attended(q, k, v, bias)
            return self._out(together(found, window, padded, (rows, columns)).flatten(1, 2), x)
        first = self._projected(x[:, :prefix])
        if self.sees_prefix:
            # Every window of an image sees the image's own prefix tokens.
            share = len(parts) // len(x)
            k, v = (
                torch.cat([t.repeat_interleave(share, 0), own], 2) for t, own in zip(first[1:], (k, v), strict=True)
            )
            bias = F.pad(bias, (prefix, 0)) if bias is not None else None
            # Padding is nothing that a prefix token could see.
            whole = self._projected(patches.flatten(1, 2))
            seen = [torch.cat([a, b], 2) for a, b in zip(first[1:], whole[1:], strict=True)]
        else:
            seen = list(first[1:])
        found = together(self._attended(q, k, v, bias), window, padded, (rows, columns)).flatten(1, 2)
        return self._out(torch.cat([self._attended(first[0], seen[0], seen[1], None), found], 1), x)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, heads, N, d] of tokens [B, N, C]."""
        inner = self.inner
        q, k, v = inner.qkv(x).reshape(len(x), x.shape[1], 3, inner.num_heads, inner.head_dim).permute(2, 0, 3, 1, 4)
        return inner.q_norm(q), inner.k_norm(k), v

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        drop = self.inner.attn_drop.p if self.training else 0.0
        bias = bias.to(q.dtype) if bias is not None else None
        return F.scaled_dot_product_attention(q, k, v, bias, drop).transpose(1, 2).flatten(2)

    def _bias(self, q: Tensor, window: tuple[int, int]) -> Tensor:
        """[B, heads, N, N]: what a query says of the distance to a key, down and across added up."""
        grid = split(q, 2, window)
        down = torch.einsum("bhyxd,ykd->bhyxk", grid, distances(self.relative[0], window[0]).to(q.dtype))
        across = torch.einsum("bhyxd,xkd->bhyxk", grid, distances(self.relative[1], window[1]).to(q.dtype))
        return (down[..., :, None] + across[..., None, :]).flatten(4, 5).flatten(2, 3)

    def _out(self, found: Tensor, x: Tensor) -> Tensor:
        inner = self.inner
        found = inner.norm(found)
        if inner.gate is not None:
            found = found * inner.gate(x).sigmoid()
        projected: Tensor = inner.proj_drop(inner.proj(found))
        return projected


def distances(table: Tensor, side: int) -> Tensor:
    """[side, side, d]: the row of ``table`` [2L - 1, d] for each query and key; another length is interpolated."""
    wanted = 2 * side - 1
    if len(table) != wanted:
        table = F.interpolate(table.T[None].float(), size=wanted, mode="linear")[0].T.to(table.dtype)
    places = torch.arange(side, device=table.device)
    return table[places[:, None] - places[None, :] + side - 1]


def divided(patches: Tensor, window: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """([B * windows, tokens of one, C], windows down and across) of a map [B, rows, columns, C]."""
    rows, columns = patches.shape[1:3]
    patches = F.pad(patches, (0, 0, 0, -columns % window[1], 0, -rows % window[0]))
    count = (patches.shape[1] // window[0], patches.shape[2] // window[1])
    parts = split(split(patches, 2, (count[1], window[1])), 1, (count[0], window[0]))
    return parts.transpose(2, 3).flatten(3, 4).flatten(0, 2), count


def together(found: Tensor, window: tuple[int, int], count: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """The map [B, rows, columns, C] of the windows' tokens; padding is cut off."""
    parts = split(split(found, 0, (-1, *count)), 3, window).transpose(2, 3)
    return parts.flatten(3, 4).flatten(1, 2)[:, : shape[0], : shape[1]]


def split(x: Tensor, axis: int, sizes: tuple[int, ...]) -> Tensor:
    """``x`` with one axis as several."""
    found: Tensor = x.unflatten(axis, sizes)  # type: ignore[no-untyped-call]
    return found


def divide(network: Any, *, side: int, positions: int, sees_prefix: bool, option: str) -> Grid:
    """Put the attention of ``network``'s blocks into windows, in place, and return the grid to keep up to date.

    Of twelve blocks the third, sixth, ninth and last see the whole map (ViTDet). Raises `BenchError` for attention of
    another kind than timm's plain one; ``option`` is the one that switches windows off.
    """
    grid = Grid()
    last = {round(len(network.blocks) * group / GLOBAL) - 1 for group in range(1, GLOBAL + 1)}
    for number, block in enumerate(network.blocks):
        inner = getattr(block, "attn", None)
        if type(inner).__name__ != "Attention" or not hasattr(inner, "q_norm"):
            raise BenchError(
                f"the attention of this network ({type(inner).__name__}) does not divide into windows: "
                f"--set {option}=0 --set {option.partition('.')[0]}.relative=no trains it with the whole map"
            )
        whole = number in last
        own = positions if whole else min(positions, side)
        block.attn = Windowed(inner, grid, side=0 if whole else side, positions=own, sees_prefix=sees_prefix)
    return grid
