"""Four-stage ResNets that distillation code uses on 32-pixel images: 3 x 3 stem, no pooling, ``shortcut`` names."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from adapters.networks.network import Network


class _Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        after = width * (4 if bottleneck else 1)
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        self.depth = len(kernels)
        channels = before
        for index, kernel in enumerate(kernels, 1):
            out = after if index == self.depth else width
            # The stride is the 3 x 3 convolution's (in the plain block the first one's).
            step = stride if index == (2 if bottleneck else 1) else 1
            setattr(self, f"conv{index}", nn.Conv2d(channels, out, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{index}", nn.BatchNorm2d(out))
            channels = out
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for index in range(1, self.depth + 1):
            out = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(out))
            if index < self.depth:
                out = F.relu(out)
        return F.relu(out + self.shortcut(x))


class DeepCifarResNet(Network):
    """ResNet-18, -34 or -50 with a stem for 32-pixel images."""

    head_name = "linear"
    strides = (1, 2, 4, 8)
    input_size = 32

    def __init__(self, blocks: tuple[int, ...], bottleneck: bool, num_classes: int = 100) -> None:
        super().__init__()
        widths = (64, 128, 256, 512)
        self.channels = tuple(width * (4 if bottleneck else 1) for width in widths)
        self.num_features, self.num_classes = self.channels[-1], num_classes
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before = 64
        for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            layer = []
            for block in range(count):
                layer.append(_Block(before, width, 2 if index > 0 and block == 0 else 1, bottleneck))
                before = self.channels[index]
            setattr(self, f"layer{index + 1}", nn.Sequential(*layer))
        self.linear = nn.Linear(before, num_classes)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = F.relu(self.bn1(self.conv1(images)))
        maps = []
        for index in (1, 2, 3, 4):
            x = getattr(self, f"layer{index}")(x)
            maps.append(x)
        return maps, x.mean((2, 3))
