"""SimCLR v2's ResNets (Chen et al. 2020), plain or with selective kernels, as its converters write them for PyTorch.

Every width is multiplied, stem and shortcuts included. With selective kernels (Li et al. 2019) the 3 x 3 convolution of
a block gives two branches, mixed channel by channel with weights that their sum's mean decides; the stem is three 3 x 3
convolutions and shortcuts average before they project (ResNet-D, He et al. 2018).

The parts bear the names of SimCLRv2-Pytorch, whose averaging of a shortcut without stride counts the zeros beside the
map's last row and column; the TensorFlow code that its weights were trained with divides by the pixels that there are.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from adapters.networks.network import Network

_RATIO = 1 / 16
"""Width of the mixing layer, as a share of the block's; at least `_LEAST`."""
_LEAST = 32


def _convolution(before: int, after: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)


def _norm(width: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(width))


def _norm_relu(width: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())


class _SelectiveKernel(nn.Module):
    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        middle = max(int(width * _RATIO), _LEAST)
        self.main_conv = nn.Sequential(_convolution(width, 2 * width, 3, stride), _norm_relu(2 * width))
        self.mixing_conv = nn.Sequential(
            _convolution(width, middle, 1), _norm_relu(middle), _convolution(middle, 2 * width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        branches = self.main_conv(x).unflatten(1, (2, -1))
        scores = self.mixing_conv(branches.sum(1).mean((2, 3), keepdim=True)).unflatten(1, (2, -1))
        mixed: Tensor = (branches * scores.softmax(1)).sum(1)
        return mixed


class _Projection(nn.Module):
    def __init__(self, before: int, after: int, stride: int, selective: bool) -> None:
        super().__init__()
        if selective:
            self.shortcut: nn.Module = nn.Sequential(
                nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, stride), _convolution(before, after, 1)
            )
        else:
            self.shortcut = _convolution(before, after, 1, stride)
        self.bn = _norm(after)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.shortcut(x))
        return out


class _Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int, selective: bool, first: bool) -> None:
        super().__init__()
        self.projection = _Projection(before, 4 * width, stride, selective) if first else nn.Identity()
        middle: list[nn.Module] = (
            [_SelectiveKernel(width, stride)]
            if selective
            else [_convolution(width, width, 3, stride), _norm_relu(width)]
        )
        self.net = nn.Sequential(
            _convolution(before, width, 1),
            _norm_relu(width),
            *middle,
            _convolution(width, 4 * width, 1),
            _norm(4 * width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.projection(x) + self.net(x))


class _Stage(nn.Module):
    def __init__(self, count: int, before: int, width: int, stride: int, selective: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _Block(before if index == 0 else 4 * width, width, stride if index == 0 else 1, selective, index == 0)
            for index in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class SimClrResNet(Network):
    """``blocks`` of the four stages, ``width`` the multiplier, ``selective`` for selective kernels."""

    head_name = "fc"
    strides = (4, 8, 16, 32)
    input_size = 224

    def __init__(self, blocks: tuple[int, ...], width: int, selective: bool, num_classes: int = 1000) -> None:
        super().__init__()
        before = 64 * width
        if selective:
            stem: list[nn.Module] = [
                _convolution(3, before // 2, 3, 2),
                _norm_relu(before // 2),
                _convolution(before // 2, before // 2, 3),
                _norm_relu(before // 2),
                _convolution(before // 2, before, 3),
            ]
        else:
            stem = [_convolution(3, before, 7, 2)]
        self.channels = tuple(256 * width * 2**stage for stage in range(4))
        self.num_features, self.num_classes = self.channels[-1], num_classes
        parts: list[nn.Module] = [nn.Sequential(*stem, _norm_relu(before), nn.MaxPool2d(3, 2, 1))]
        for stage, (count, after) in enumerate(zip(blocks, self.channels, strict=True)):
            parts.append(_Stage(count, before, after // 4, 2 if stage else 1, selective))
            before = after
        self.net = nn.Sequential(*parts)
        self.fc = nn.Linear(before, num_classes)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = images
        maps = []
        for part in self.net:
            x = part(x)
            maps.append(x)
        return maps[1:], x.mean((2, 3))
