"""CLIP's ResNets (Radford et al. 2021), with OpenAI's names.

A stem of three convolutions, average pooling before every strided convolution, and attention pooling at the end: the
mean of the last map asks, mean and map answer. The pooled feature is what that gives, as in the paper's linear probes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.networks.network import Network
from adapters.positions import resized


class _Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.stride = stride
        self.downsample: nn.ModuleDict | None = None
        if stride > 1 or before != after:
            # The names are those of a sequence whose first part, the pooling, has no tensors.
            self.downsample = nn.ModuleDict({"0": nn.Conv2d(before, after, 1, bias=False), "1": nn.BatchNorm2d(after)})

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        out = self.bn3(self.conv3(self._pooled(out)))
        if self.downsample is not None:
            x = self.downsample["1"](self.downsample["0"](self._pooled(x)))
        return F.relu(out + x)

    def _pooled(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class _AttentionPool(nn.Module):
    """The mean of a map attends to the mean and to the map's places."""

    def __init__(self, side: int, width: int, out: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.zeros(side * side + 1, width))
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, out)
        self.heads = width // 64

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, length = x.shape
        places = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([places.mean(1, keepdim=True), places], 1) + self._positions(height, length)
        query, key, value = (
            part(source).reshape(batch, -1, self.heads, 64).transpose(1, 2)
            for part, source in ((self.q_proj, tokens[:, :1]), (self.k_proj, tokens), (self.v_proj, tokens))
        )
        attended = F.scaled_dot_product_attention(query, key, value).reshape(batch, width)
        out: Tensor = self.c_proj(attended)
        return out

    def _positions(self, height: int, length: int) -> Tensor:
        """OpenAI's code takes one size alone; others are resized as open_clip does for its transformers."""
        table = self.positional_embedding[None]
        if height == length and height * length + 1 == table.shape[1]:
            return table
        return torch.cat([table[:, :1], resized(table[:, 1:], height, length, "antialiased")], 1)


class ClipResNet(Network):
    """``width`` of the stem (64 in RN50 and RN101), ``out`` the width of the space that image and text share."""

    head_name = "none"
    num_classes = 0
    strides = (4, 8, 16, 32)
    feature = "attention_pool"

    def __init__(self, blocks: tuple[int, int, int, int], width: int, size: int, out: int) -> None:
        super().__init__()
        self.input_size, self.num_features = size, out
        self.channels = tuple(4 * width * 2**stage for stage in range(4))
        before = 3
        for index, after in enumerate((width // 2, width // 2, width), 1):
            setattr(self, f"conv{index}", nn.Conv2d(before, after, 3, 2 if index == 1 else 1, 1, bias=False))
            setattr(self, f"bn{index}", nn.BatchNorm2d(after))
            before = after
        for stage, (count, after) in enumerate(zip(blocks, self.channels, strict=True)):
            layer = []
            for index in range(count):
                layer.append(_Block(before, after // 4, 2 if stage and not index else 1))
                before = after
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
        self.attnpool = _AttentionPool(size // 32, before, out)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = images
        for index in (1, 2, 3):
            x = F.relu(self.get_submodule(f"bn{index}")(self.get_submodule(f"conv{index}")(x)))
        x = F.avg_pool2d(x, 2)
        maps = []
        for index in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{index}")(x)
            maps.append(x)
        return maps, self.attnpool(x)
