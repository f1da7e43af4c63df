"""ALIGN's image tower (Jia et al. 2021) as Hugging Face has it: an EfficientNet-B7 without its last convolution.

The blocks are timm's; the stem pads after the image alone, which at the tower's odd input size is not what "SAME" does.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from adapters.networks.network import Network


class Align(Network):
    """Blocks are numbered through, not by stage."""

    head_name = "none"
    num_classes = 0
    input_size = 289
    strides = (4, 8, 16, 32)
    channels = (48, 80, 224, 640)
    num_features = 640

    def __init__(self) -> None:
        super().__init__()
        import timm

        network = timm.create_model("tf_efficientnet_b7", pretrained=False, num_classes=0)
        stages = [list(stage) for stage in network.blocks]
        self.conv_stem = nn.Conv2d(3, 64, 3, 2, bias=False)
        self.bn1 = network.bn1
        self.blocks = nn.ModuleList([block for stage in stages for block in stage])
        ends = [sum(len(stage) for stage in stages[: index + 1]) - 1 for index in range(len(stages))]
        self._levels = {ends[1], ends[2], ends[4], ends[6]}

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = self.bn1(self.conv_stem(F.pad(images, (0, 1, 0, 1))))
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._levels:
                maps.append(x)
        return maps, x.mean((2, 3))
