"""Random crops as they are drawn outside torchvision."""

from __future__ import annotations

import math
from typing import Any

import torch
from torchvision import transforms
from torchvision.transforms import functional as F


class ClippedCrop(transforms.RandomResizedCrop):
    """RandomResizedCrop that draws once and clips the drawn sides to the image: BYOL's (Grill et al. 2020), and MAE's.

    torchvision draws up to ten times until a crop fits whole, and then takes the centre: of wide images it gives other
    crops.
    """

    @staticmethod
    def get_params(img: Any, scale: list[float], ratio: list[float]) -> tuple[int, int, int, int]:
        """(top, left, height, width) of one crop, by PyTorch's random numbers."""
        _, height, width = F.get_dimensions(img)
        area = height * width * float(torch.empty(1).uniform_(scale[0], scale[1]))
        aspect = math.exp(float(torch.empty(1).uniform_(math.log(ratio[0]), math.log(ratio[1]))))
        wide = min(round(math.sqrt(area * aspect)), width)
        high = min(round(math.sqrt(area / aspect)), height)
        top = int(torch.randint(0, height - high + 1, (1,)))
        left = int(torch.randint(0, width - wide + 1, (1,)))
        return top, left, max(high, 1), max(wide, 1)
