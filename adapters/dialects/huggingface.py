"""Hugging Face's names (transformers 4 and 5), one row each; on the right timm's."""

from __future__ import annotations

import re

from adapters.dialects.dialect import (
    Dialect,
    batch_dimensions,
    class_position_apart,
    flat_normalisation,
    fuse_attention,
    in_blocks,
    share_position_biases,
    split_pooling,
    ungated,
)

_EMBEDDINGS = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.mask_token", ""),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"(?:encoder\.relative_position_bias|shared_position_bias)\.(.*)", r"rel_pos_bias.\1"),
    (r"layernorm\.(.*)", r"norm.\1"),
    (r"pooler\.layernorm\.(.*)", r"fc_norm.\1"),
)
# The part of a block's name after its number, in transformers 4 and 5.
_BLOCK = (
    (r"attention\.attention\.query\.(.*)", r"attn.q.\1"),
    (r"attention\.attention\.key\.(.*)", r"attn.k.\1"),
    (r"attention\.attention\.value\.(.*)", r"attn.v.\1"),
    (r"attention\.output\.dense\.(.*)", r"attn.proj.\1"),
    (r"attention\.([qkv])_proj\.(.*)", r"attn.\1.\2"),
    (r"attention\.o_proj\.(.*)", r"attn.proj.\1"),
    (
        r"(?:attention\.attention\.)?relative_position_bias\.relative_position_bias_table",
        r"attn.relative_position_bias_table",
    ),
    (r"(?:attention\.attention\.)?relative_position_bias\.relative_position_index", r"attn.relative_position_index"),
    (r"intermediate\.dense\.(.*)", r"mlp.fc1.\1"),
    (r"output\.dense\.(.*)", r"mlp.fc2.\1"),
    (r"mlp\.weights_in\.(.*)", r"mlp.fc1.\1"),
    (r"mlp\.weights_out\.(.*)", r"mlp.fc2.\1"),
    (r"layernorm_before\.(.*)", r"norm1.\1"),
    (r"layernorm_after\.(.*)", r"norm2.\1"),
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
    (r"lambda_([12])", r"gamma_\1"),
)

_CLIP_BLOCK = (
    (r"layer_norm([12])\.(.*)", r"norm\1.\2"),
    (r"self_attn\.([qkv])_proj\.(.*)", r"attn.\1.\2"),
    (r"self_attn\.out_proj\.(.*)", r"attn.proj.\1"),
)
_DINOV3_BLOCK = (
    (r"attention\.([qkv])_proj\.(.*)", r"attn.\1.\2"),
    (r"attention\.o_proj\.(.*)", r"attn.proj.\1"),
    (r"layer_scale([12])\.lambda1", r"gamma_\1"),
    (r"mlp\.gate_proj\.(.*)", r"mlp.fc1_g.\1"),
    (r"mlp\.up_proj\.(.*)", r"mlp.fc1_x.\1"),
    (r"mlp\.down_proj\.(.*)", r"mlp.fc2.\1"),
)
# Groups 1 and 2 are the numbers of stage and block.
_SWIN_BLOCK = (
    (r"attention\.self\.(q)uery\.(.*)", r"attn.\3.\4"),
    (r"attention\.self\.(k)ey\.(.*)", r"attn.\3.\4"),
    (r"attention\.self\.(v)alue\.(.*)", r"attn.\3.\4"),
    (r"attention\.([qkv])_proj\.(.*)", r"attn.\3.\4"),
    (r"attention\.(?:output\.dense|o_proj)\.(.*)", r"attn.proj.\3"),
    (r"attention\.(?:self|relative_position_bias)\.(relative_position_bias_table|relative_position_index)", r"attn.\3"),
    (r"attention\.self\.logit_scale", "attn.logit_scale"),
    (r"attention\.self\.continuous_position_bias_mlp\.(.*)", r"attn.cpb_mlp.\3"),
    (r"intermediate\.dense\.(.*)", r"mlp.fc1.\3"),
    (r"output\.dense\.(.*)", r"mlp.fc2.\3"),
    (r"layernorm_before\.(.*)", r"norm1.\3"),
    (r"layernorm_after\.(.*)", r"norm2.\3"),
    (r"(.*)", r"\3"),
)


def _hf_resnet_stage(stage: int) -> tuple[tuple[str, str], ...]:
    """Rules of one stage; Hugging Face counts stages and convolutions from zero, everybody else from one."""
    start, ours = rf"encoder\.stages\.{stage}\.layers\.(\d+)\.", rf"layer{stage + 1}.\1."
    return (
        (start + r"shortcut\.convolution\.(.*)", ours + r"downsample.0.\2"),
        (start + r"shortcut\.normalization\.(.*)", ours + r"downsample.1.\2"),
        *((start + rf"layer\.{i}\.convolution\.(.*)", ours + rf"conv{i + 1}.\2") for i in range(3)),
        *((start + rf"layer\.{i}\.normalization\.(.*)", ours + rf"bn{i + 1}.\2") for i in range(3)),
    )


