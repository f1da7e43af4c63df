"""What `bench.run`, `load` and `wrap` refuse in their arguments: a `BenchError` of one sentence, before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bench

MODULE = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": None}, "model is a SPEC"),
        ({"model": 5}, "model is a SPEC"),
        ({"model": MODULE}, r"bench\.wrap\(module\)"),
        ({"model": ""}, "model is empty"),
        ({"model": "a\nb"}, "control characters"),
        ({"model": "\udcff.pth"}, "no UTF-8"),
        ({"model": "x" * 5000}, "5,000 characters"),
        ({"model": "y" * 300 + ".pth"}, "cannot be read: File name too long"),
        ({"model": "features:" + "y" * 300}, "cannot be read: File name too long"),
        ({"suites": None}, "suites is a list of names"),
        ({"suites": []}, "no suite was asked for"),
        ({"suites": [5]}, "suites"),
        ({"suites": [""]}, "suites.0 is empty"),
        ({"suites": [["knn"]]}, "suites.0"),
        ({"data": 5}, "data: .*string"),
        ({"data": "", "model": "demo:mobilenetv2"}, "data is empty"),
        ({"data": "imagefolder:" + "y" * 300, "model": "demo:mobilenetv2"}, "cannot be read: File name too long"),
        ({"teacher": 3}, "teacher is a SPEC"),
        ({"settings": ["knn.k=3"]}, "settings is a mapping"),
        ({"settings": {"knn.k": "\udcff"}}, "no UTF-8"),
        ({"protocols": "knn"}, "protocols is a mapping"),
        ({"batch": "x"}, "batch is a whole number of at least 1"),
        ({"batch": 0}, "batch is a whole number of at least 1"),
        ({"batch": True}, "batch is a whole number of at least 1"),
        ({"workers": -1}, "workers is a whole number of at least 0"),
        ({"seed": -1}, "seed: .*greater than or equal to 0"),
        ({"seed": 2**40}, "seed: .*less than 2147483648"),
        ({"name": " "}, "name is empty"),
        ({"name": "a\x1b[2Jb"}, "control characters"),
        ({"name": "\udcff"}, "no UTF-8"),
        ({"arch": ""}, "arch is empty"),
        ({"precision": "fp8"}, "precision"),
        ({"runs": 5}, "runs is the path of a folder"),
        ({"runs": " "}, "runs is the path of a folder"),
        ({"runs": "a\0b"}, "runs is the path of a folder"),
        ({"device": 5}, "unknown device '5'"),
        ({"device": None}, "unknown device 'None'"),
        ({"progress": 5}, "progress is a"),
    ],
)
def test_arguments_of_run(given: dict[str, Any], said: str, features_dir: Path) -> None:
    arguments: dict[str, Any] = {"model": f"features:{features_dir}", "suites": ["knn"], **given}
    with pytest.raises(bench.BenchError, match=said) as refusal:
        bench.run(arguments.pop("model"), arguments.pop("suites"), **arguments)
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize("given", [{"arch": "resnet50"}, {"weights_key": "teacher"}])
def test_how_a_spec_is_read_cannot_be_said_of_a_loaded_model(given: dict[str, str]) -> None:
    model = bench.load("demo:mobilenetv2@32")
    with pytest.raises(bench.BenchError, match=r"give it to bench\.load"):
        bench.run(model, ["knn"], "demo", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", [None, 5, MODULE])
def test_load_wants_a_spec(spec: Any) -> None:
    with pytest.raises(bench.BenchError, match="loaded from a SPEC"):
        bench.load(spec)


@pytest.mark.parametrize(
    ("module", "given", "said"),
    [
        (None, {}, "takes a torch module"),
        (MODULE, {"pooled": 5}, "pooled is a function or the name"),
        (MODULE, {"transform": {"resise": 5}}, r"transform\.resise: .*fields are kind, resize"),
        (MODULE, {"transform": {"crop": "big"}}, r"transform\.crop"),
        (nn.Linear(2, 2, device="meta"), {}, "meta device"),
        (nn.LazyLinear(2), {}, "lazy parts without weights"),
        (MODULE, {"transform": {"crop": 0}}, r"transform\.crop.*greater than or equal to 1"),
        (MODULE, {"transform": {"resize": (5, -1)}}, r"transform\.resize"),
        (MODULE, {"transform": {"crop": 10**6}}, r"transform\.crop.*less than or equal to 16384"),
        (MODULE, {"transform": {"std": (0, 1, 1)}}, r"transform\.std.*greater than 0"),
        (MODULE, {"transform": {"mean": (float("nan"), 0, 0)}}, r"transform\.mean.*finite"),
        (MODULE, {"name": 5}, "wrap: name: .*string"),
        (MODULE, {"step": "x"}, "wrap: step: .*integer"),
        (MODULE, {"epoch": float("inf")}, "wrap: epoch: .*finite"),
    ],
)
def test_arguments_of_wrap(module: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(bench.BenchError, match=said):
        bench.wrap(module, **given)


def test_a_model_is_not_wrapped_again() -> None:
    with pytest.raises(bench.BenchError, match=r"model already: give it to bench\.run"):
        bench.wrap(bench.wrap(MODULE))


class Module(nn.Module):
    def __init__(self, call: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, images: torch.Tensor) -> Any:
        return self.call(images)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda images: None, "gave NoneType for 20 images"),
        (lambda images: {"x": images}, "gave dict for 20 images"),
        (lambda images: images.mean(), r"gave torch.float32 \(\) for 20 images"),
        (lambda images: torch.zeros(20, 4, device="meta"), "no .B, D. feature"),
        (lambda images: torch.eye(20).to_sparse(), "no .B, D. feature"),
        (lambda images: torch.zeros(20, 4, dtype=torch.complex64), "gave torch.complex64"),
        (lambda images: 1 / 0, r"failed on images \(20, 3, 8, 8\): ZeroDivisionError: division by zero"),
        (lambda images: images @ torch.zeros(5, 5), "failed on images .* RuntimeError"),
    ],
)
def test_what_a_module_gives_that_is_no_feature(call: Callable[[torch.Tensor], Any], said: str) -> None:
    live = bench.wrap(Module(call), transform=lambda image: torch.zeros(3, 8, 8))
    with pytest.raises(bench.BenchError, match=said) as refusal:
        bench.run(live, ["knn"], "demo", limit=20, workers=0)
    assert "\n" not in str(refusal.value)


def test_memory_that_runs_out_in_a_module_is_left_to_the_engine() -> None:
    """A smaller batch may fit, so the engine must see the error itself."""
    asked: list[int] = []

    def call(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images.mean(dim=(2, 3))

    live = bench.wrap(Module(call), transform=lambda image: torch.rand(3, 8, 8))
    assert bench.run(live, ["knn"], "demo", limit=20, workers=0, settings={"knn.k": 3}).measurements
    assert asked[0] == 20
    assert asked[-1] <= 5


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_that_fails(workers: int) -> None:
    live = bench.wrap(nn.Conv2d(3, 4, 1), transform=lambda image: image.no_such)
    with pytest.raises(bench.BenchError, match=r"the transform .* failed: AttributeError: .*no_such"):
        bench.run(live, ["knn"], "demo", limit=20, workers=workers)


def test_numbers_of_numpy_and_a_torch_device_are_taken() -> None:
    record = bench.run(
        "demo:mobilenetv2@32", ["knn", "knn"], "demo", limit=20, batch=np.int64(8), workers=np.int64(0),  # type: ignore[arg-type]
        device=torch.device("cpu"), settings={"knn.k": np.array([1, 3]), "knn.headline_k": np.int64(3)},  # type: ignore[arg-type]
    )  # fmt: skip
    assert record.request["suites"] == ["knn"]
    assert record.request["settings"] == {"knn.k": [1, 3], "knn.headline_k": 3}


@pytest.mark.parametrize(
    "made",
    [None, "image", torch.zeros(8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(3, 0, 0),
     torch.zeros(3, 8, 8, device="meta")],
)  # fmt: skip
def test_a_transform_that_gives_no_image_tensor(made: Any) -> None:
    live = bench.wrap(nn.Conv2d(3, 4, 1), transform=lambda image: image if made is None else made)
    with pytest.raises(bench.BenchError, match=r"not a float tensor \[3, H, W\]"):
        bench.run(live, ["knn"], "demo", limit=20, workers=0)


def test_another_float_type_from_a_transform_is_taken() -> None:
    live = bench.wrap(nn.Conv2d(3, 4, 1), transform=lambda image: torch.zeros(3, 8, 8, dtype=torch.float64))
    assert live.preprocess(None).dtype == torch.float32


def test_a_loaded_model_keeps_what_a_repetition_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    from bench.api import repeat

    torch.manual_seed(0)
    (tmp_path / "here").mkdir()
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "here/net.pth")
    monkeypatch.chdir(tmp_path / "here")
    model = bench.load("net.pth", arch="resnet10t")
    record = bench.run(model, ["knn"], "demo", limit=40, settings={"knn.k": 3}, runs=tmp_path / "runs", workers=0)
    assert record.model.spec == "net.pth"
    assert record.request["model"] == str(tmp_path / "here/net.pth")
    assert record.request["arch"] == "resnet10t"
    monkeypatch.chdir(tmp_path)
    again = repeat(tmp_path / "runs" / f"{record.run}.json", workers=0)
    assert [m.value for m in again.measurements] == [m.value for m in record.measurements]


def test_only_what_is_a_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.request import Request

    monkeypatch.chdir(tmp_path)
    for name in ("demo", "resnet18", "plain.pth", "sub"):
        (tmp_path / name).mkdir()
    request = Request(
        model="timm:resnet18",
        suites=["agreement"],
        teacher="plain.pth",
        data="demo",
        settings={"agreement.baseline": "plain.pth", "agreement.logits": "sub", "agreement.C": 0.5,
                  "agreement.ensemble": ["sub/../plain.pth", "demo:mobilenetv2", "missing.pth"]},
    ).anywhere()  # fmt: skip
    assert request.model == "timm:resnet18"
    (tmp_path / "lab/net").mkdir(parents=True)
    hub = Request(model="hf:lab/net", suites=["knn"], data="hf:lab/net").anywhere()
    assert (hub.model, hub.data) == ("hf:lab/net", f"hf:{tmp_path / 'lab/net'}")
    assert request.teacher == str(tmp_path / "plain.pth")
    assert request.data == "demo"
    assert request.settings["agreement.baseline"] == str(tmp_path / "plain.pth")
    assert request.settings["agreement.logits"] == "sub"
    masks = Request(model="timm:resnet18", suites=["ade20k"], data="segfolder:sub?ignore=0").anywhere()
    assert masks.data == f"segfolder:{tmp_path / 'sub'}?ignore=0"
    (tmp_path / "odd?name").mkdir()
    odd = Request(model="timm:resnet18", suites=["knn"], data="imagefolder:odd?name").anywhere()
    assert odd.data == f"imagefolder:{tmp_path / 'odd?name'}"
    ensemble = request.settings["agreement.ensemble"]
    assert ensemble == [str(tmp_path / "sub/../plain.pth"), "demo:mobilenetv2", "missing.pth"]


def test_a_ledger_that_cannot_be_written_is_refused_before_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for runs in (tmp_path / "file", tmp_path / "file/below", Path("/proc/self/none"), Path("/proc/none/deeper")):
        with pytest.raises(bench.BenchError, match=r"file|writable|written"):
            bench.run("missing.pth", ["knn"], "demo", runs=runs)
    with pytest.raises(bench.BenchError, match="no file or folder"):
        bench.run("missing.pth", ["knn"], "demo", runs=tmp_path / "new/deeper")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("argument", ["seed", "limit"])
def test_true_is_not_a_number(argument: str) -> None:
    with pytest.raises(bench.BenchError, match=f"{argument}.* is a whole number, not True"):
        bench.run("demo:trio-kd", "knn", "demo", **{argument: True})
