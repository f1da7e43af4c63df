"""The dialects, one row each. Names on the left are official code's, on the right timm's."""

from __future__ import annotations

import re

from adapters.dialects.dialect import (
    Dialect,
    batch_dimensions,
    class_position_apart,
    flat_normalisation,
    fuse_attention,
    share_position_biases,
    split_attention_bias,
)

_HF_EMBEDDINGS = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.mask_token", ""),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.relative_position_bias\.(.*)", r"rel_pos_bias.\1"),
    (r"layernorm\.(.*)", r"norm.\1"),
    (r"pooler\.layernorm\.(.*)", r"fc_norm.\1"),
)
# The part of a block's name after its number, in transformers 4 and 5.
_HF_BLOCK = (
    (r"attention\.attention\.query\.(.*)", r"attn.q.\1"),
    (r"attention\.attention\.key\.(.*)", r"attn.k.\1"),
    (r"attention\.attention\.value\.(.*)", r"attn.v.\1"),
    (r"attention\.output\.dense\.(.*)", r"attn.proj.\1"),
    (r"attention\.([qkv])_proj\.(.*)", r"attn.\1.\2"),
    (r"attention\.o_proj\.(.*)", r"attn.proj.\1"),
    (
        r"attention\.attention\.relative_position_bias\.relative_position_bias_table",
        r"attn.relative_position_bias_table",
    ),
    (r"attention\.attention\.relative_position_bias\.relative_position_index", r"attn.relative_position_index"),
    (r"intermediate\.dense\.(.*)", r"mlp.fc1.\1"),
    (r"output\.dense\.(.*)", r"mlp.fc2.\1"),
    (r"mlp\.weights_in\.(.*)", r"mlp.fc1.\1"),
    (r"mlp\.weights_out\.(.*)", r"mlp.fc2.\1"),
    (r"layernorm_before\.(.*)", r"norm1.\1"),
    (r"layernorm_after\.(.*)", r"norm2.\1"),
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
    (r"lambda_([12])", r"gamma_\1"),
)


