"""The dialects, one row each. Names on the left are official code's, on the right timm's."""

from __future__ import annotations

import re

from adapters.dialects.dialect import (
    Dialect,
    batch_dimensions,
    class_position_apart,
    flat_normalisation,
    in_blocks,
    refuse_merged,
    share_position_biases,
    split_attention_bias,
    unfolded_merging,
)

_RESBLOCK = (
    (r"ln_([12])\.(.*)", r"norm\1.\2"),
    (r"attn\.in_proj_(.*)", r"attn.qkv.\1"),
    (r"attn\.out_proj\.(.*)", r"attn.proj.\1"),
    (r"mlp\.c_fc\.(.*)", r"mlp.fc1.\1"),
    (r"mlp\.c_proj\.(.*)", r"mlp.fc2.\1"),
)
_MM_BLOCK = (
    (r"ln([12])\.(.*)", r"norm\1.\2"),
    (r"attn\.gamma1\.weight", r"ls1.gamma"),
    (r"ffn\.gamma2\.weight", r"ls2.gamma"),
    (r"ffn\.layers\.0\.0\.(.*)", r"mlp.fc1.\1"),
    (r"ffn\.layers\.1\.(.*)", r"mlp.fc2.\1"),
)
_TORCHVISION_BLOCK = (
    (r"ln_([12])\.(.*)", r"norm\1.\2"),
    (r"self_attention\.in_proj_(.*)", r"attn.qkv.\1"),
    (r"self_attention\.out_proj\.(.*)", r"attn.proj.\1"),
    (r"mlp\.(?:0|linear_1)\.(.*)", r"mlp.fc1.\1"),
    (r"mlp\.(?:3|linear_2)\.(.*)", r"mlp.fc2.\1"),
)

