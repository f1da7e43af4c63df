"""Dense layers after a sentence-transformers folder's pooling: by hand, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from texthelp import encoder

from adapters import path as paths
from bench.dataset import Text
from bench.errors import BenchError

pytest.importorskip("transformers")
TANH = "torch.nn.modules.activation.Tanh"


def dense(folder: Path, name: str, wide: int, out: int, activation: str = TANH, **more: Any) -> dict[str, torch.Tensor]:
    """A dense module's sub-folder; its tensors."""
    torch.manual_seed(len(name) + out)
    tensors = {"linear.weight": torch.randn(out, wide), "linear.bias": torch.randn(out)}
    config = {"in_features": wide, "out_features": out, "bias": True, "activation_function": activation, **more}
    if not config["bias"]:
        del tensors["linear.bias"]
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / name / "model.safetensors")
    return tensors


def folder_with(tmp_path: Path, *kinds: str) -> Path:
    folder = encoder(tmp_path / "e")
    names = ["Transformer", "Pooling", *kinds]
    modules = [
        {"idx": i, "path": "" if i == 0 else f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(names)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return folder


def seen(backbone: Any) -> dict[str, np.ndarray]:
    samples = [Text("the cat sat on the mat"), Text("a dog ran")]
    rows = torch.stack([backbone.preprocess(one) for one in samples])
    with torch.no_grad():
        return {name: value.double().numpy() for name, value in backbone.features(rows).items()}


def test_the_feature_is_what_the_modules_make_of_the_mean(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "Dense", "Dense", "Normalize")
    one = dense(folder, "2_Dense", 16, 5)
    two = dense(folder, "3_Dense", 5, 7, "torch.nn.modules.linear.Identity", bias=False)
    backbone = paths.load(str(folder))
    found = seen(backbone)
    made = np.tanh(found["avg"] @ one["linear.weight"].double().numpy().T + one["linear.bias"].double().numpy())
    made = made @ two["linear.weight"].double().numpy().T
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    assert found["pooled"] == pytest.approx(made, abs=1e-5)
    card = backbone.card
    assert (card.feature, card.dims["pooled"], card.dims["avg"]) == ("mean, dense 5 tanh, dense 7, L2", 7, 16)
    assert card.coverage.filled == card.coverage.total == len(backbone.network.state_dict()) + 3
    assert card.parameters == sum(p.numel() for p in backbone.parameters())


def test_length_one_before_a_dense_layer_is_another_feature(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "Normalize", "Dense")
    layer = dense(folder, "3_Dense", 16, 5)
    found = seen(paths.load(str(folder)))
    unit = found["avg"] / np.linalg.norm(found["avg"], axis=1, keepdims=True)
    made = np.tanh(unit @ layer["linear.weight"].double().numpy().T + layer["linear.bias"].double().numpy())
    assert found["pooled"] == pytest.approx(made, abs=1e-5)


def test_other_weights_are_another_network(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "Dense")
    tensors = dense(folder, "2_Dense", 16, 5)
    first = paths.load(str(folder)).card.weight_digest
    tensors["linear.bias"][0] += 1
    save_file(tensors, folder / "2_Dense" / "model.safetensors")
    assert paths.load(str(folder)).card.weight_digest != first


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"in_features": 12}, "describes linear.weight .5, 12.*has it as .5, 16"),
        ({"activation_function": "my.Own"}, "asks for the activation 'Own'"),
        ({"bias": False}, "without a place in its dense layer, such as linear.bias"),
        ({"out_features": "many"}, "states no in_features"),
        ({"module_input_name": "token_embeddings"}, "at 'token_embeddings', and here it follows the pooling"),
    ],
)
def test_a_layer_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], refusal: str) -> None:
    folder = folder_with(tmp_path, "Dense")
    dense(folder, "2_Dense", 16, 5)
    path = folder / "2_Dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BenchError, match=refusal):
        paths.load(str(folder))


def test_widths_files_and_values_are_checked(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "Dense")
    with pytest.raises(BenchError, match=r"lacks 2_Dense/config\.json"):
        paths.load(str(folder))
    dense(folder, "2_Dense", 9, 5)
    with pytest.raises(BenchError, match="takes 9 numbers, and the module before it gives 16"):
        paths.load(str(folder))
    tensors = dense(folder, "2_Dense", 16, 5)
    tensors["linear.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(BenchError, match="NaN or infinite"):
        paths.load(str(folder))
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["path"] = "../elsewhere"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(BenchError, match=r"a Dense at '\.\./elsewhere', which is no sub-folder"):
        paths.load(str(folder))
