"""Zero-shot classification: by hand, against open_clip's own classifier, and what its texts are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import suitehelp
import torch
from torch import Tensor

import bench
from bench.backbone import Backbone
from bench.errors import BenchError
from bench.featureset import ArrayFeatureSet
from bench.texttower import TextTower
from suites import zeroshot
from suites.prompting import imagenet_names, prompts_of, published
from suites.zeroshot import ZeroShot, _class_weights


class Tower(TextTower):
    """Texts by a table; images are turned by a quarter."""

    digest = "sha256:tower"
    scale = 2.0

    def __init__(self, table: dict[str, Sequence[float]]) -> None:
        self.table = table
        self.seen: list[str] = []

    def embed(self, texts: Sequence[str], device: torch.device) -> Tensor:
        self.seen += texts
        return torch.tensor([self.table[text] for text in texts], dtype=torch.float32)

    def project(self, pooled: Tensor) -> Tensor:
        return pooled @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])


class Fake(Backbone):
    def features(self, images: Tensor) -> dict[str, Tensor]:
        raise AssertionError("the features are given")

    def pyramid(self, images: Tensor) -> list[Tensor]:
        raise AssertionError


def task_of(x: Any, y: Any, tower: TextTower, classes: dict[int, str], dataset: str = "arrays", **options: Any) -> Any:
    made = suitehelp.task("zeroshot", (x, y), (x, y), **options)
    test = ArrayFeatureSet(
        {"pooled": np.asarray(x, dtype=np.float32)}, np.asarray(y), dataset=dataset, split="test",
        fingerprint="sha256:test", classes=classes,
    )  # fmt: skip
    backbone = Fake()
    backbone.text_source = lambda: tower
    made.data = {"test": test}
    made.backbone = backbone
    made.card = made.card.model_copy(update={"text": "a table", "dims": {"pooled": 2}})
    backbone.card = made.card
    return made


def test_an_interrupted_run_embeds_no_text_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeroshot, "TEXTS", 2)
    names = {i: f"n{i}" for i in range(5)}
    table = {f"a {name}": [1.0, float(i)] for i, name in names.items()}
    (tmp_path / "templates.txt").write_text("a {}\n")
    x, y = np.eye(2)[[0, 1, 0, 1, 0]], np.arange(5)
    options = {"templates": str(tmp_path / "templates.txt")}

    class Interrupted(Tower):
        def embed(self, texts: Sequence[str], device: torch.device) -> Tensor:
            if len(self.seen) == 4:
                raise KeyboardInterrupt
            return super().embed(texts, device)

    def weights(tower: Tower, folder: Path | None) -> np.ndarray:
        made = task_of(x, y, tower, names, **options)
        made.folder = folder
        return _class_weights(made, tower, prompts_of(made.data["test"], options["templates"]))

    with pytest.raises(KeyboardInterrupt):
        weights(Interrupted(table), tmp_path / "work")
    again = Tower(table)
    found = weights(again, tmp_path / "work")
    assert again.seen == ["a n4"]
    np.testing.assert_array_equal(found, weights(Tower(table), None))
    # What something else damaged is embedded again.
    for path in (tmp_path / "work").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    again = Tower(table)
    np.testing.assert_array_equal(weights(again, tmp_path / "work"), found)
    assert again.seen == list(table)


def test_by_hand(tmp_path: Path) -> None:
    """Two prompts a class; the third image lies between the classes and is nearer to the second."""
    (tmp_path / "templates.txt").write_text("a {}\n\nthe {}, a {}\n")
    table = {
        "a cat": [1, 0], "the cat, a cat": [5, 0],  # lengths do not count: the mean is (1, 0)
        "a sea dog": [0, 2], "the sea dog, a sea dog": [0.6, 0.8],  # mean (0.3, 0.9), of length 1: (0.3162, 0.9487)
    }  # fmt: skip
    tower = Tower(table)
    # Turned, (0, -3) lies at (3, 0), (1, 0) at (0, 1), and (0.8, -0.6) at (0.6, 0.8).
    x, y = [[0, -3], [1, 0], [0.8, -0.6], [1, 0]], [7, 40, 7, 40]
    made = task_of(x, y, tower, {7: "cat", 40: "sea_dog"}, templates=str(tmp_path / "templates.txt"))
    found = {m.metric: m for m in ZeroShot().evaluate(made)}
    assert tower.seen == list(table)
    assert found["top1"].value == 75
    assert found["top5"].value == 100
    assert found["mean_per_class"].value == 75
    assert found["top1"].headline
    assert found["top1"].interval is not None
    outcomes = made.outcomes[0].arrays
    assert outcomes["prediction"].tolist() == [7, 40, 40, 40]
    cosines = np.array([0.6, 0.6 * 0.3 / np.sqrt(0.9) + 0.8 * 0.9 / np.sqrt(0.9)])
    assert outcomes["score"][2] == pytest.approx(np.exp(2 * cosines[0]) / np.exp(2 * cosines).sum(), rel=1e-6)
    assert found["top1"].details["class_names"] == ["cat", "sea dog"]
    assert found["top1"].details["text_digest"] == "sha256:tower"
    assert found["top1"].protocol == f"zeroshot/openai@1+templates={tmp_path / 'templates.txt'}"


def test_permuting_images_and_classes_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    names = [f"thing {letter}" for letter in "abcdefg"]
    table = {f"a photo of a {name}.": rng.normal(size=2).tolist() for name in names}
    x, y = rng.normal(size=(40, 2)), rng.integers(0, 7, 40)
    classes = dict(enumerate(names))
    first = [m.value for m in ZeroShot().evaluate(task_of(x, y, Tower(table), classes))]
    order, moved = rng.permutation(40), rng.permutation(7)
    other = {int(moved[label]): name for label, name in classes.items()}
    second = [m.value for m in ZeroShot().evaluate(task_of(x[order], moved[y[order]], Tower(table), other))]
    assert first == second
    assert 0 < first[0] < 100


def test_classes_without_a_sample_may_be_answered() -> None:
    table = {"a photo of a cat.": [0, 1], "a photo of a dog.": [1, 0], "a photo of a cow.": [0, -1]}
    made = task_of([[0, -1], [1, 0]], [0, 0], Tower(table), {0: "cat", 1: "dog", 2: "cow"})
    found = {m.metric: m.value for m in ZeroShot().evaluate(made)}
    # The first lies at (1, 0): a dog, of which the split has none.
    assert found["top1"] == 50
    assert found["mean_per_class"] == 50


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    library = pytest.importorskip("open_clip", reason="the extra openclip is not installed")
    folder = tmp_path_factory.mktemp("zeroshot")
    config = {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {"image_size": 28, "layers": 1, "width": 32, "head_width": 16, "patch_size": 14},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / "tiny-zeroshot.json").write_text(json.dumps(config))
    library.add_model_config(folder)
    torch.manual_seed(3)
    model = library.create_model("tiny-zeroshot").eval()
    torch.save(model.state_dict(), folder / "w.pt")
    return model, f"openclip:tiny-zeroshot?weights={folder / 'w.pt'}"


def test_the_classifier_is_open_clips(tiny: tuple[Any, str]) -> None:
    import open_clip

    model, spec = tiny
    tokenize = open_clip.get_tokenizer("tiny-zeroshot")
    names = ["tabby cat", "great white shark", "crane (bird)"]
    theirs = open_clip.build_zero_shot_classifier(model, tokenize, names, open_clip.OPENAI_IMAGENET_TEMPLATES)
    backbone = bench.load(spec)
    made = task_of([[0, 1]], [0], Tower({}), dict(enumerate(names)), templates="imagenet")
    prompts = prompts_of(made.data["test"], "imagenet")
    ours = _class_weights(made, backbone.text_tower(), prompts)
    assert np.abs(ours - theirs.numpy()).max() < 1e-6


def test_from_the_command_line_to_the_record(tiny: tuple[Any, str], tmp_path: Path) -> None:
    """The whole way on images, judged a second time with open_clip's preprocessing, towers and classifier."""
    import open_clip

    from bench.data.opening import open_data

    model, spec = tiny
    record = bench.run(spec, ["zeroshot"], "demo", limit=60, runs=tmp_path)
    top1 = next(m for m in record.measurements if m.metric == "top1")
    assert top1.selection == "none"
    assert top1.feature == {"tokens": "cls, projected", "layers": 1, "norm": "l2"}
    assert top1.outcomes is not None
    outcomes = np.load(tmp_path / top1.outcomes)
    names = top1.details["class_names"]
    *_, preprocess = open_clip.create_model_and_transforms("tiny-zeroshot")
    classifier = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer("tiny-zeroshot"), names, ["a photo of a {}."]
    )
    test = open_data("demo").test
    rows = [test.ids.index(name) for name in _ids(record, 60)]
    images = torch.stack([preprocess(test.image(row)) for row in rows])
    with torch.no_grad():
        expected = (model.encode_image(images, normalize=True) @ classifier).argmax(1).numpy()
    np.testing.assert_array_equal(outcomes["prediction"], np.array(sorted(set(test.class_ids)))[expected])
    hits = (outcomes["prediction"] == test.labels[rows]).sum()
    assert top1.value == pytest.approx(100 * hits / 60)


