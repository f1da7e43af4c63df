"""VGG with batch norm for 32-pixel images (Simonyan and Zisserman 2015), with RepDistiller's names."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from adapters.networks.network import Network

_REPEATS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class CifarVGG(Network):
    """Five blocks; a pooling follows each of the first three, the fourth only from 64 pixels on."""

    head_name = "classifier"
    input_size = 32
    # Maps of equal stride (the last two blocks at 32 pixels) are one level: the later one.
    strides = (1, 2, 4, 8)
    channels = (64, 128, 256, 512)
    num_features = 512

    def __init__(self, depth: int, num_classes: int = 100) -> None:
        super().__init__()
        self.num_classes = num_classes
        before = 3
        for index, (count, width) in enumerate(zip(_REPEATS[depth], (64, 128, 256, 512, 512), strict=True)):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            setattr(self, f"block{index}", nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(512, num_classes)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = images
        maps = []
        for index in range(5):
            x = F.relu(getattr(self, f"block{index}")(x))
            maps.append(x)
            if index < 3 or (index == 3 and images.shape[2] == 64):
                x = F.max_pool2d(x, 2)
        return [*maps[:3], maps[4]], x.mean((2, 3))
