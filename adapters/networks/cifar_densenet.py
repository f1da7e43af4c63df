"""DenseNet-BC for 32-pixel images (Huang et al. 2017): bottlenecks of 4k, transitions that halve the width.

The names are bearpaw's (pytorch-classification); dialects translate others'.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.networks.network import Network


class _Bottleneck(nn.Module):
    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([x, self.conv2(F.relu(self.bn2(out)))], 1)


class _Transition(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv1(F.relu(self.bn1(x))), 2)


class CifarDenseNet(Network):
    """``depth`` 6n + 4, ``growth`` k; the maps of the pyramid are those of the three dense blocks."""

    head_name = "fc"
    strides = (1, 2, 4)
    input_size = 32

    def __init__(self, depth: int, growth: int, num_classes: int = 100) -> None:
        super().__init__()
        width = 2 * growth
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        channels = []
        for index in (1, 2, 3):
            layers = []
            for _ in range((depth - 4) // 6):
                layers.append(_Bottleneck(width, growth))
                width += growth
            setattr(self, f"dense{index}", nn.Sequential(*layers))
            channels.append(width)
            if index < 3:
                setattr(self, f"trans{index}", _Transition(width, width // 2))
                width //= 2
        self.channels = tuple(channels)
        self.num_features, self.num_classes = width, num_classes
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, num_classes)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = self.conv1(images)
        maps = []
        for index in (1, 2, 3):
            x = self.get_submodule(f"dense{index}")(x)
            maps.append(x)
            if index < 3:
                x = self.get_submodule(f"trans{index}")(x)
        return maps, F.relu(self.bn(x)).mean((2, 3))
