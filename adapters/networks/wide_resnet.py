"""Wide residual networks (Zagoruyko and Komodakis 2016) for 32-pixel images, with RepDistiller's names."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from adapters.networks.network import Network


class _Block(nn.Module):
    """Pre-activation: where the width changes, the activated input is what the shortcut takes too."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.convShortcut = None if before == after else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


class _Stage(nn.Module):
    def __init__(self, count: int, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            *(_Block(before if i == 0 else after, after, stride if i == 0 else 1) for i in range(count))
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(Network):
    """WRN-depth-width; depth 6n + 4."""

    head_name = "fc"
    strides = (1, 2, 4)
    input_size = 32

    def __init__(self, depth: int, width: int, num_classes: int = 100) -> None:
        super().__init__()
        self.channels = (16 * width, 32 * width, 64 * width)
        self.num_features, self.num_classes = self.channels[-1], num_classes
        count = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = _Stage(count, 16, self.channels[0], 1)
        self.block2 = _Stage(count, self.channels[0], self.channels[1], 2)
        self.block3 = _Stage(count, self.channels[1], self.channels[2], 2)
        self.bn1 = nn.BatchNorm2d(self.num_features)
        self.fc = nn.Linear(self.num_features, num_classes)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = self.conv1(images)
        maps = []
        for stage in (self.block1, self.block2, self.block3):
            x = stage(x)
            maps.append(x)
        return maps, F.relu(self.bn1(x)).mean((2, 3))
