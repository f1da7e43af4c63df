"""Which left-over names of a checkpoint are known heads: parts that training needed and a frozen backbone does not."""

from __future__ import annotations

import re
from collections.abc import Iterable

_HEAD = re.compile(
    r"""(?x)
    (?:
      # classifiers
      (?:\w+_)?(?:fc|head|heads|classifier|classif|classification_head|logits|linear|linear_probe)(?:_\w+)?
    | (?:last|linear)_(?:layer|linear|proj)
    | (?:\w+_)?(?:projector|projection|projection_head|proj_head|predictor|prototypes|prototype)(?:_\w+|\d+)?
    | (?:\w+_)?(?:decoder|decoders)(?:_\w+|\d+)?                                         # of masked image modelling
    | mask_token | masked_embed | mask_embed | pred | lm_head | mlp_head | neck | contrast_head
    | queue\w* | center | (?:\w+_)?(?:loss|criterion|metric|metrics|memory|bank|memory_bank)\w*
    | logit_scale | logit_bias | aux\w* | AuxLogits | online_(?:classifier|linear)\w*
    | ema_\w*(?:step|decay|count)\w* | momentum_\w*head\w*
    )"""
)


def is_head(key: str) -> bool:
    """Whether the first part of a name, seen from the backbone's own prefix, is a known head."""
    return _HEAD.fullmatch(key.partition(".")[0]) is not None


def is_head_anywhere(key: str) -> bool:
    """Whether any part of a name is a known head: for names beside the backbone, not inside it."""
    return any(_HEAD.fullmatch(part) for part in key.split("."))


def grouped(keys: Iterable[str], prefix: str = "") -> list[str]:
    """Names by the part in which they leave ``prefix``: ``head.0.weight``, ``head.0.bias`` -> ``head.*``."""
    own = prefix.rstrip(".").split(".") if prefix else []
    groups: dict[str, None] = {}
    for key in keys:
        parts = key.split(".")
        depth = 0
        while depth < min(len(own), len(parts) - 1) and parts[depth] == own[depth]:
            depth += 1
        groups[key if len(parts) == depth + 1 else ".".join(parts[: depth + 1]) + ".*"] = None
    return list(groups)
