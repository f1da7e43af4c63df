"""The way through the house: one pass, one record, whatever the model and the data are."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import bench
from bench.ledger import Ledger

MODEL = "demo:mobilenetv2@32"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes that a network can tell apart, 24 + 12 pictures of 40 x 32."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for number, name in enumerate(("dark", "light")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 90, (32, 40, 3)) + 150 * number
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture
def forwarded(monkeypatch):
    """How many images the network saw."""
    from adapters.timm_backbone import TimmBackbone

    seen = []
    original = TimmBackbone.features

    def counting(self, images):
        seen.append(len(images))
        return original(self, images)

    monkeypatch.setattr(TimmBackbone, "features", counting)
    return seen


def run(pictures, **more):
    more.setdefault("suites", ["knn", "linear"])
    more.setdefault("settings", {"knn.k": [3, 5], "knn.headline_k": 3, "linear.points": 5})
    more.setdefault("workers", 0)
    return bench.run(more.pop("model", MODEL), data=f"imagefolder:{pictures}", **more)


def test_one_pass_serves_all_suites_and_the_next_run_reads_the_store(pictures, tmp_path, forwarded):
    first = run(pictures, runs=tmp_path)
    # Loading reads the widths off one blank image.
    assert sum(forwarded) == 1 + 36
    forwarded.clear()
    second = run(pictures, runs=tmp_path)
    assert forwarded == [1]
    numbers = [[(m.protocol, m.metric, m.value, m.interval) for m in r.measurements] for r in (first, second)]
    assert numbers[0] == numbers[1]
    assert len(list(Ledger(tmp_path).records())) == 2


def test_the_record_says_where_every_number_came_from(pictures, tmp_path):
    record = run(pictures, runs=tmp_path, name="mine", seed=3)
    assert (record.name, record.seed) == ("mine", 3)
    assert record.model.weight_digest.startswith("sha256:")
    for m in record.measurements:
        assert m.fingerprint != m.train_fingerprint
        assert (m.split, m.n, m.precision) == ("val", 12, "fp32")
        assert m.transform == record.model.transform
        assert m.feature["tokens"] == "avg"
        assert m.interval[0] <= m.value <= m.interval[1]
        with np.load(tmp_path / m.outcomes) as table:
            assert len(table["label"]) == m.n
        # Reports say the classes by name; once a suite is enough.
        assert m.details.get("class_names") == ({"0": "dark", "1": "light"} if m.headline else None)
    assert {"load", "extract", "decode", "forward", "knn", "linear", "total"} <= set(record.timings)
    assert record.environment["peak_memory_mb"]["process"] > 0
    assert record["schema"] == 1
    assert Ledger(tmp_path).check() == []


def test_without_a_ledger_nothing_is_written(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = run(pictures)
    assert all(m.outcomes is None for m in record.measurements)
    assert list(tmp_path.iterdir()) == []


def test_batch_workers_and_resolution_of_the_store_change_nothing(pictures, tmp_path, monkeypatch):
    values = []
    for batch, workers in ((1, 0), (7, 1), (36, 2)):
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / f"{batch}-{workers}"))
        record = run(pictures, batch=batch, workers=workers)
        values.append([m.value for m in record.measurements])
    assert values[0] == values[1] == values[2]


def test_limit_takes_some_of_every_class(pictures):
    record = run(pictures, limit=8, settings={"knn.k": 3, "linear.C": 1})
    assert {m.n for m in record.measurements} == {8}
    assert all("[8 of 12]" in m.dataset for m in record.measurements)


def test_a_corrupt_image_is_left_out_and_said_and_many_are_refused(pictures, tmp_path, capsys):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(pictures, broken)
    for i in range(180):
        shutil.copy(broken / "train/dark/0.png", broken / f"train/dark/copy{i}.png")
    (broken / "train/dark/3.png").write_bytes(b"not an image")
    record = run(broken, suites=["knn"], settings={})
    left_out = record.measurements[0].details["left_out"]["train"]
    assert left_out["corrupt"] == 1
    assert left_out["corrupt_images"][0].endswith("train/dark/3.png")
    assert "3.png" in capsys.readouterr().err
    for i in range(20):
        (broken / f"train/dark/copy{i}.png").write_bytes(b"")
    with pytest.raises(bench.BenchError, match=r"at least \d+ of the 204 images .* more than the 1.00% allowed"):
        run(broken, suites=["knn"], settings={})


def test_a_plain_weight_file_with_its_architecture(pictures, tmp_path):
    import timm

    torch.manual_seed(0)
    weights = tmp_path / "checkpoint.pth"
    torch.save({"model": {f"module.{k}": v for k, v in timm.create_model("resnet18").state_dict().items()}}, weights)
    record = run(pictures, model=str(weights), arch="resnet18", suites=["knn"], settings={"knn.k": 3})
    assert record.model.coverage.filled == record.model.coverage.total
    with pytest.raises(bench.BenchError, match="resnet18"):
        run(pictures, model=str(weights), arch="resnet50", suites=["knn"], settings={})


def test_a_live_module_leaves_no_store_and_no_trace(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    import timm

    torch.manual_seed(0)
    module = timm.create_model("resnet10t", num_classes=0).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    live = bench.wrap(module, transform={"resize": 32, "crop": 32}, step=17)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    record = run(pictures, model=live, suites=["knn"], settings={"knn.k": 3})
    assert torch.equal(torch.rand(3), expected)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert record.model.step == 17
    assert record.model.dims == {"pooled": 512}
    assert not list((tmp_path / "cache").glob("features/*"))
    with pytest.raises(bench.BenchError, match="live module"):
        from bench.api import repeat

        path = tmp_path / "r.json"
        path.write_text(record.to_json())
        repeat(path)


def test_a_killed_runs_finished_suites_are_taken_over(pictures, tmp_path, monkeypatch):
    import suites.linear

    def stop(*_):
        raise KeyboardInterrupt

    original = suites.linear.Linear.evaluate
    monkeypatch.setattr(suites.linear.Linear, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        run(pictures, runs=tmp_path)
    assert not list(tmp_path.glob("*.json"))
    monkeypatch.setattr(suites.linear.Linear, "evaluate", original)
    import suites.knn

    monkeypatch.setattr(suites.knn.KNN, "evaluate", stop)
    record = run(pictures, runs=tmp_path)
    assert {m.suite for m in record.measurements} == {"knn", "linear"}
    assert not (tmp_path / ".unfinished").exists()
    json.loads((tmp_path / f"{record.run}.json").read_text())


def test_refusals(pictures, features_dir, tmp_path):
    with pytest.raises(bench.BenchError, match="brings its own samples"):
        bench.run(f"features:{features_dir}", ["knn"], "demo")
    with pytest.raises(bench.BenchError, match="--limit chooses among images"):
        bench.run(f"features:{features_dir}", ["knn"], limit=5)
    with pytest.raises(bench.BenchError, match="--precision bf16"):
        bench.run(f"features:{features_dir}", ["knn"], precision="bf16")
    with pytest.raises(bench.BenchError, match="teacher"):
        run(pictures, teacher=MODEL)
    with pytest.raises(bench.BenchError, match="seed"):
        run(pictures, seed="many")
    (tmp_path / "file").write_text("")
    with pytest.raises(bench.BenchError, match="is a file"):
        run(pictures, runs=tmp_path / "file")
    with pytest.raises(bench.BenchError, match="no suite"):
        run(pictures, suites=[])
