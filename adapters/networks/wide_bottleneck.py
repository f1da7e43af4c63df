"""ResNets whose every width is multiplied, stem and shortcuts included (Kolesnikov et al. 2019).

SimCLR, BYOL, SwAV and VICReg publish such networks; torchvision's ``wide_resnet`` widens the bottlenecks alone. The
parts bear torchvision's names.
"""

from __future__ import annotations

from torch import Tensor, nn

from adapters.networks.network import Network


class WideBottleneckResNet(Network):
    """``blocks`` of the four stages, ``width`` the multiplier.

    ``gray``: VISSL's trunk for colorization (Zhang et al. 2016), which reads the first of three channels (lightness of
    a LAB image) and whose last stage halves nothing.
    """

    head_name = "fc"
    input_size = 224

    def __init__(
        self, blocks: tuple[int, int, int, int], width: int, gray: bool = False, num_classes: int = 1000
    ) -> None:
        super().__init__()
        from torchvision.models.resnet import Bottleneck

        before = 64 * width
        self.lightness = gray
        self.strides = (4, 8, 16, 16 if gray else 32)
        self.conv1 = nn.Conv2d(1 if gray else 3, before, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.channels = tuple(256 * width * 2**stage for stage in range(4))
        self.num_features, self.num_classes = self.channels[-1], num_classes
        for stage, (count, after) in enumerate(zip(blocks, self.channels, strict=True)):
            layer = []
            for index in range(count):
                stride = 2 if stage and not index and not (gray and stage == 3) else 1
                shortcut = None
                if not index:
                    shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
                layer.append(Bottleneck(before, after // 4, stride, shortcut))
                before = after
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.fc = nn.Linear(self.num_features, num_classes)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = images[:, :1] if self.lightness else images
        x = self.pool(self.bn1(self.conv1(x)).relu())
        maps = []
        for index in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{index}")(x)
            maps.append(x)
        return maps, x.mean((2, 3))
