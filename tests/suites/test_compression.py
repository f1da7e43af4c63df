"""Compression: retention against the suites' own numbers, sizes by hand, times that take turns, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bench
from bench.errors import BenchError
from bench.ledger import Ledger
from bench.record import Measurement
from suites.compression import alternately, bytes_of, speedup

QUICK = {"compression.suites": "knn", "compression.batch": 2, "compression.repeats": 6, "compression.warmup": 0}


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).mean((2, 3))


def live(width: int, size: int = 16) -> Any:
    torch.manual_seed(width)
    return bench.wrap(Net(width), transform={"resize": size, "crop": size})


def by_metric(record: bench.record.Record) -> dict[str, Measurement]:  # type: ignore[name-defined]
    return {m.metric: m for m in record.measurements}


def stored(folder: Path, name: str, noise: float) -> str:
    rng = np.random.default_rng(len(name))
    centres = np.random.default_rng(7).standard_normal((3, 6))
    (folder / name).mkdir()
    for split in ("train", "test"):
        y = np.arange(60) % 3
        x = centres[y] + noise * rng.standard_normal((60, 6))
        np.savez(folder / name / f"{split}.npz", x=x.astype(np.float32), y=y)
    return f"features:{folder / name}"


def test_sizes_by_hand_and_times_with_intervals() -> None:
    record = bench.run(live(4), ["compression"], teacher=live(12), settings={**QUICK, "compression.suites": "none"})
    found = by_metric(record)
    assert list(found) == [
        "parameters_ratio", "bytes_ratio", "flops_ratio", "latency_speedup", "throughput_speedup"
    ]  # fmt: skip
    parameters = [width * 27 + 2 * width for width in (4, 12)]
    assert found["parameters_ratio"].value == parameters[1] / parameters[0] == 3
    assert found["parameters_ratio"].details == {"student": parameters[0], "teacher": parameters[1]}
    # Weights, running mean and variance in float32, and the counter of batches in int64.
    sizes = [4 * (27 * width + 4 * width) + 8 for width in (4, 12)]
    assert bytes_of(live(4)) == sizes[0]
    assert found["bytes_ratio"].value == sizes[1] / sizes[0]
    assert found["flops_ratio"].value == pytest.approx(3)
    for name, batch in (("latency_speedup", 1), ("throughput_speedup", 2)):
        m = found[name]
        assert m.interval is not None
        assert m.interval[0] <= m.value <= m.interval[1]
        assert (m.n, m.settings["batch"], m.higher_is_better) == (6, batch, True)
        assert m.settings["device"]
        assert m.value == pytest.approx(m.details["teacher"] / m.details["student"])
    assert [m.metric for m in record.measurements if m.headline] == ["parameters_ratio"]


def test_each_network_is_timed_at_its_own_size() -> None:
    record = bench.run(
        live(4, 8), ["compression"], teacher=live(4, 16), settings={**QUICK, "compression.suites": "none"}
    )
    m = by_metric(record)["flops_ratio"]
    assert m.value == pytest.approx(4)
    assert (m.settings["image"], m.settings["teacher_image"]) == ("8x8", "16x16")
    assert by_metric(record)["parameters_ratio"].value == 1


def test_retention_is_the_ratio_of_the_two_suites_numbers(tmp_path: Path) -> None:
    student, teacher = stored(tmp_path, "student", 1.5), stored(tmp_path, "teacher", 0.7)
    runs = tmp_path / "runs"
    given = {"compression.suites": "knn,ridge", "compression.replicates": 500}
    record = bench.run(student, ["compression"], teacher=teacher, settings=given, runs=runs)
    alone = {
        spec: {m.suite: m.value for m in bench.run(spec, ["knn", "ridge"]).measurements if m.headline}
        for spec in (student, teacher)
    }
    assert [m.metric for m in record.measurements] == ["retention", "retention"]
    assert [m.headline for m in record.measurements] == [True, False]
    for m, suite in zip(record.measurements, ("knn", "ridge"), strict=True):
        assert m.value == pytest.approx(100 * alone[student][suite] / alone[teacher][suite])
        assert m.settings["of"].startswith(f"{suite}/")
        assert (m.details["student"], m.details["teacher"]) == (alone[student][suite], alone[teacher][suite])
        assert m.interval is not None
        assert m.interval[0] < m.value < m.interval[1]
        table = Ledger(runs).outcomes(record, str(m.outcomes))
        assert 100 * table["student"].mean() / (100 * table["teacher"].mean()) * 100 == pytest.approx(m.value)


def test_a_network_against_itself_keeps_all(tmp_path: Path) -> None:
    spec = stored(tmp_path, "one", 1.0)
    (m,) = bench.run(spec, ["compression"], teacher=spec, settings={"compression.suites": "knn"}).measurements
    assert m.value == 100
    assert m.interval == (100, 100)


def test_the_agreement_suite_says_it_of_the_classifiers(tmp_path: Path) -> None:
    spec, other = stored(tmp_path, "one", 1.5), stored(tmp_path, "other", 0.5)
    given = {"agreement.splits": "test", "agreement.C": 1.0, "agreement.replicates": 200}
    found = bench.run(spec, ["agreement"], teacher=other, settings=given).measurements
    top1 = {m.settings["network"]: m.value for m in found if m.metric == "top1"}
    (kept,) = [m for m in found if m.metric == "retention"]
    assert kept.value == pytest.approx(100 * top1["student"] / top1["teacher"])


def test_the_networks_take_turns() -> None:
    order: list[str] = []

    class Called:
        def __init__(self, name: str) -> None:
            self.name = name

        def features(self, images: Tensor) -> None:
            order.append(self.name)

    images = torch.zeros(1, 3, 4, 4)
    seconds = alternately([(Called("s"), images), (Called("t"), images)], warmup=2, repeats=3)  # type: ignore[list-item]
    assert seconds.shape == (3, 2)
    assert "".join(order) == "sss" + "ttt" + "st" * 2
    value, interval = speedup(np.tile([[1.0, 3.0]], (6, 1)), 500, 0)
    assert (value, interval) == (3.0, (3.0, 3.0))


@pytest.mark.parametrize(
    ("suites", "sentence"),
    [
        ("knnn", "unknown suite 'knnn'; nearest: knn"),
        ("transfer", "accuracy on the run's own data"),
        ("agreement", "stored features of one network"),
        ("compression", "accuracy on the run's own data"),
        ("none", "runs the network itself"),
    ],
)
def test_refusals(tmp_path: Path, suites: str, sentence: str) -> None:
    spec = stored(tmp_path, "one", 1.0)
    with pytest.raises(BenchError, match=sentence):
        bench.run(spec, ["compression"], teacher=spec, settings={"compression.suites": suites})
