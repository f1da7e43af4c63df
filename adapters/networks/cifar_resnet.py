"""ResNets for 32-pixel images (He et al. 2016, section 4.2), with RepDistiller's names and its wider form."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from adapters.networks.network import Network


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class CifarResNet(Network):
    """Depth 6n + 2; ``width`` 4 is the "x4" form, whose stem is twice as wide."""

    head_name = "fc"
    strides = (1, 2, 4)
    input_size = 32

    def __init__(self, depth: int, width: int = 1, num_classes: int = 100) -> None:
        super().__init__()
        stem = 16 if width == 1 else 32
        self.channels = (16 * width, 32 * width, 64 * width)
        self.num_features, self.num_classes = self.channels[-1], num_classes
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        before = stem
        for index, after in enumerate(self.channels):
            blocks = []
            for block in range((depth - 2) // 6):
                blocks.append(_Block(before, after, 2 if index > 0 and block == 0 else 1))
                before = after
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(before, num_classes)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = F.relu(self.bn1(self.conv1(images)))
        maps = []
        for index in (1, 2, 3):
            x = getattr(self, f"layer{index}")(x)
            maps.append(x)
        return maps, x.mean((2, 3))
