"""Text towers that come with weight files: against open_clip and transformers themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import bench
from adapters.clip_text import tower_of_checkpoint
from adapters.hf_text import tower_of_folder
from bench.errors import BenchError

TEXTS = ["a photo of a cat.", "cab"]
CPU = torch.device("cpu")


def _random(model: Any) -> Any:
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def library() -> Any:
    return pytest.importorskip("open_clip", reason="the extra openclip is not installed")


def _clip(quick: bool) -> Any:
    open_clip = library()
    vision = {"image_size": 224, "layers": 10, "width": 256, "head_width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    return _random(open_clip.CLIP(32, vision, text, quick_gelu=quick))


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_a_checkpoint_of_open_clip_brings_its_texts(tmp_path: Path, wrapper: str) -> None:
    open_clip = library()

    model = _clip(quick=False)
    torch.save({"state_dict": {wrapper + k: v for k, v in model.state_dict().items()}}, tmp_path / "w.pt")
    backbone = bench.load(tmp_path / "w.pt")
    assert backbone.card.text == "CLIP, by open_clip"
    tower = backbone.text_tower()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(
            tower.embed(TEXTS, CPU), model.encode_text(open_clip.tokenize(TEXTS)), rtol=1e-5, atol=1e-6
        )
        ours = tower.project(backbone.features(images)["pooled"])
        torch.testing.assert_close(ours, model.encode_image(images), rtol=1e-4, atol=1e-5)
    assert tower.scale == pytest.approx(float(model.logit_scale.detach().exp()))


def test_openais_activation(tmp_path: Path) -> None:
    open_clip = library()

    model = _clip(quick=True)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    tokens = open_clip.tokenize(TEXTS)
    with torch.no_grad():
        quick = tower_of_checkpoint(tmp_path / "w.pt", "visual", quick=True, trust=False).embed(TEXTS, CPU)
        plain = tower_of_checkpoint(tmp_path / "w.pt", "visual", quick=False, trust=False).embed(TEXTS, CPU)
        torch.testing.assert_close(quick, model.encode_text(tokens), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(quick, plain, rtol=1e-4, atol=1e-6)
    state = model.state_dict()
    torch.save({k: v for k, v in state.items() if "ln_final" not in k}, tmp_path / "w.pt")
    with pytest.raises(BenchError, match="the text tower of .* is not CLIP's"):
        tower_of_checkpoint(tmp_path / "w.pt", "visual", quick=True, trust=False)
    torch.save({k: v for k, v in state.items() if k.startswith("visual")}, tmp_path / "w.pt")
    with pytest.raises(BenchError, match=r"holds no text tower.*openclip:NAME\?weights=FILE"):
        tower_of_checkpoint(tmp_path / "w.pt", "visual", quick=True, trust=False)


def _tokenizer(folder: Path) -> None:
    """CLIP's tokenizer of single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz."
    names = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 20, "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture
def clip_folder(tmp_path: Path) -> tuple[Any, Path]:
    transformers = pytest.importorskip("transformers", reason="the extra text is not installed")
    config = transformers.CLIPConfig(
        text_config={
            "vocab_size": 57, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "eos_token_id": 56,
            "num_attention_heads": 2, "max_position_embeddings": 20, "bos_token_id": 55, "pad_token_id": 56,
        },
        vision_config={
            "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 10, "num_attention_heads": 4,
            "patch_size": 16, "image_size": 224, "hidden_act": "gelu",
        },
        projection_dim=24,
    )  # fmt: skip
    model = _random(transformers.CLIPModel(config))
    model.save_pretrained(tmp_path)
    return model, tmp_path


def test_a_clip_folder_of_hugging_face(clip_folder: tuple[Any, Path]) -> None:
    model, folder = clip_folder
    _tokenizer(folder)
    backbone = bench.load(folder)
    assert backbone.card.text == "Hugging Face CLIP, by transformers"
    tower = backbone.text_tower()
    import transformers

    tokens = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    assert tokens["input_ids"][1, 1] == 54  # c and a are joined by the folder's own merge
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        out = model(pixel_values=images, **tokens)
        ours, theirs = tower.embed(TEXTS, CPU), out.text_embeds
        for mine, its in ((ours, theirs), (tower.project(backbone.features(images)["pooled"]), out.image_embeds)):
            torch.testing.assert_close(mine / mine.norm(dim=-1, keepdim=True), its, rtol=1e-4, atol=1e-5)
    assert tower.scale == pytest.approx(float(model.logit_scale.detach().exp()))


def test_a_folder_without_a_tokenizer_or_with_half_a_tower(clip_folder: tuple[Any, Path]) -> None:
    from safetensors.torch import load_file, save_file

    _, folder = clip_folder
    with pytest.raises(BenchError, match="has no tokenizer that can be read"):
        bench.load(folder).text_tower()
    _tokenizer(folder)
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if name.startswith("text_model.") and "layers.1" in name)
    save_file({name: t for name, t in tensors.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(BenchError, match=r"the text tower of .* cannot be read: missing .*layers\.1"):
        bench.load(folder).text_tower()
    save_file({n: t for n, t in tensors.items() if not n.startswith("text_")}, folder / "model.safetensors")
    assert bench.load(folder).card.text is None


def test_siglips_texts(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra text is not installed")
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.SiglipConfig(
        text_config={**small, "vocab_size": 57, "max_position_embeddings": 20, "bos_token_id": 55, "eos_token_id": 56},
        vision_config={**small, "patch_size": 16, "image_size": 32},
    )
    model = _random(transformers.SiglipModel(config))
    model.save_pretrained(tmp_path)
    _tokenizer(tmp_path)
    tower = tower_of_folder(tmp_path, "siglip", trust=False)
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        TEXTS, padding="max_length", max_length=20, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        theirs = model.text_model(input_ids=tokens).pooler_output
        torch.testing.assert_close(tower.embed(TEXTS, CPU), theirs, rtol=1e-5, atol=1e-6)
    pooled = torch.randn(2, 32)
    assert tower.project(pooled) is pooled