def _ids(record: Any, n: int) -> Sequence[str]:
    from bench.data.opening import limited, open_data

    return limited(open_data("demo").test, n).ids


@pytest.mark.parametrize(
    ("dataset", "classes", "count", "first"),
    [
        ("cifar100", {0: "apple", 1: "aquarium_fish"}, 18, "a photo of a apple."),
        ("cifar100[50 of 10000]", {0: "apple", 1: "aquarium_fish"}, 18, "a photo of a apple."),
        ("dtd", {0: "banded", 1: "dotted"}, 8, "a photo of a banded texture."),
        ("mnist", {0: "0", 1: "1"}, 1, 'a photo of the number: "0".'),
        ("of-mine", {0: "left", 1: "right"}, 1, "a photo of a left."),
        ("imagenet-r", {1: "n01443537", 2: "n01484850"}, 80, "a bad photo of a goldfish."),
    ],
)
def test_the_texts_of_a_data_set(dataset: str, classes: dict[int, str], count: int, first: str) -> None:
    made = suitehelp.feature_set([[1, 0]], [next(iter(classes))], "test", classes=classes)
    made.dataset = dataset
    prompts = prompts_of(made, "auto")
    assert len(prompts.templates) == count
    assert prompts.texts()[0] == first
    assert len(prompts.texts()) == 2 * count
    assert prompts_of(made, "plain").texts()[0] == f"a photo of a {prompts.names[0]}."
    assert len(prompts_of(made, "imagenet").templates) == 80