OFFICIAL: tuple[Dialect, ...] = (
    Dialect(
        "torchvision ViT",
        re.compile(r"(.*?)encoder\.layers\.encoder_layer_0\.ln_1\.weight"),
        (
            (r"class_token", "cls_token"),
            (r"conv_proj\.(.*)", r"patch_embed.proj.\1"),
            (r"encoder\.pos_embedding", "pos_embed"),
            (r"encoder\.ln\.(.*)", r"norm.\1"),
            (r"heads\.head\.(.*)", r"head.\1"),
            *in_blocks(r"encoder\.layers\.encoder_layer_(\d+)\.", _TORCHVISION_BLOCK),
        ),
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
        "CLIP",
        re.compile(r"(.*?)class_embedding"),  # the image tower's alone
        (
            (r"class_embedding", "cls_token"),
            (r"positional_embedding", "pos_embed"),
            (r"conv1\.weight", "patch_embed.proj.weight"),
            (r"ln_pre\.(.*)", r"norm_pre.\1"),
            (r"ln_post\.(.*)", r"norm.\1"),
            (r"proj", "projection.weight"),
            *in_blocks(r"transformer\.resblocks\.(\d+)\.", _RESBLOCK),
        ),
        (batch_dimensions,),
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
        # andreasveit's code
        "DenseNet-BC",
        re.compile(r"(|.*\.)block1\.layer\.0\.conv2\.weight"),
        ((r"block(\d)\.layer\.(.*)", r"dense\1.\2"), (r"bn1\.(.*)", r"bn.\1")),
    ),
    Dialect(
        # gpleiss' code, and torchvision's class with a stem for small images
        "DenseNet-BC",
        re.compile(r"(|.*\.)features\.denseblock1\.denselayer1\.norm1\.weight"),
        (
            (r"features\.conv0\.(.*)", r"conv1.\1"),
            *(
                (rf"features\.denseblock(\d)\.denselayer{i + 1}\.norm([12])\.(.*)", rf"dense\1.{i}.bn\2.\3")
                for i in range(42)
            ),
            *(
                (rf"features\.denseblock(\d)\.denselayer{i + 1}\.conv([12])\.(.*)", rf"dense\1.{i}.conv\2.\3")
                for i in range(42)
            ),
            (r"features\.transition(\d)\.norm\.(.*)", r"trans\1.bn1.\2"),
            (r"features\.transition(\d)\.conv\.(.*)", r"trans\1.conv1.\2"),
            (r"features\.norm(?:3|4|5|_final)\.(.*)", r"bn.\1"),
            (r"classifier\.(.*)", r"fc.\1"),
        ),
    ),
    Dialect(
        "mmpretrain ViT",
        re.compile(r"(.*?)layers\.0\.ffn\.layers\.0\.0\.weight"),
        (
            (r"patch_embed\.projection\.(.*)", r"patch_embed.proj.\1"),
            (r"pre_norm\.(.*)", r"norm_pre.\1"),
            (r"(?:ln1|norm1)\.(.*)", r"norm.\1"),
            (r"ln2\.(.*)", r"fc_norm.\1"),
            (r"mask_token", ""),
            *in_blocks(r"layers\.(\d+)\.", _MM_BLOCK),
        ),
        beside=((r"head\.layers\.head\.(.*)", r"head.\1"),),
    ),
    Dialect(
        "mmpretrain Swin",
        re.compile(r"(.*?)stages\.0\.blocks\.0\.attn\.w_msa\.qkv\.weight"),
        (
            (r"mask_token", ""),
            (r"patch_embed\.projection\.(.*)", r"patch_embed.proj.\1"),
            *((rf"stages\.{i}\.downsample\.(.*)", rf"layers.{i + 1}.downsample.\1") for i in range(3)),
            (r"stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.(.*)", r"layers.\1.blocks.\2.attn.\3"),
            (r"stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.(.*)", r"layers.\1.blocks.\2.mlp.fc1.\3"),
            (r"stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.1\.(.*)", r"layers.\1.blocks.\2.mlp.fc2.\3"),
            (r"stages\.(\d+)\.blocks\.(\d+)\.(.*)", r"layers.\1.blocks.\2.\3"),
            (r"norm3\.(.*)", r"norm.\1"),
        ),
        (unfolded_merging,),
        beside=((r"head\.fc\.(.*)", r"head.fc.\1"),),
    ),
    Dialect(
        "mmpretrain ResNet",
        re.compile(r"(backbone\.)layer1\.0\.conv1\.weight"),
        (),
        beside=((r"head\.fc\.(.*)", r"fc.\1"),),
    ),
    Dialect(
        # What MoCo's and torchvision's converters for detectron2 write, and detectors that began with it.
        "detectron2 ResNet",
        re.compile(r"(|.*\.)res2\.0\.conv1\.weight"),
        (
            (r"stem\.conv1\.weight", "conv1.weight"),
            (r"stem\.conv1\.norm\.(.*)", r"bn1.\1"),
            *(
                (rf"res{stage + 1}\.(\d+)\.{theirs}", rf"layer{stage}.\1.{ours}")
                for stage in range(1, 5)
                for theirs, ours in (
                    (r"conv(\d)\.norm\.(.*)", r"bn\2.\3"),
                    (r"shortcut\.norm\.(.*)", r"downsample.1.\2"),
                    (r"shortcut\.(.*)", r"downsample.0.\2"),
                    (r"(.*)", r"\2"),
                )
            ),
        ),
        (refuse_merged,),
    ),
    Dialect(
        # torch.nn.Sequential(*resnet.children()): the stem's activation and pooling are numbered too.
        "sequence of a ResNet's parts",
        re.compile(r"(|.*\.)7\.0\.conv1\.weight"),
        (
            (r"0\.(.*)", r"conv1.\1"),
            (r"1\.(.*)", r"bn1.\1"),
            *((rf"{i + 3}\.(.*)", rf"layer{i}.\1") for i in range(1, 5)),
        ),
    ),
    Dialect(
        # The same of lightly's ResNet for small images, which keeps no activation and no pooling as parts.
        "sequence of a small ResNet's parts",
        re.compile(r"(|.*\.)2\.0\.conv1\.weight"),
        (
            (r"0\.(.*)", r"conv1.\1"),
            (r"1\.(.*)", r"bn1.\1"),
            *((rf"{i + 1}\.(.*)", rf"layer{i}.\1") for i in range(1, 5)),
        ),
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
