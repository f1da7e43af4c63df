"""MobileNetV2 for 32-pixel images (Sandler et al. 2018), with RepDistiller's names, widths and strides."""

from __future__ import annotations

from torch import Tensor, nn

from adapters.networks.network import Network

# (expand?, channels, blocks, stride of the first)
_SETTING = (
    (False, 16, 1, 1),
    (True, 24, 2, 1),
    (True, 32, 3, 2),
    (True, 64, 4, 2),
    (True, 96, 3, 1),
    (True, 160, 3, 2),
    (True, 320, 1, 1),
)


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.residual = stride == 1 and before == after
        self.conv = nn.Sequential(
            nn.Conv2d(before, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class CifarMobileNetV2(Network):
    """Half width in the distillation tables; the first stage alone does not expand."""

    head_name = "classifier.0"
    input_size = 32
    strides = (2, 4, 8, 16)

    def __init__(self, width: float, expansion: int, num_classes: int = 100) -> None:
        super().__init__()
        self.num_features, self.num_classes = 1280, num_classes
        before = int(32 * width)
        self.conv1 = nn.Sequential(nn.Conv2d(3, before, 3, 2, 1, bias=False), nn.BatchNorm2d(before), nn.ReLU())
        stages = []
        for expand, channels, count, stride in _SETTING:
            layers = []
            for index in range(count):
                after = int(channels * width)
                layers.append(_Block(before, after, stride if index == 0 else 1, expansion if expand else 1))
                before = after
            stages.append(nn.Sequential(*layers))
        self.blocks = nn.ModuleList(stages)
        self.conv2 = nn.Sequential(nn.Conv2d(before, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(1280, num_classes))
        self.channels = tuple(int(c * width) for c in (24, 32, 96, 320))

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = self.conv1(images)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in (1, 2, 4, 6):
                maps.append(x)
        return maps, self.conv2(x).mean((2, 3))
