"""The cost suite: counts against known answers, times with intervals, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import bench
from suites.cost import flops, image_shape, timed


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


def live(size: int = 32) -> bench.backbone.Backbone:  # type: ignore[name-defined]
    torch.manual_seed(0)
    return bench.wrap(Net(), transform={"resize": size, "crop": size})


def measured(model: object, **settings: int) -> dict[str, bench.record.Measurement]:  # type: ignore[name-defined]
    given = {f"cost.{k}": v for k, v in {"batch": 4, "repeats": 8, "warmup": 1, **settings}.items()}
    record = bench.run(model, ["cost"], settings=given)
    return {m.metric: m for m in record.measurements}


def test_counts_by_hand() -> None:
    found = measured(live())
    assert found["parameters"].value == 3 * 8 * 9 + 8 * 5 + 5
    multiply_adds = 16 * 16 * 8 * 27 + 8 * 5
    assert found["gflops"].value * 1e9 == pytest.approx(2 * multiply_adds)
    assert found["parameters"].settings == {"image": "32x32"}
    assert found["parameters"].interval is None


@pytest.mark.parametrize(
    ("name", "weights"), [("resnet18", "ResNet18_Weights"), ("mobilenetv2_100", "MobileNet_V2_Weights")]
)
def test_flops_are_those_that_torchvision_states(name: str, weights: str) -> None:
    import timm
    import torchvision

    network = timm.create_model(name).eval()

    class Backbone(nn.Module):
        def features(self, images: Tensor) -> Tensor:
            return network(images)

    stated = getattr(torchvision.models, weights).IMAGENET1K_V1.meta["_ops"]
    with torch.inference_mode():
        assert flops(Backbone(), torch.zeros(1, 3, 224, 224)) / 2e9 == pytest.approx(stated, rel=0.005)  # type: ignore[arg-type]


def test_times_have_intervals_and_name_their_device() -> None:
    found = measured(live())
    for name, batch in (("latency_ms", 1), ("images_per_second", 4)):
        m = found[name]
        assert m.interval is not None
        assert m.interval[0] <= m.value <= m.interval[1]
        assert m.n == 8
        assert m.settings["batch"] == batch
        assert m.settings["device"]
    assert found["images_per_second"].headline
    assert found["images_per_second"].higher_is_better
    assert not found["latency_ms"].higher_is_better
    assert found["peak_memory_mb"].value > 50
    assert {m.dataset for m in found.values()} == {"random 3x32x32"}


def test_another_size_is_another_data_set() -> None:
    small, large = measured(live()), measured(live(), size=64)
    assert large["gflops"].value > 3.9 * small["gflops"].value
    assert small["gflops"].fingerprint != large["gflops"].fingerprint


def test_timed_counts_what_it_says() -> None:
    class Sleepy(nn.Module):
        calls = 0

        def features(self, images: Tensor) -> Tensor:
            self.calls += 1
            return images

    network = Sleepy()
    assert timed(network, torch.zeros(1), warmup=2, repeats=7).shape == (7,)  # type: ignore[arg-type]
    assert network.calls == 9


def test_it_stands_beside_suites_that_read_data(tmp_path: Path) -> None:
    record = bench.run(
        live(), ["cost", "knn"], "demo", limit=40, workers=0,
        settings={"cost.batch": 2, "cost.repeats": 6, "knn.k": 3}, runs=tmp_path,
    )  # fmt: skip
    assert {m.dataset for m in record.measurements} == {"random 3x32x32", "demo[40 of 1000]"}


def test_refusals(features_dir: Path) -> None:
    with pytest.raises(bench.BenchError, match="cannot be computed from stored features"):
        bench.run(f"features:{features_dir}", ["cost"])
    with pytest.raises(bench.BenchError, match=r"cost\.repeats"):
        measured(live(), repeats=2)
    raw = bench.wrap(Net(), transform=lambda image: torch.zeros(3, 8, 8))
    with pytest.raises(bench.BenchError, match=r"--set cost\.size"):
        measured(raw)
    assert image_shape(raw.card, 48) == (3, 48, 48)


def test_a_batch_that_does_not_fit_is_said() -> None:
    class Greedy(nn.Module):
        def features(self, images: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(bench.BenchError, match="does not fit into the memory of cpu: set cost.batch lower"):
        timed(Greedy(), torch.zeros(7), warmup=0, repeats=6)  # type: ignore[arg-type]
