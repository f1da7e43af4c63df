"""AlexNet with batch norm as RotNet (Gidaris et al. 2018) and VISSL use it, with their ``_feature_blocks`` names."""

from __future__ import annotations

from torch import Tensor, nn

from adapters.networks.network import Network


class _Normalised(nn.Sequential):
    """Pooling and local response normalisation, one block in VISSL's numbering."""

    def __init__(self) -> None:
        super().__init__(nn.MaxPool2d(3, 2), nn.LocalResponseNorm(5, 1e-4, 0.75))


def _convolution(before: int, after: int, kernel: int, stride: int, padding: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, padding, groups=groups), nn.BatchNorm2d(after), nn.ReLU()
    )


class AlexNet(Network):
    """The frozen feature is the flattened last pooling, as in the papers' linear evaluation of conv5.

    ``flat``: VISSL's trunk, without fully connected blocks. ``gray``: the colorization trunk, which reads the first of
    three channels (lightness of a LAB image) and has grouped convolutions.
    """

    strides = (4, 8, 16)
    feature = "flat"
    input_size = 224

    def __init__(self, flat: bool = False, gray: bool = False, num_classes: int = 4) -> None:
        super().__init__()
        self.lightness = gray
        self.head_name = "none" if flat else "_feature_blocks.9.0"
        self.num_classes = 0  # four rotations are no classes of images
        widths = (96, 256, 384, 384, 256) if gray else (64, 192, 384, 256, 256)
        groups = 2 if gray else 1
        side = 5 if gray else 6
        self.channels = (widths[0], widths[1], widths[4])
        self.num_features = widths[4] * side * side
        blocks: list[nn.Module] = [
            _convolution(1 if gray else 3, widths[0], 11, 4, 0 if gray else 2, 1),
            nn.MaxPool2d(3, 2),
            _convolution(widths[0], widths[1], 5, 1, 2, groups),
            nn.MaxPool2d(3, 2),
            _convolution(widths[1], widths[2], 3, 1, 1, 1),
            _convolution(widths[2], widths[3], 3, 1, 1, groups),
            _convolution(widths[3], widths[4], 3, 1, 1, groups),
            nn.MaxPool2d(3, 2),
        ]
        if not flat:
            blocks.append(
                nn.Sequential(
                    nn.Flatten(),
                    nn.Linear(self.num_features, 4096, bias=False),
                    nn.BatchNorm1d(4096),
                    nn.ReLU(),
                    nn.Linear(4096, 4096, bias=False),
                    nn.BatchNorm1d(4096),
                    nn.ReLU(),
                )
            )
            blocks.append(nn.Sequential(nn.Linear(4096, num_classes)))
        self._feature_blocks = nn.ModuleList(blocks)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = images[:, :1] if self.lightness else images
        maps = []
        for index, block in enumerate(list(self._feature_blocks)[:8]):
            x = block(x)
            if index in (0, 2, 6):
                maps.append(x)
        return maps, x.flatten(1)


class JigsawAlexNet(Network):
    """VISSL's trunk for Jigsaw (Noroozi and Favaro 2016): half the stride, and response normalisation in the stem."""

    head_name = "none"
    num_classes = 0
    strides = (2, 4, 8)
    channels = (96, 256, 256)
    feature = "flat"
    input_size = 224
    num_features = 256 * 12 * 12

    def __init__(self) -> None:
        super().__init__()
        self._feature_blocks = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(3, 96, 11, 2), nn.ReLU()),
                _Normalised(),
                nn.Sequential(nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU()),
                _Normalised(),
                _convolution(256, 384, 3, 1, 1, 1),
                _convolution(384, 384, 3, 1, 1, 2),
                _convolution(384, 256, 3, 1, 1, 2),
                nn.MaxPool2d(3, 2),
            ]
        )

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = images
        maps = []
        for index, block in enumerate(self._feature_blocks):
            x = block(x)
            if index in (0, 2, 6):
                maps.append(x)
        return maps, x.flatten(1)
