"""torchvision's ResNets with the stem that self-supervised code gives them on small images: 3 x 3, no max pooling."""

from __future__ import annotations

from torch import Tensor, nn

from adapters.networks.network import Network


class SmallStemResNet(Network):
    """``padding`` 1 (lightly and most others) or 2 (solo-learn) of the stem's convolution."""

    head_name = "fc"
    strides = (1, 2, 4, 8)
    input_size = 32

    def __init__(self, base: str, padding: int, num_classes: int = 10) -> None:
        super().__init__()
        from torchvision import models

        network = models.get_model(base, weights=None)
        # The children keep torchvision's names.
        for name in ("bn1", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, network.get_submodule(name))
        self.conv1 = nn.Conv2d(3, 64, 3, 1, padding, bias=False)
        self.num_features, self.num_classes = network.fc.in_features, num_classes
        self.channels = tuple(self.num_features // ratio for ratio in (8, 4, 2, 1))
        self.fc = nn.Linear(self.num_features, num_classes)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = self.get_submodule("bn1")(self.conv1(images)).relu()
        maps = []
        for index in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{index}")(x)
            maps.append(x)
        return maps, x.mean((2, 3))
