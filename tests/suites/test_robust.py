"""Robustness: every set among its own classes, any label of ReaL, mCE by hand, and one classifier for all sets."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

import bench
from bench import protocol
from bench.data.opening import open_data
from bench.data.robustness import CORRUPTIONS
from bench.errors import BenchError
from bench.featureset import ArrayFeatureSet
from suites import robust_sets
from suites.robust import corruption_error
from suites.robust_sets import ALEXNET, MADE, SETS, specs_of

WORDNET = ("n01440764", "n01443537", "n01484850", "n01491361")
MODEL = "demo:mobilenetv2@32"
FAST = {"robust.C": 1, "robust.replicates": 100}


def put(folder, names, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        pixels = np.random.default_rng(seed + i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name, format="PNG")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Four classes of ImageNet: two validation images each, numbered across the classes."""
    data = tmp_path / "data"
    monkeypatch.setenv("BENCH_DATA", str(data))
    for c, wordnet in enumerate(WORDNET):
        put(data / "imagenet" / "train" / wordnet, [f"{wordnet}_{i}.png" for i in range(3)], seed=10 * c)
        put(data / "imagenet" / "val" / wordnet, [f"ILSVRC2012_val_{n:08d}.png" for n in (c + 1, c + 5)], seed=100 + c)
    return data


def test_folders_are_matched_by_wordnet_id_or_by_number(root):
    put(root / "imagenet-r" / WORDNET[3], ["a.png"])
    put(root / "imagenet-r" / "imagenet-r" / WORDNET[1], ["a.png", "b.png"])
    put(root / "imagenet-r" / "imagenet-r" / WORDNET[3], ["c.png"])
    train, test = open_data("imagenet-r")
    assert (train.name, test.name) == ("imagenet", "imagenet-r")
    assert test.labels.tolist() == [1, 1, 3]
    assert (test.class_ids, test.classes) == ((1, 3), (WORDNET[1], WORDNET[3]))
    put(root / "imagenet-v2" / "2", ["a.png"])
    put(root / "imagenet-v2" / "0", ["b.png"])
    assert open_data("imagenet-v2").test.labels.tolist() == [0, 2]


def test_numbered_folders_are_ordered_as_numbers(root):
    for n in range(8):
        put(root / "imagenet" / "train" / f"n1{n:07d}", ["a.png"])
    for n in (2, 10, 11):
        put(root / "imagenet-v2" / str(n), ["a.png"])
    test = open_data("imagenet-v2").test
    assert test.labels.tolist() == [2, 10, 11]
    assert test.ids == ["2/a.png", "10/a.png", "11/a.png"]


def test_real_counts_the_images_that_have_a_label(root):
    (root / "imagenet-real").mkdir()
    (root / "imagenet-real" / "real.json").write_text(json.dumps([[0, 2], [1], [], [3], [], [], [2], [1]]))
    test = open_data("imagenet-real").test
    # In the folders' order: images 1 and 5, 2 and 6, 3 and 7, 4 and 8; 3, 5 and 6 have no label.
    assert [path[-5:-4] for path in test.ids] == ["1", "2", "7", "4", "8"]
    assert [np.flatnonzero(row == 1).tolist() for row in test.labels] == [[0, 2], [1], [2], [3], [1]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[[0]", "cannot be read as JSON"),
        ("{}", "not a list of lists of class numbers below 4"),
        ("[[4]]", "below 4"),
        ("[[true]]", "below 4"),
        ("[[0]]", r"n01440764/ILSVRC2012_val_00000005.png is no .* up to 1"),
        ("[[],[],[],[],[],[],[],[]]", "none of the 8 validation images"),
    ],
)
def test_a_list_that_is_not_reals(root, content, says):
    (root / "imagenet-real").mkdir()
    (root / "imagenet-real" / "real.json").write_text(content)
    with pytest.raises(BenchError, match=says):
        open_data("imagenet-real")