HUGGING_FACE: tuple[Dialect, ...] = (
    Dialect(
        "Hugging Face ViT",
        re.compile(r"(.*?)embeddings\.patch_embeddings\.projection\.weight"),
        (*_EMBEDDINGS, *in_blocks(r"(?:encoder\.layer|layers|encoder\.layers)\.(\d+)\.", _BLOCK)),
        (fuse_attention, share_position_biases, class_position_apart),
        # Masked-modelling classes keep the final norm, and classifiers their head, beside the encoder.
        beside=(
            (r"layernorm\.(.*)", r"norm.\1"),
            (r"(?:cls_)?classifier\.(.*)", r"head.\1"),
            (r"distillation_classifier\.(.*)", r"head_dist.\1"),
        ),
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
        "Hugging Face CLIP",
        re.compile(r"(.*?)embeddings\.patch_embedding\.weight"),
        (
            (r"embeddings\.class_embedding", "cls_token"),
            (r"embeddings\.position_embedding\.weight", "pos_embed"),
            (r"embeddings\.position_ids", ""),
            (r"embeddings\.patch_embedding\.(.*)", r"patch_embed.proj.\1"),
            (r"pre_layrnorm\.(.*)", r"norm_pre.\1"),
            (r"post_layernorm\.(.*)", r"norm.\1"),
            # SigLIP's attention pooling.
            (r"head\.probe", "attn_pool.latent"),
            (r"head\.attention\.in_proj_(weight|bias)", r"attn_pool.qkv.\1"),
            (r"head\.attention\.out_proj\.(.*)", r"attn_pool.proj.\1"),
            (r"head\.layernorm\.(.*)", r"attn_pool.norm.\1"),
            (r"head\.mlp\.(.*)", r"attn_pool.mlp.\1"),
            *in_blocks(r"encoder\.layers\.(\d+)\.", _CLIP_BLOCK),
        ),
        (fuse_attention, batch_dimensions, split_pooling),
    ),
    Dialect(
        "Hugging Face DINOv3",
        re.compile(r"(.*?)embeddings\.patch_embeddings\.weight"),
        (
            (r"embeddings\.cls_token", "cls_token"),
            (r"embeddings\.mask_token", ""),
            (r"embeddings\.register_tokens", "reg_token"),
            (r"embeddings\.patch_embeddings\.(.*)", r"patch_embed.proj.\1"),
            *in_blocks(r"(?:model\.)?layer\.(\d+)\.", _DINOV3_BLOCK),
        ),
        (fuse_attention, ungated),
    ),
    Dialect(
        "Hugging Face DINOv3 ConvNeXt",
        re.compile(r"(.*?)stages\.0\.layers\.0\.depthwise_conv\.weight"),
        (
            (r"stages\.0\.downsample_layers\.(.*)", r"stem.\1"),
            (r"stages\.(\d+)\.downsample_layers\.(.*)", r"stages.\1.downsample.\2"),
            (r"stages\.(\d+)\.layers\.(\d+)\.depthwise_conv\.(.*)", r"stages.\1.blocks.\2.conv_dw.\3"),
            (r"stages\.(\d+)\.layers\.(\d+)\.layer_norm\.(.*)", r"stages.\1.blocks.\2.norm.\3"),
            (r"stages\.(\d+)\.layers\.(\d+)\.pointwise_conv([12])\.(.*)", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
            (r"stages\.(\d+)\.layers\.(\d+)\.gamma", r"stages.\1.blocks.\2.gamma"),
            (r"layer_norm\.(.*)", r"head.norm.\1"),
        ),
        beside=((r"layer_norm\.(.*)", r"head.norm.\1"),),
    ),
    Dialect(
        "Hugging Face Swin",
        re.compile(r"(.*?)encoder\.layers\.0\.downsample\.reduction\.weight"),
        (
            (r"embeddings\.mask_token", ""),
            (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
            (r"embeddings\.norm\.(.*)", r"patch_embed.norm.\1"),
            (r"layernorm\.(.*)", r"norm.\1"),
            *((rf"encoder\.layers\.{i}\.downsample\.(.*)", rf"layers.{i + 1}.downsample.\1") for i in range(7)),
            *(
                (r"encoder\.layers\.(\d+)\.blocks\.(\d+)\." + rule, r"layers.\1.blocks.\2." + ours)
                for rule, ours in _SWIN_BLOCK
            ),
        ),
        (fuse_attention,),
        beside=((r"classifier\.(.*)", r"head.fc.\1"),),
    ),
    Dialect(
        "Hugging Face ResNet",
        re.compile(r"(.*?)embedder\.embedder\.convolution\.weight"),
        (
            (r"embedder\.embedder\.convolution\.(.*)", r"conv1.\1"),
            (r"embedder\.embedder\.normalization\.(.*)", r"bn1.\1"),
            *(rule for stage in range(4) for rule in _hf_resnet_stage(stage)),
        ),
        beside=((r"classifier\.1\.(.*)", r"fc.\1"),),
    ),
)
