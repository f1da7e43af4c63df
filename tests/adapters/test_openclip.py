"""open_clip's models by name and file: the tower's features, its preprocessing and its texts are open_clip's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import bench
from bench.card import Transform
from bench.errors import BenchError

library = pytest.importorskip("open_clip", reason="the extra openclip is not installed")

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny-vit": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": TEXT,
    },
    "tiny-vit-avg": {
        "embed_dim": 24,
        "custom_text": True,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16, "pool_type": "avg",
            "no_ln_pre": True,
        },
        "text_cfg": {**TEXT, "pool_type": "last", "proj_bias": True},
    },
    "tiny-late": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16, "final_ln_after_pool": True,
        },
        "text_cfg": TEXT,
    },
    "tiny-coca": {
        "embed_dim": 32,
        "vision_cfg": {
            "image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16, "attentional_pool": True,
            "attn_pooler_queries": 8, "attn_pooler_heads": 4, "output_tokens": True,
        },
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True, "context_length": 76},
        "multimodal_cfg": {
            "context_length": 76, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1, "attn_pooler_heads": 4,
        },
        "custom_text": True,
    },
    "tiny-rn": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    "tiny-timm": {
        "embed_dim": 24,
        "vision_cfg": {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "mlp", "image_size": 64},
        "text_cfg": TEXT,
    },
    "tiny-timm-pooled": {
        "embed_dim": 24,
        "vision_cfg": {"timm_model_name": "resnet10t", "timm_pool": "rot_attn", "timm_proj": "", "image_size": 64},
        "text_cfg": TEXT,
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def configs(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("configs")
    for name, config in CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    library.add_model_config(folder)


def model_of(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = library.create_model(name, pretrained_image=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # zeros and ones of the initialisation hide mistakes
            if parameter.ndim:
                whole = bool(parameter.isfinite().all() and parameter.abs().max() < 100)  # some are left as memory was
                parameter.copy_((parameter if whole else 0) + 0.02 * torch.randn_like(parameter))
    return model


def file_of(folder: Path, model: Any, wrap: bool = False) -> Path:
    state = model.state_dict()
    content = {"epoch": 1, "state_dict": {f"module.{k}": v for k, v in state.items()}} if wrap else state
    torch.save(content, folder / "weights.pt")
    return folder / "weights.pt"


@pytest.mark.parametrize("name", CONFIGS)
def test_image_and_texts_are_those_of_open_clip(tmp_path: Path, name: str) -> None:
    model = model_of(name)
    backbone = bench.load(f"openclip:{name}?weights={file_of(tmp_path, model, wrap=name == 'tiny-rn')}")
    card = backbone.card
    size = CONFIGS[name]["vision_cfg"]["image_size"]
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    texts = ["a photo of a cat.", "a photo of many long-eared owls, seen from afar"]
    tower = backbone.text_tower()
    with torch.no_grad():
        out = backbone.features(images)
        ours, theirs = tower.project(out["pooled"]), library.create_model(name, pretrained_image=False)
        theirs.load_state_dict(model.state_dict())
        theirs.eval()
        # CoCa normalises in either direction.
        for mine, its in (
            (ours, theirs.encode_image(images)),
            (tower.embed(texts, torch.device("cpu")), theirs.encode_text(library.get_tokenizer(name)(texts))),
        ):
            mine, its = (torch.nn.functional.normalize(t, dim=-1) for t in (mine, its))
            torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)
    assert {key: value.shape[1] for key, value in out.items()} == card.dims
    assert card.text is not None
    assert card.coverage is not None
    assert card.coverage.filled == card.coverage.total == len(model.state_dict())
    assert tower.scale == pytest.approx(float(model.logit_scale.detach().exp()))
    expected = Transform(
        resize=size,
        crop=size,
        interpolation="bicubic",
        mean=library.OPENAI_DATASET_MEAN,
        std=library.OPENAI_DATASET_STD,
    )
    assert card.transform == expected
    for level, stride, channels in zip(
        backbone.pyramid(images) if card.strides else [], card.strides, card.channels, strict=True
    ):
        assert level.shape == (3, channels, size // stride, size // stride)


def test_the_transform_is_open_clips_own(tmp_path: Path) -> None:
    """On a real image, through open_clip's preprocessing and through ours."""
    import numpy as np
    from PIL import Image

    backbone = bench.load(f"openclip:tiny-vit?weights={file_of(tmp_path, model_of('tiny-vit'))}")
    *_, preprocess = library.create_model_and_transforms("tiny-vit", pretrained_image=False)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    torch.testing.assert_close(backbone.preprocess(image), preprocess(image), rtol=0, atol=1e-6)