def test_refusals(root):
    put(root / "imagenet-a" / "n99999999", ["a.png"])
    with pytest.raises(BenchError, match=r"imagenet-a/n99999999 is none of the 4 classes"):
        open_data("imagenet-a")
    put(root / "imagenet-v2" / "4", ["a.png"])
    with pytest.raises(BenchError, match=r"imagenet-v2/4 is none of the 4 classes"):
        open_data("imagenet-v2")
    with pytest.raises(BenchError, match=r"no corruption with a severity: .*gaussian_noise"):
        open_data("imagenet-c:gausian_noise-3")
    (root / "imagenet-c").mkdir()
    with pytest.raises(BenchError, match=r"no .*imagenet-c/fog/3/ .*unpack weather.tar"):
        open_data("imagenet-c:fog-3")
    with pytest.raises(BenchError, match="no corruption"):
        open_data("imagenet-c:../fog-3")
    with pytest.raises(BenchError, match="'demo|mobilenet.* has no classifier of its own"):
        bench.run(MODEL, ["robust"], settings={"robust.classifier": "own"}, workers=0)


def test_a_probe_answers_all_sets_and_each_among_its_classes(root, tmp_path):
    put(root / "imagenet-a" / WORDNET[0], ["a.png", "b.png"], seed=7)
    put(root / "imagenet-a" / WORDNET[2], ["c.png"], seed=9)
    record = bench.run(MODEL, ["robust"], settings=FAST, workers=0, runs=tmp_path / "runs")
    heads = {m.dataset: m for m in record.measurements if m.headline}
    assert set(heads) == {"imagenet", "imagenet-a"}
    assert heads["imagenet-a"].details["classes"] == 2
    assert heads["imagenet"].details["classes"] == 4
    assert {m.settings["logits"] for m in record.measurements} == {"probe"}
    assert {m.metric for m in record.measurements} == {"top1", "top5", "ece"}
    assert not heads["imagenet-a"].details["whole"]
    with np.load(tmp_path / "runs" / heads["imagenet-a"].outcomes) as table:
        assert set(table["prediction"]) <= {0, 2}
        assert table["correct"].tolist() == (table["prediction"] == table["label"]).tolist()
        # Of two classes, both are among the five best.
        assert table["correct5"].all()


def made_task(spec, test_logits, labels, classes, card_classes="imagenet-1k"):
    from suitehelp import task

    made = task("robust", (np.eye(4), np.arange(4)), (np.zeros((len(labels), 4)), np.zeros(len(labels), int)))
    test = ArrayFeatureSet(
        {"logits": np.asarray(test_logits, np.float32)}, np.asarray(labels), dataset="x", split="test",
        fingerprint="sha256:t", classes={c: str(c) for c in classes},
    )  # fmt: skip
    made.data = {**made.data, "test": test}
    made.card = made.card.model_copy(update={"dims": {"logits": 4}, "classes": card_classes})
    made.images = {"train": open_data("imagenet").train}
    made.source = spec
    return made


def measured(made):
    from suites.robust import Robust

    return {m.metric: m for m in Robust().evaluate(made)}


def test_the_own_classifier_is_masked_by_the_sets_classes(root):
    logits = [[0, 9, 1, 0], [0, 9, 0, 1], [9, 0, 5, 1]]
    whole = measured(made_task("imagenet-v2", logits, [2, 3, 2], range(4)))
    masked = measured(made_task("imagenet-r", logits, [2, 3, 2], (2, 3)))
    assert whole["top1"].value == 0
    assert masked["top1"].value == 100
    assert masked["top1"].settings == {"logits": "own"}
    # Nothing was learned from the training split, though another suite of the run had it read.
    assert masked["top1"].train_fingerprint is None
    # Confidences over the two classes: 1 / (1 + e^-1) twice and 1 / (1 + e^-4), each right.
    gaps = 1 - 1 / (1 + np.exp([-1.0, -1.0, -4.0]))
    assert masked["ece"].value == pytest.approx(gaps.mean(), abs=1e-9)