def test_imagenet_by_its_wnids_has_the_published_names() -> None:
    library = pytest.importorskip("open_clip", reason="the extra openclip is not installed")
    assert imagenet_names() == list(library.IMAGENET_CLASSNAMES)
    assert published()["imagenet"] == [template("{}") for template in library.OPENAI_IMAGENET_TEMPLATES]
    wnids = {i: f"n{i:08d}" for i in range(1000)}
    made = suitehelp.feature_set([[1, 0]], [0], "test", classes=wnids)
    made.dataset = "somebody's folder"
    prompts = prompts_of(made, "auto")
    assert prompts.names[:2] == ["tench", "goldfish"]
    assert len(prompts.templates) == 80


def test_texts_that_cannot_be(tmp_path: Path) -> None:
    made = suitehelp.feature_set([[1, 0]], [0], "test", classes={0: "cat", 1: "dog"})

    def refused(sentence: str, templates: str = "auto", names: str = "own", **classes: str) -> None:
        made.classes = dict(enumerate(classes.values())) or {0: "cat", 1: "dog"}
        with pytest.raises(BenchError, match=sentence):
            prompts_of(made, templates, names)

    path = tmp_path / "file.txt"
    refused(
        "zeroshot.templates: .*none.txt cannot be read .*give auto, plain, imagenet, or a file", f"{tmp_path}/none.txt"
    )
    path.write_text("a photo\n")
    refused(r"has a line without \{\}.*'a photo'", str(path))
    refused("has 1 names and arrays 2 classes", names=str(path))
    path.write_text("\n\n")
    refused("holds no lines", names=str(path))
    path.write_bytes(b"\xff\xfe\x00")
    refused("cannot be read", names=str(path))
    refused("calls a class '3', which is no word", a="3", b="dog")
    refused("calls a class 'n01440764', which is no word", a="n01440764", b="n01443537")
    refused("two classes of arrays have the name 'sea dog'", a="sea_dog", b="sea dog")
    refused("has a single class", a="cat")
    path.write_text("one\ntwo\n")
    made.classes = {3: "3", 9: "9"}
    assert prompts_of(made, "plain", str(path)).names == ["one", "two"]


def test_networks_without_texts_and_data_of_another_kind() -> None:
    suite = ZeroShot()
    made = suitehelp.task("zeroshot", ([[1, 0]], [0]), ([[1, 0]], [0]))
    with pytest.raises(BenchError, match="'arrays' .* has no text tower: give a CLIP or SigLIP folder"):
        suite.needs(made.protocol, made.card)
    several = task_of([[1, 0]], [[1, -1]], Tower({}), {0: "a", 1: "b"})
    with pytest.raises(BenchError, match="many labels an image"):
        list(suite.evaluate(several))
    wide = Tower({"a photo of a a.": [1, 0, 0], "a photo of a b.": [0, 1, 0]})
    with pytest.raises(BenchError, match="lie in 2 dimensions and its texts in 3"):
        list(suite.evaluate(task_of([[1, 0]], [0], wide, {0: "a", 1: "b"})))
    broken = Tower({"a photo of a a.": [1, float("nan")], "a photo of a b.": [0, 1]})
    with pytest.raises(BenchError, match="values that are not finite"):
        list(suite.evaluate(task_of([[1, 0]], [0], broken, {0: "a", 1: "b"})))