def test_blocks_and_class_token(tmp_path: Path) -> None:
    model = model_of("tiny-vit")
    backbone = bench.load(f"openclip:tiny-vit?weights={file_of(tmp_path, model)}")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        out, blocks = backbone.features(images), backbone.blocks(images, n=2)
        last, token = blocks[-1]
        assert last.shape == (2, 16, 64)
        torch.testing.assert_close(token, out["cls"])
        torch.testing.assert_close(last.mean(1), out["avg"])
        torch.testing.assert_close(out["pooled"], out["cls"])
        (plain, _) = backbone.blocks(images, n=1, norm=False)[0]
        torch.testing.assert_close(backbone.network.ln_post(plain), last)
    with pytest.raises(BenchError, match="has 3 blocks"):
        backbone.blocks(images, n=4)
    with pytest.raises(BenchError, match="takes images of 32x32 pixels, not 48x48"):
        backbone.features(torch.zeros(1, 3, 48, 48))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = model_of("tiny-vit")
    state = model.state_dict()
    path = tmp_path / "w.pt"

    def refused(content: Any, sentence: str, name: str = "tiny-vit") -> None:
        torch.save(content, path)
        with pytest.raises(BenchError, match=sentence):
            bench.load(f"openclip:{name}?weights={path}")

    refused(
        {k: v for k, v in state.items() if "resblocks.1" not in k or "visual" in k}, "missing transformer.resblocks.1"
    )
    refused({**state, "visual.proj": state["visual.proj"].T}, r"wrong shape visual.proj \(file 24x64, model 64x24\)")
    refused({**state, "extra.weight": torch.ones(2)}, "without a place extra.weight")
    refused({**state, "logit_scale": torch.tensor(float("nan"))}, "NaN or infinite values in logit_scale")
    refused({"fc.weight": torch.ones(2, 2)}, "holds no weights of open_clip's names")
    refused(state, "of open_clip's tiny-rn", name="tiny-rn")
    with pytest.raises(BenchError, match="open_clip has no model 'ViT-B-33'; nearest: ViT-B-32"):
        bench.load("openclip:ViT-B-33/openai")
    with pytest.raises(BenchError, match="no weights 'laion3b' for ViT-B-32"):
        bench.load("openclip:ViT-B-32/laion3b")
    with pytest.raises(
        BenchError, match=r"several weights of ViT-B-32: write openclip:ViT-B-32/TAG; there are: openai"
    ):
        bench.load("openclip:ViT-B-32")
    with pytest.raises(BenchError, match=r"no weights for tiny-vit: give a checkpoint as openclip:tiny-vit\?weights"):
        bench.load("openclip:tiny-vit")
    with pytest.raises(BenchError, match="unknown choice 'weight'"):
        bench.load("openclip:tiny-vit?weight=x")
    with pytest.raises(BenchError, match="there is no file"):
        bench.load(f"openclip:tiny-vit?weights={tmp_path}/none.pt")
    with pytest.raises(BenchError, match="--arch"):
        bench.load("openclip:tiny-vit/x", arch="resnet18")