def test_any_label_of_real_is_right(root):
    labels = [[1, -1, 1, -1], [-1, 1, -1, -1], [-1, -1, -1, 1]]
    found = measured(made_task("imagenet-real", [[0, 1, 3, 2], [0, 1, 3, 2], [0, 1, 2, 3]], labels, range(4)))
    assert found["top1"].value == pytest.approx(200 / 3)
    assert "top5" not in found


def test_the_probe_is_scikit_learns(root):
    from suitehelp import clusters, task

    from suites.robust import Robust

    (x, y), (seen, truth) = clusters(1, 80), clusters(2, 60)
    made = task("robust", (x, y), (seen, truth), C=0.5)
    made.source = "imagenet-sketch"
    found = {m.metric: m for m in Robust().evaluate(made)}
    other = LogisticRegression(C=0.5, tol=1e-8, max_iter=2000).fit(x, y)
    assert found["top1"].value == pytest.approx(100 * other.score(seen, truth))


def test_mce_by_hand(root, monkeypatch):
    monkeypatch.setitem(robust_sets.SETS, "imagenet-c", SETS["imagenet-c"]._replace(images=1, classes=1))
    assert len(specs_of(["imagenet", "imagenet-c"])) == 76
    assert list(ALEXNET) == list(CORRUPTIONS)
    # AlexNet's own is 100 by definition.
    for c, error in ALEXNET.items():
        assert corruption_error(c, [100 - 100 * error] * 5) == pytest.approx(100)
    for i, (corruption, archive) in enumerate(CORRUPTIONS.items()):
        for severity in range(1, 6):
            place = root / "imagenet-c" / (archive if i % 2 else "") / corruption / str(severity)
            put(place / WORDNET[i % 4], ["a.png"], seed=severity)
    more = {"protocols": {"robust": "imagenet-c"}, "settings": FAST, "workers": 0}
    record = bench.run(MODEL, ["robust"], **more)
    (mce,) = [m for m in record.measurements if m.metric == "mce"]
    right = {m.dataset: m.value for m in record.measurements if m.metric == "top1"}
    assert len(right) == 75
    by_hand = np.mean(
        [np.mean([100 - right[f"imagenet-c-{c}-{s}"] for s in range(1, 6)]) / ALEXNET[c] for c in ALEXNET]
    )
    assert mce.value == pytest.approx(by_hand)
    assert (mce.headline, mce.higher_is_better, mce.dataset) == (True, False, "imagenet-c")
    # The published images are crops already: nothing more is cut off them.
    assert {m.transform.resize for m in record.measurements} == {record.model.transform.crop}
    assert record.model.transform.resize != record.model.transform.crop
    assert [m for m in record.measurements if m.headline] == [mce]
    # A corruption that lacks a severity has no CE, and without it there is no mean.
    from suites.robust import Robust

    card = protocol.get("robust", "imagenet-c")
    some = [m for m in record.measurements if m.dataset != "imagenet-c-fog-2"]
    assert [m.metric for m in Robust().summary(card, some, {})] == ["ce"] * 14


def test_corruptions_made_here_give_errors_and_a_drop_but_no_mce(tmp_path, monkeypatch):
    # Two kinds, of which one bears the name of one of ImageNet-C's.
    monkeypatch.setitem(MADE, "corrupted", ("contrast", "pixelate"))
    record = bench.run(
        "demo:trio-kd", ["robust"], protocols={"robust": "corrupted"}, limit=60, workers=0, runs=tmp_path,
        settings={**FAST, "robust.of": "demo"},
    )  # fmt: skip
    tops = {m.dataset: m for m in record.measurements if m.metric == "top1"}
    assert len(tops) == 1 + 2 * 5
    assert {m.protocol for m in record.measurements} == {"robust/corrupted@1+C=1+replicates=100"}
    assert {m.metric for m in record.measurements} == {"top1", "top5", "ece", "error", "relative_drop"}
    made = [m for m in record.measurements if m.dataset.endswith("-corrupted")]
    errors = {m.settings["severity"]: m.value for m in made if m.metric == "error"}
    for severity in range(1, 6):
        parts = [100 - m.value for m in tops.values() if m.details.get("severity") == severity]
        assert len(parts) == 2
        assert errors[severity] == pytest.approx(np.mean(parts))
    assert errors["mean"] == pytest.approx(np.mean([errors[s] for s in range(1, 6)]))
    (clean,) = [m.value for m in tops.values() if m.details["clean"]]
    (drop,) = [m for m in made if m.metric == "relative_drop"]
    assert drop.value == pytest.approx(100 * (clean - (100 - errors["mean"])) / clean)
    assert drop.headline
    assert errors[5] > errors[1]
    # One probe for all sets.
    assert len({m.train_fingerprint for m in tops.values()}) == 1


