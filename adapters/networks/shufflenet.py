"""ShuffleNet V1 and V2 for 32-pixel images (Zhang et al. 2018; Ma et al. 2018), with RepDistiller's names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.networks.network import Network


def _shuffled(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.shape
    return x.reshape(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


class _GroupedBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int, groups: int) -> None:
        super().__init__()
        inner = after // 4
        self.stride = stride
        # The stem is too narrow for groups.
        self.groups = 1 if before == 24 else groups
        self.conv1 = nn.Conv2d(before, inner, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, after, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        out = _shuffled(F.relu(self.bn1(self.conv1(x))), self.groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        if self.stride == 2:
            return F.relu(torch.cat([out, F.avg_pool2d(x, 3, 2, 1)], 1))
        return F.relu(out + x)


class ShuffleNetV1(Network):
    """Three groups, widths 240, 480, 960; the stem is a 1 x 1 convolution without stride."""

    head_name = "linear"
    input_size = 32
    strides = (2, 4, 8)
    channels = (240, 480, 960)
    num_features = 960

    def __init__(self, num_classes: int = 100) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(3, 24, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        before = 24
        for index, (after, count) in enumerate(zip(self.channels, (4, 8, 4), strict=True)):
            blocks = []
            for block in range(count):
                blocks.append(
                    _GroupedBlock(before, after - before, 2, 3) if block == 0 else _GroupedBlock(after, after, 1, 3)
                )
            before = after
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(960, num_classes)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = F.relu(self.bn1(self.conv1(images)))
        maps = []
        for index in (1, 2, 3):
            x = getattr(self, f"layer{index}")(x)
            maps.append(x)
        return maps, x.mean((2, 3))


class _SplitBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.kept = half
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x[:, self.kept :])))
        out = F.relu(self.bn3(self.conv3(self.bn2(self.conv2(out)))))
        return _shuffled(torch.cat([x[:, : self.kept], out], 1), 2)


class _DownBlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        half = after // 2
        self.conv1 = nn.Conv2d(before, before, 3, 2, 1, groups=before, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.conv2 = nn.Conv2d(before, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(before, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))
        return _shuffled(torch.cat([left, F.relu(self.bn5(self.conv5(right)))], 1), 2)


class ShuffleNetV2(Network):
    """Width 1: 116, 232, 464, then a 1 x 1 convolution to 1024."""

    head_name = "linear"
    input_size = 32
    strides = (2, 4, 8)
    channels = (116, 232, 464)
    num_features = 1024

    def __init__(self, num_classes: int = 100) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(3, 24, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        before = 24
        for index, (after, count) in enumerate(zip(self.channels, (3, 7, 3), strict=True)):
            blocks = [_DownBlock(before, after), *(_SplitBlock(after) for _ in range(count))]
            before = after
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
        self.conv2 = nn.Conv2d(464, 1024, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1024)
        self.linear = nn.Linear(1024, num_classes)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = F.relu(self.bn1(self.conv1(images)))
        maps = []
        for index in (1, 2, 3):
            x = getattr(self, f"layer{index}")(x)
            maps.append(x)
        return maps, F.relu(self.bn2(self.conv2(x))).mean((2, 3))