def test_the_average_is_read_before_the_weights(tmp_path: Path) -> None:
    plain, ema = model_of("tiny-vit", 1), model_of("tiny-vit", 2)
    torch.save({"state_dict": plain.state_dict(), "state_dict_ema": ema.state_dict()}, tmp_path / "w.pt")
    spec = f"openclip:tiny-vit?weights={tmp_path / 'w.pt'}"
    averaged, asked = bench.load(spec), bench.load(spec, weights_key="state_dict")
    assert averaged.card.weights_key == "state_dict_ema"
    torch.testing.assert_close(averaged.network.ln_post.weight, ema.visual.ln_post.weight)
    torch.testing.assert_close(asked.network.ln_post.weight, plain.visual.ln_post.weight)
    assert averaged.card.weight_digest != asked.card.weight_digest


def test_released_weights_take_their_tags_preprocessing_and_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("tiny-vit")
    path = file_of(tmp_path, model)
    config = {
        "hf_hub": "someone/tiny/", "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "bilinear",
        "resize_mode": "squash", "quick_gelu": True,
    }  # fmt: skip
    monkeypatch.setattr(library, "list_pretrained_tags_by_model", lambda name: ["mine"])
    monkeypatch.setattr(library, "get_pretrained_cfg", lambda name, tag: config)
    monkeypatch.setattr(library, "download_pretrained", lambda config: str(path))
    backbone = bench.load("openclip:tiny-vit/mine")
    card = backbone.card
    assert card.name == "tiny-vit-mine"
    assert card.architecture == "openclip:tiny-vit+quickgelu"
    assert card.transform == Transform(
        resize=(32, 32), crop=None, interpolation="bilinear", mean=(0.5,) * 3, std=(0.25,) * 3
    )
    quick = library.create_model("tiny-vit", force_quick_gelu=True).eval()
    quick.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        ours = backbone.text_tower().project(backbone.features(images)["pooled"])
        torch.testing.assert_close(ours, quick.encode_image(images))
    # A file of that configuration takes what all of its releases share.
    assert bench.load(f"openclip:tiny-vit?weights={path}").card.transform == card.transform

    def unreachable(config: Any) -> str:
        raise OSError("no route")

    monkeypatch.setenv("BENCH_OFFLINE", "0")
    monkeypatch.setattr(library, "download_pretrained", unreachable)
    with pytest.raises(BenchError, match=r"cannot be had from someone/tiny/ \(no route\)"):
        bench.load("openclip:tiny-vit/mine")
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    with pytest.raises(BenchError, match="BENCH_OFFLINE is set and it is not in the hub's local cache"):
        bench.load("openclip:tiny-vit/mine")
    monkeypatch.setattr(library, "download_pretrained", lambda config: pytest.fail("asked the network"))
    config |= {"hf_hub": "", "url": "https://example.org/weights/none-0123.pt"}
    with pytest.raises(BenchError, match="BENCH_OFFLINE is set and the file is not in open_clip's cache"):
        bench.load("openclip:tiny-vit/mine")


def test_a_folder_with_its_configuration(tmp_path: Path) -> None:
    model = model_of("tiny-vit")
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "interpolation": "bicubic", "resize_mode": "shortest"}
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIGS["tiny-vit"], "preprocess_cfg": preprocess})
    )
    with pytest.raises(BenchError, match="holds none of open_clip_model.safetensors"):
        bench.load(f"openclip:{tmp_path}")
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    card = bench.load(f"openclip:{tmp_path}").card
    assert card.transform == Transform(resize=32, crop=32, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))


def test_a_relative_file_is_made_absolute_in_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.request import placed

    file_of(tmp_path, torch.nn.Linear(1, 1))
    monkeypatch.chdir(tmp_path)
    assert placed("openclip:tiny-vit?weights=weights.pt") == f"openclip:tiny-vit?weights={tmp_path / 'weights.pt'}"
    assert placed("openclip:ViT-B-32/openai") == "openclip:ViT-B-32/openai"


@pytest.mark.parametrize("name", ["tiny-coca", "tiny-vit-avg"])
def test_a_bare_file_of_an_own_design_names_its_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"openclip:NAME\?weights=FILE reads such a checkpoint"):
        bench.load(file_of(tmp_path, model_of(name), wrap=True))