def test_a_corrupted_folder_is_named_without_its_path(root, tmp_path, monkeypatch):
    monkeypatch.setitem(MADE, "corrupted", ("pixelate",))
    record = bench.run(
        MODEL, ["robust"], protocols={"robust": "corrupted"}, workers=0, runs=tmp_path / "runs",
        settings={**FAST, "robust.of": f"imagefolder:{root / 'imagenet'}"},
    )  # fmt: skip
    assert len([m for m in record.measurements if m.metric == "top1"]) == 6
    assert not list((tmp_path / "runs").rglob("*imagefolder-/*"))
    from bench.ledger import Ledger

    assert Ledger(tmp_path / "runs").check() == []


def test_the_librarys_fifteen_are_a_variant_of_their_own(root, tmp_path, monkeypatch):
    pytest.importorskip("imagecorruptions", reason="the extra corruptions is not installed")
    monkeypatch.setitem(MADE, "imagecorruptions", ("fog", "contrast"))
    monkeypatch.setitem(MADE, "corrupted", ("contrast",))
    large = tmp_path / "large"
    for path in (root / "imagenet").rglob("*"):
        if path.is_file():
            target = large / path.relative_to(root / "imagenet")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).convert("RGB").resize((40, 36)).save(target.with_suffix(".png"))
    record = bench.run(
        MODEL, ["robust"], protocols={"robust": "imagecorruptions"}, workers=0, runs=tmp_path / "runs",
        settings={**FAST, "robust.of": f"imagefolder:{large}", "robust.sets": "imagecorruptions,corrupted"},
    )  # fmt: skip
    tops = [m for m in record.measurements if m.metric == "top1"]
    assert len(tops) == 1 + 2 * 5 + 5
    assert len({m.fingerprint for m in tops}) == len(tops), "equal names of kinds, other images"
    for way, kinds in (("imagecorruptions", 2), ("corrupted", 1)):
        mine = [m for m in tops if m.details.get("made_by") == way]
        assert len(mine) == 5 * kinds
        (mean,) = [
            m for m in record.measurements
            if m.metric == "error" and m.dataset.endswith(f"-{way}") and m.settings["severity"] == "mean"
        ]  # fmt: skip
        assert mean.value == pytest.approx(np.mean([100 - m.value for m in mine]))
    assert not [m for m in record.measurements if m.metric in ("ce", "mce")]


def test_what_cannot_be_corrupted_is_refused_and_not_left_out(tmp_path):
    """The clean set alone would be a record of nothing; with or without the library."""
    with pytest.raises(BenchError, match="imagecorruptions: (needs the library|takes images from 32 x 32 pixels up)"):
        bench.run(
            "demo:trio-kd", ["robust"], protocols={"robust": "imagecorruptions"}, limit=60, workers=0, runs=tmp_path,
            settings={"robust.of": "demo"},
        )  # fmt: skip
    assert not list(tmp_path.glob("*.json"))


def test_the_protocol_has_the_fifteen_of_imagenet_c():
    card = protocol.get("robust", "imagecorruptions")
    specs = specs_of(card.settings["sets"], "demo")
    assert specs[0] == "demo"
    assert {spec.partition(",")[0].partition(":")[2].rpartition("-")[0] for spec in specs[1:]} == set(ALEXNET)
    assert len(specs) == 1 + 15 * 5
