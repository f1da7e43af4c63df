"""The layer map: its pairs against the measure itself, its widths, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import bench
from bench.card import Card
from suites.layer_map import layers_of
from suites.similarity_measures import get


def card(channels: list[int]) -> Card:
    return Card(
        name="n", spec="n", architecture="a", family="cnn", dims={}, feature="avg", channels=channels, weight_digest="x"
    )


def test_layers_are_cut_at_the_pyramids_widths() -> None:
    array = np.arange(20, dtype=np.float32).reshape(2, 10)
    assert [layer.shape[1] for layer in layers_of(array, card([2, 3, 5]))] == [2, 3, 5]
    assert np.array_equal(layers_of(array, card([2, 3, 5]))[1], array[:, 2:5])
    assert [layer.shape[1] for layer in layers_of(array, card([5]))] == [5, 5]
    with pytest.raises(bench.BenchError, match="do not add up"):
        layers_of(array, card([4, 4]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A small network of maps and a small transformer with random weights, saved as files."""
    import timm

    folder = tmp_path_factory.mktemp("nets")
    paths = {}
    for seed, (role, name, size) in enumerate(
        (("cnn", "resnet10t", {}), ("vit", "vit_tiny_patch16_224", {"img_size": 32}))
    ):
        torch.manual_seed(seed)
        paths[role] = str(folder / f"{role}.pth")
        torch.save(timm.create_model(name, **size).state_dict(), paths[role])
    return folder, paths


def run(student: str, teacher: str, folder: Path, **settings: str) -> bench.record.Record:  # type: ignore[name-defined]
    return bench.run(
        student, ["layers"], "demo", teacher=teacher, settings={f"layers.{k}": v for k, v in settings.items()},
        limit=40, workers=0, runs=folder / "runs",
    )  # fmt: skip


def stored(record: bench.record.Record, folder: Path) -> dict[str, np.ndarray]:  # type: ignore[name-defined]
    with np.load(folder / "runs" / record.measurements[0].outcomes) as table:
        return dict(table)


def test_a_network_against_itself_and_another(
    made: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, paths = made
    monkeypatch.setenv("BENCH_CACHE", str(folder / "cache"))
    own = run(paths["cnn"], paths["cnn"], folder, measure="cka")
    matched, last = own.measurements
    assert matched.headline
    assert matched.value == pytest.approx(1, abs=1e-6)
    assert last.value == pytest.approx(1, abs=1e-6)
    table = stored(own, folder)
    widths = bench.load(paths["cnn"]).card.channels
    assert list(table["student_widths"]) == widths
    assert np.allclose(np.diag(table["similarity"]), 1)
    assert np.allclose(table["similarity"], table["similarity"].T)
    assert matched.details["nearest_teacher_layer"] == list(range(1, len(widths) + 1))

    pair = run(paths["vit"], paths["cnn"], folder, measure="cka")
    table = stored(pair, folder)
    assert table["similarity"].shape == (len(widths), 12)  # Every block of the transformer is a layer.
    assert pair.measurements[0].value == pytest.approx(table["similarity"].max(axis=0).mean())
    assert pair.measurements[1].value == pytest.approx(table["similarity"][-1, -1])
    for m in pair.measurements:
        assert m.interval is not None
        assert m.interval[0] < m.value < m.interval[1]

    # Computed again by hand: the same images, the networks' own pyramids and blocks, the measure's function.
    from bench.data.opening import limited, open_data

    test = limited(open_data("demo").test, 40)
    cnn, vit = bench.load(paths["cnn"]), bench.load(paths["vit"])
    with torch.no_grad():
        maps = cnn.pyramid(torch.stack([cnn.preprocess(test.image(i)) for i in range(40)]))
        tokens = vit.blocks(torch.stack([vit.preprocess(test.image(i)) for i in range(40)]), n=12, norm=False)
    first = get("cka").compute(maps[0].mean((2, 3)).numpy(), tokens[5][0].mean(1).numpy()).value
    assert table["similarity"][0, 5] == pytest.approx(first, abs=1e-4)


def test_refusals(made: tuple[Path, dict[str, str]], features_dir: Path) -> None:
    folder, paths = made
    with pytest.raises(bench.BenchError, match=r"option layers\.measure is cka or cka_debiased"):
        run(paths["cnn"], paths["cnn"], folder, measure="procrustes")
    with pytest.raises(bench.BenchError, match=r"layers\.split"):
        run(paths["cnn"], paths["cnn"], folder, split="val")
    with pytest.raises(bench.BenchError, match="layers"):
        bench.run(f"features:{features_dir}", ["layers"], teacher=f"features:{features_dir}")
