"""What names betray of weights that fill nothing: adapters, quantised and reparametrised tensors, optimiser state."""

from __future__ import annotations

import re
from collections.abc import Iterable

from adapters.heads import is_head_anywhere

_OPTIMISER = re.compile(
    r"(?:.*\.)?(?:exp_avg\w*|exp_inf|max_exp_avg_sq|momentum_buffer|square_avg|grad_avg|acc_delta|sum|step)"
)
# (pattern of a name's parts, what such tensors are and what to do)
_SIGNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"(?:^|.*\.)(?:lora_\w+|base_layer|hada_w\w*|ia3_\w+)(?:\..*|$)"),
        "it holds LoRA adapters: merge them into the network that they change (merge_and_unload), save its state_dict",
    ),
    (
        re.compile(r"res\d_\d+_branch\d\w*|conv1_w|res_conv1_bn_\w+"),
        "these are the names of Caffe2's ResNets, which take BGR images of 0 to 255 and stride elsewhere: give weights "
        "that began as PyTorch's",
    ),
    (
        re.compile(
            r".*(?:weight_scale\w*|\.scales?|zero_points?|_packed_params\w*|\.qweight|\.qzeros|\.absmax|\.SCB)$"
        ),
        "its weights are quantised: give those before the quantisation",
    ),
    (
        re.compile(r".*(?:\.weight_[gv]|\.parametrizations\..*)$"),
        "its weights are parametrised (weight or spectral normalisation): save them after "
        "torch.nn.utils.parametrize.remove_parametrizations",
    ),
    (
        re.compile(r"(?:.*\.)?_?flat_param(?:_\d+)?"),
        "its weights are flattened and shared out by FSDP: save them as FULL_STATE_DICT",
    ),
    (
        re.compile(r".*\.weight_(?:orig|mask)$"),
        "its weights are pruned by a mask: save them after torch.nn.utils.prune.remove",
    ),
    (
        re.compile(r"(?:module\.)?(?:visual\.attn_pool|text|text_decoder)\..*"),
        "these are open_clip's names: openclip:NAME?weights=FILE reads such a checkpoint by its configuration NAME",
    ),
    (
        re.compile(r".*\.(?:cpb_mlp|continuous_position_bias_mlp)\..*"),
        "the windows of a Swin V2 show in none of its tensors: give the Hugging Face folder with its config.json, or "
        "say them with --arch, such as 'swinv2_tiny_window8_256(window_size=12, img_size=192)'",
    ),
)


def alone(names: Iterable[str]) -> str | None:
    """What a file without a backbone is by its names (the end of a sentence), or None."""
    listed = list(names)
    shown = ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
    if all(_OPTIMISER.fullmatch(name) for name in listed):
        return "holds an optimiser's state and no weights: give the file with the model's state_dict"
    if all(_SIGNS[0][0].fullmatch(name) for name in listed):
        return (
            f"holds LoRA adapters alone ({shown}) and no backbone: merge them into the network that they change "
            f"(merge_and_unload) and save its state_dict"
        )
    if all(is_head_anywhere(name) for name in listed):
        return f"holds a head alone ({shown}) and no backbone: give the backbone's own file"
    return None


def among(names: Iterable[str]) -> str | None:
    """What some of ``names`` betray, with the remedy, or None."""
    listed = list(names)
    return next((text for pattern, text in _SIGNS if any(pattern.fullmatch(name) for name in listed)), None)