def _blocks(start: str, rules: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Rules for names inside a block: ``start`` is the pattern before the rest, its one group the block's number."""

    def shifted(ours: str) -> str:
        return re.sub(r"\\(\d)", lambda m: rf"\{int(m[1]) + 1}", ours)

    every = tuple((start + pattern, rf"blocks.\1.{shifted(ours)}") for pattern, ours in rules)
    return (*every, (start + r"(.*)", r"blocks.\1.\2"))


_RESBLOCK = (
    (r"ln_([12])\.(.*)", r"norm\1.\2"),
    (r"attn\.in_proj_(.*)", r"attn.qkv.\1"),
    (r"attn\.out_proj\.(.*)", r"attn.proj.\1"),
    (r"mlp\.c_fc\.(.*)", r"mlp.fc1.\1"),
    (r"mlp\.c_proj\.(.*)", r"mlp.fc2.\1"),
)
_HF_CLIP_BLOCK = (
    (r"layer_norm([12])\.(.*)", r"norm\1.\2"),
    (r"self_attn\.([qkv])_proj\.(.*)", r"attn.\1.\2"),
    (r"self_attn\.out_proj\.(.*)", r"attn.proj.\1"),
)
_TORCHVISION_BLOCK = (
    (r"ln_([12])\.(.*)", r"norm\1.\2"),
    (r"self_attention\.in_proj_(.*)", r"attn.qkv.\1"),
    (r"self_attention\.out_proj\.(.*)", r"attn.proj.\1"),
    (r"mlp\.(?:0|linear_1)\.(.*)", r"mlp.fc1.\1"),
    (r"mlp\.(?:3|linear_2)\.(.*)", r"mlp.fc2.\1"),
)

DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        "torchvision ViT",
        re.compile(r"(.*?)encoder\.layers\.encoder_layer_0\.ln_1\.weight"),
        (
            (r"class_token", "cls_token"),
            (r"conv_proj\.(.*)", r"patch_embed.proj.\1"),
            (r"encoder\.pos_embedding", "pos_embed"),
            (r"encoder\.ln\.(.*)", r"norm.\1"),
            (r"heads\.head\.(.*)", r"head.\1"),
            *_blocks(r"encoder\.layers\.encoder_layer_(\d+)\.", _TORCHVISION_BLOCK),
        ),
    ),
    Dialect(
        "Hugging Face ViT",
        re.compile(r"(.*?)embeddings\.patch_embeddings\.projection\.weight"),
        (*_HF_EMBEDDINGS, *_blocks(r"(?:encoder\.layer|layers|encoder\.layers)\.(\d+)\.", _HF_BLOCK)),
        (fuse_attention, share_position_biases, class_position_apart),
        # Masked-modelling classes keep the final norm, and classifiers their head, beside the encoder.
        beside=((r"layernorm\.(.*)", r"norm.\1"), (r"classifier\.(.*)", r"head.\1")),
    ),
    Dialect(
        "Hugging Face ConvNeXt",
        re.compile(r"(.*?)encoder\.stages\.0\.layers\.0\.dwconv\.weight"),
        (
            (r"embeddings\.patch_embeddings\.(.*)", r"stem.0.\1"),
            (r"embeddings\.layernorm\.(.*)", r"stem.1.\1"),
            (r"layernorm\.(.*)", r"head.norm.\1"),
            (r"encoder\.stages\.(\d+)\.downsampling_layer\.(.*)", r"stages.\1.downsample.\2"),
            (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.dwconv\.(.*)", r"stages.\1.blocks.\2.conv_dw.\3"),
            (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layernorm\.(.*)", r"stages.\1.blocks.\2.norm.\3"),
            (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.pwconv([12])\.(.*)", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
            (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.grn\.(.*)", r"stages.\1.blocks.\2.mlp.grn.\3"),
            (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer_scale_parameter", r"stages.\1.blocks.\2.gamma"),
        ),
        (flat_normalisation,),
        beside=((r"classifier\.(.*)", r"head.fc.\1"),),
    ),
    Dialect(
        "ConvNeXt",
        re.compile(r"(.*?)downsample_layers\.0\.0\.weight"),
        (
            (r"downsample_layers\.0\.(.*)", r"stem.\1"),
            (r"downsample_layers\.(\d+)\.(.*)", r"stages.\1.downsample.\2"),
            (r"stages\.(\d+)\.(\d+)\.dwconv\.(.*)", r"stages.\1.blocks.\2.conv_dw.\3"),
            (r"stages\.(\d+)\.(\d+)\.pwconv([12])\.(.*)", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
            (r"stages\.(\d+)\.(\d+)\.grn\.gamma", r"stages.\1.blocks.\2.mlp.grn.weight"),
            (r"stages\.(\d+)\.(\d+)\.grn\.beta", r"stages.\1.blocks.\2.mlp.grn.bias"),
            (r"stages\.(\d+)\.(\d+)\.(.*)", r"stages.\1.blocks.\2.\3"),
            (r"norm\.(.*)", r"head.norm.\1"),
            (r"head\.(weight|bias)", r"head.fc.\1"),
        ),
        (flat_normalisation,),
    ),
    Dialect(
        "Hugging Face ALIGN",
        re.compile(r"(.*?)encoder\.blocks\.0\.depthwise_conv\.depthwise_conv\.weight"),
        (
            (r"embeddings\.convolution\.(.*)", r"conv_stem.\1"),
            (r"embeddings\.batchnorm\.(.*)", r"bn1.\1"),
            # The first stage's four blocks do not expand, and timm numbers their norms from the depthwise one on.
            (r"encoder\.blocks\.([0-3])\.depthwise_conv\.depthwise_norm\.(.*)", r"blocks.\1.bn1.\2"),
            (r"encoder\.blocks\.([0-3])\.projection\.project_conv\.(.*)", r"blocks.\1.conv_pw.\2"),
            (r"encoder\.blocks\.([0-3])\.projection\.project_bn\.(.*)", r"blocks.\1.bn2.\2"),
            (r"encoder\.blocks\.(\d+)\.expansion\.expand_conv\.(.*)", r"blocks.\1.conv_pw.\2"),
            (r"encoder\.blocks\.(\d+)\.expansion\.expand_bn\.(.*)", r"blocks.\1.bn1.\2"),
            (r"encoder\.blocks\.(\d+)\.depthwise_conv\.depthwise_conv\.(.*)", r"blocks.\1.conv_dw.\2"),
            (r"encoder\.blocks\.(\d+)\.depthwise_conv\.depthwise_norm\.(.*)", r"blocks.\1.bn2.\2"),
            (r"encoder\.blocks\.(\d+)\.squeeze_excite\.(reduce|expand)\.(.*)", r"blocks.\1.se.conv_\2.\3"),
            (r"encoder\.blocks\.(\d+)\.projection\.project_conv\.(.*)", r"blocks.\1.conv_pwl.\2"),
            (r"encoder\.blocks\.(\d+)\.projection\.project_bn\.(.*)", r"blocks.\1.bn3.\2"),
        ),
    ),
    Dialect(
        "CLIP",
        re.compile(r"(.*?)class_embedding"),  # the image tower's alone
        (
            (r"class_embedding", "cls_token"),
            (r"positional_embedding", "pos_embed"),
            (r"conv1\.weight", "patch_embed.proj.weight"),
            (r"ln_pre\.(.*)", r"norm_pre.\1"),
            (r"ln_post\.(.*)", r"norm.\1"),
            (r"proj", "projection.weight"),
            *_blocks(r"transformer\.resblocks\.(\d+)\.", _RESBLOCK),
        ),
        (batch_dimensions,),
    ),
    Dialect(
        "Hugging Face CLIP",
        re.compile(r"(.*?)embeddings\.patch_embedding\.weight"),
        (
            (r"embeddings\.class_embedding", "cls_token"),
            (r"embeddings\.position_embedding\.weight", "pos_embed"),
            (r"embeddings\.position_ids", ""),
            (r"embeddings\.patch_embedding\.weight", "patch_embed.proj.weight"),
            (r"pre_layrnorm\.(.*)", r"norm_pre.\1"),
            (r"post_layernorm\.(.*)", r"norm.\1"),
            *_blocks(r"encoder\.layers\.(\d+)\.", _HF_CLIP_BLOCK),
        ),
        (fuse_attention, batch_dimensions),
    ),
    Dialect(
        "DINOv2",
        re.compile(r"(.*?)blocks\.(?:0\.)?0\.ls1\.gamma"),
        (
            (r"mask_token", ""),
            (r"register_tokens", "reg_token"),
            # Chunked training files number their blocks within chunks: the second number is the block's own.
            (r"blocks\.\d+\.(\d+)\.mlp\.w12\.(.*)", r"blocks.\1.mlp.fc1.\2"),
            (r"blocks\.\d+\.(\d+)\.mlp\.w3\.(.*)", r"blocks.\1.mlp.fc2.\2"),
            (r"blocks\.(\d+)\.mlp\.w12\.(.*)", r"blocks.\1.mlp.fc1.\2"),
            (r"blocks\.(\d+)\.mlp\.w3\.(.*)", r"blocks.\1.mlp.fc2.\2"),
            (r"blocks\.\d+\.(\d+)\.(.*)", r"blocks.\1.\2"),
        ),
        (class_position_apart,),
    ),
    Dialect(
        "DINOv3",
        re.compile(r"(.*?)storage_tokens"),
        (
            (r"mask_token", ""),
            (r"storage_tokens", "reg_token"),
            (r"rope_embed\.periods", ""),  # a function of the head width alone, which timm computes
            (r"blocks\.(\d+)\.ls([12])\.gamma", r"blocks.\1.gamma_\2"),
            (r"blocks\.(\d+)\.mlp\.w1\.(.*)", r"blocks.\1.mlp.fc1_g.\2"),
            (r"blocks\.(\d+)\.mlp\.w2\.(.*)", r"blocks.\1.mlp.fc1_x.\2"),
            (r"blocks\.(\d+)\.mlp\.w3\.(.*)", r"blocks.\1.mlp.fc2.\2"),
        ),
        (split_attention_bias,),
    ),
    Dialect(
        "BEiT",
        re.compile(r"(.*?)blocks\.0\.attn\.[qv]_bias"),
        ((r"mask_token", ""),),
        (share_position_biases,),
    ),
    Dialect(
        "Swin",
        re.compile(r"(.*?)layers\.0\.downsample\.reduction\.weight"),
        (
            (r"mask_token", ""),
            (r"layers\.\d+\.blocks\.\d+\.attn_mask", ""),
            (r"layers\.0\.downsample\.(.*)", r"layers.1.downsample.\1"),
            (r"layers\.1\.downsample\.(.*)", r"layers.2.downsample.\1"),
            (r"layers\.2\.downsample\.(.*)", r"layers.3.downsample.\1"),
            (r"head\.(weight|bias)", r"head.fc.\1"),
        ),
    ),
)
