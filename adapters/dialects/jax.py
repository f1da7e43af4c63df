"""Vision transformers of JAX code (vision_transformer, big_vision) in ``.npz``: names by ``/``, kernels [in, out].

The attention's kernels are [D, heads, width] and the output's [heads, width, D]; convolutions are [H, W, in, out].
"""

from __future__ import annotations

import re

from torch import Tensor

from adapters.dialects.dialect import Dialect, fuse_attention

_ROOT = r"(?:params/|opt/target/)?(?:img/)?"
_BLOCK = rf"{_ROOT}Transformer/encoderblock_(\d+)/"


def _kernels(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith("/kernel"):
            out[f"{name.removesuffix('/kernel')}.weight"] = _turned(name, tensor)
        elif name.endswith("/scale"):
            out[f"{name.removesuffix('/scale')}.weight"] = tensor
        elif name.endswith("/bias"):
            # Those of query, key and value are [heads, width].
            out[f"{name.removesuffix('/bias')}.bias"] = tensor.flatten() if ".attn." in name else tensor
        else:
            out[name] = tensor
    return out


def _turned(name: str, kernel: Tensor) -> Tensor:
    if kernel.ndim == 4:
        return kernel.permute(3, 2, 0, 1)
    if kernel.ndim == 3:
        outward = name.endswith(".attn.proj/kernel")
        return (kernel.flatten(0, 1) if outward else kernel.flatten(1)).T
    return kernel.T


JAX: tuple[Dialect, ...] = (
    Dialect(
        "JAX",
        re.compile(rf"(){_ROOT}Transformer/encoderblock_0/LayerNorm_0/scale"),
        (
            (rf"{_ROOT}cls", "cls_token"),
            (rf"{_ROOT}(?:Transformer/posembed_input/)?pos_embedding", "pos_embed"),
            (rf"{_ROOT}embedding/(kernel|bias)", r"patch_embed.proj/\1"),
            (rf"{_BLOCK}LayerNorm_0/(.*)", r"blocks.\1.norm1/\2"),
            # The numbers count a block's parts through in older files, and each kind by itself in newer ones.
            (rf"{_BLOCK}LayerNorm_[12]/(.*)", r"blocks.\1.norm2/\2"),
            (rf"{_BLOCK}MultiHeadDotProductAttention_[01]/([qkv])(?:uery|ey|alue)/(.*)", r"blocks.\1.attn.\2/\3"),
            (rf"{_BLOCK}MultiHeadDotProductAttention_[01]/out/(.*)", r"blocks.\1.attn.proj/\2"),
            (rf"{_BLOCK}MlpBlock_[03]/Dense_0/(.*)", r"blocks.\1.mlp.fc1/\2"),
            (rf"{_BLOCK}MlpBlock_[03]/Dense_1/(.*)", r"blocks.\1.mlp.fc2/\2"),
            (rf"{_ROOT}Transformer/encoder_norm/(.*)", r"norm/\1"),
            (rf"{_ROOT}head/(.*)", r"head/\1"),
        ),
        (_kernels, fuse_attention),
    ),
)
