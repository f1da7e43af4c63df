"""ONNX files: a graph gives what its network gives; what it holds is looked at before onnxruntime opens it."""

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bench
from bench.card import IMAGENET_MEAN, Transform
from bench.errors import BenchError

onnx = pytest.importorskip("onnx", reason="the onnx package makes the test's graphs")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT = TensorProto.FLOAT


class Net(torch.nn.Module):
    """The network that every graph here is of: maps [B, 6, H/2, W/2], their mean, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = torch.nn.Conv2d(3, 6, 3, 2, 1)
        self.fc = torch.nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        maps = self.conv(images).relu()
        pooled = maps.mean((2, 3))
        return maps, pooled, self.fc(pooled)


def graph(
    shape: tuple[int | str, ...] = ("batch", 3, 32, 32),
    outputs: tuple[str, ...] = ("pooled",),
    dtype: int = FLOAT,
    last: bool = False,
    extra: tuple[Any, ...] = (),
    inputs: tuple[Any, ...] = (),
    **metadata: str,
) -> Any:
    """The ONNX model of `Net` by hand. ``last``: channels last; an input of uint8 is divided by 255 inside."""
    net = Net()
    weights = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    nodes, source = [], "images"
    if dtype != FLOAT:
        nodes.append(helper.make_node("Cast", [source], ["cast"], to=FLOAT))
        source = "cast"
    if dtype == TensorProto.UINT8:
        nodes += [
            helper.make_node("Constant", [], ["white"], value=numpy_helper.from_array(np.float32(255))),
            helper.make_node("Div", [source, "white"], ["scaled"]),
        ]
        source = "scaled"
    if last:
        nodes.append(helper.make_node("Transpose", [source], ["first"], perm=[0, 3, 1, 2]))
        source = "first"
    nodes += [
        helper.make_node("Conv", [source, "conv.weight", "conv.bias"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["gap"]),
        helper.make_node("Flatten", ["gap"], ["pooled"]),
        helper.make_node("Gemm", ["pooled", "fc.weight", "fc.bias"], ["logits"], transB=1),
        helper.make_node("Flatten", ["maps"], ["long"], axis=2),
        helper.make_node("Reshape", ["maps", "by_tokens"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["tokens"], perm=[0, 2, 1]),
        *extra,
    ]
    b = shape[0]
    shapes = {"pooled": [b, 6], "logits": [b, 4], "maps": [b, 6, 16, 16], "tokens": [b, 256, 6]}
    made = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", dtype, shape), *inputs],
        [helper.make_tensor_value_info(name, FLOAT, shapes.get(name, [b, 6])) for name in outputs],
        [
            *(numpy_helper.from_array(value, name) for name, value in weights.items()),
            numpy_helper.from_array(np.array([0, 6, -1]), "by_tokens"),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], producer_name="hand")
    model.ir_version = 8
    helper.set_model_props(model, metadata)
    return model


def saved(folder: Path, model: Any, name: str = "net.onnx") -> str:
    (folder / name).write_bytes(model.SerializeToString())
    return str(folder / name)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def expected(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        found: tuple[torch.Tensor, ...] = Net()(images)
    return found


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        (("batch", 3, 32, 32), {}),
        (("batch", 3, "height", "width"), {}),
        (("batch", None, None, 3), {"last": True}),
        ((2, 3, 32, 32), {}),
        ((1, 32, 32, 3), {"last": True}),
        (("batch", 3, 32, 32), {"dtype": TensorProto.DOUBLE}),
    ],
)
def test_a_graph_gives_what_its_network_gives(
    tmp_path: Path, images: torch.Tensor, shape: tuple[Any, ...], options: dict[str, Any]
) -> None:
    backbone = bench.load(saved(tmp_path, graph(shape, **options)))
    _, pooled, _ = expected(images)
    # Five images through a graph for two: the last batch is filled up and cut again.
    close(backbone.features(images)["pooled"], pooled)
    close(backbone.features(images[:1])["pooled"], pooled[:1])
    assert backbone.card.dims == {"pooled": 6}
    assert backbone.card.parameters == sum(p.numel() for p in Net().parameters()) == 196
    assert not backbone.training


def test_an_export_of_torch(tmp_path: Path, images: torch.Tensor) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.ReLU(), torch.nn.Flatten())
    for _ in range(3):
        net(images)
    try:
        torch.onnx.export(net.eval(), (images[:1],), str(tmp_path / "net.onnx"), dynamo=False)
    except Exception as error:  # the exporter wants another package in some versions
        pytest.skip(f"torch.onnx.export does not run here: {error}")
    with torch.no_grad():
        close(bench.load(tmp_path / "net.onnx").features(images)["pooled"], net(images))


def test_outputs_are_chosen_and_listed(tmp_path: Path, images: torch.Tensor) -> None:
    path = saved(tmp_path, graph(outputs=("pooled", "logits", "maps", "tokens")))
    maps, pooled, logits = expected(images)
    with pytest.raises(BenchError, match=r"4 outputs: say with \?output=NAME.*pooled float \?x6; logits float \?x4"):
        bench.load(path)
    with pytest.raises(BenchError, match=r"no output 'nothing'; its outputs: pooled"):
        bench.load(f"{path}?output=nothing")
    both = bench.load(f"{path}?output=pooled&logits=logits")
    out = both.features(images)
    close(out["pooled"], pooled)
    close(out["logits"], logits)
    assert both.card.dims == {"pooled": 6, "logits": 4}
    close(bench.load(f"{path}?output=maps").features(images)["pooled"], pooled)
    with pytest.raises(BenchError, match=r"tokens \[256, 6\] per image: say \?pool=cls"):
        bench.load(f"{path}?output=tokens")
    first = bench.load(f"{path}?output=tokens&pool=cls")
    close(first.features(images)["pooled"], maps[:, :, 0, 0])
    close(bench.load(f"{path}?output=tokens&pool=avg").features(images)["pooled"], pooled)
    # Two features of one file are told apart in the store and on the board.
    assert first.card.feature == "output tokens, cls" != both.card.feature
    assert first.card.weight_digest == both.card.weight_digest


def test_pixels_of_eight_bits(tmp_path: Path, images: torch.Tensor) -> None:
    path = saved(tmp_path, graph(dtype=TensorProto.UINT8))
    backbone = bench.load(path)
    assert backbone.card.transform is not None
    assert backbone.card.transform.mean == (0, 0, 0)
    assert backbone.card.transform.std == (1, 1, 1)
    assert any("0 to 255" in note for note in backbone.card.notes)
    whole = (255 * images).round() / 255
    close(backbone.features(whole)["pooled"], expected(whole)[1])
    with pytest.raises(BenchError, match="leave \\?mean out"):
        bench.load(f"{path}?mean=0.5,0.5,0.5")


def test_the_transform_is_asked_for_stated_or_assumed(tmp_path: Path) -> None:
    path = saved(tmp_path, graph())
    assumed = bench.load(path).card
    assert assumed.transform == Transform(resize=32, crop=32, interpolation="bilinear")
    assert any("does not state its input transform: assumed resize 32" in note for note in assumed.notes)
    asked = bench.load(f"{path}?mean=0.5,0.5,0.5&std=0.25&resize=40&interpolation=bicubic").card
    assert asked.transform == Transform(
        resize=40, crop=32, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    assert not any("assumed" in note for note in asked.notes)
    stated = {"mean": "(0.1, 0.2, 0.3)", "std": "(1.0, 1.0, 1.0)", "interpolation": "bicubic", "crop_pct": "0.8"}
    told = bench.load(saved(tmp_path, graph(**stated, input_size="(3, 32, 32)"), "told.onnx")).card
    assert told.transform == Transform(
        resize=40, crop=32, interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)
    )
    assert any("the graph's metadata" in note for note in told.notes)
    config = {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    beside = bench.load(path).card
    assert beside.transform == Transform(
        resize=(32, 32), crop=None, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )


@pytest.mark.parametrize("order", ["nchw", "nhwc"])
def test_a_processor_that_gives_blue_first(tmp_path: Path, images: torch.Tensor, order: str) -> None:
    """Whether it lies in the metadata or beside the file."""
    last = order == "nhwc"
    shape = ("batch", 32, 32, 3) if last else ("batch", 3, 32, 32)
    config = {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_flip_channel_order": True}
    plain = bench.load(saved(tmp_path, graph(shape, last=last)))
    told = bench.load(saved(tmp_path, graph(shape, last=last, preprocessor_config=json.dumps(config)), "told.onnx"))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    beside = bench.load(tmp_path / "net.onnx")
    for swapped in (told, beside):
        close(swapped.features(images)["pooled"], plain.features(images.flip(1))["pooled"])
        assert swapped.card.feature != plain.card.feature
        assert any("red and blue are swapped" in note for note in swapped.card.notes)


def test_free_sizes_and_oblong_ones(tmp_path: Path) -> None:
    path = saved(tmp_path, graph(("batch", 3, "h", "w")))
    free = bench.load(path).card
    assert free.transform is not None
    assert (free.transform.crop, free.transform.mean) == (224, IMAGENET_MEAN)
    assert any("any size" in note for note in free.notes)
    chosen = bench.load(f"{path}?size=64").card.transform
    assert chosen is not None
    assert (chosen.resize, chosen.crop) == (73, 64)
    oblong = bench.load(saved(tmp_path, graph(("batch", 3, 24, 48)), "oblong.onnx")).card.transform
    assert oblong is not None
    assert (oblong.resize, oblong.crop) == ((24, 48), None)
    with pytest.raises(BenchError, match=r"takes images of 24x48: \?size"):
        bench.load(f"{tmp_path / 'oblong.onnx'}?size=48")
    with pytest.raises(BenchError, match=r"takes images of 24x48 pixels.*mend \?crop"):
        bench.load(f"{tmp_path / 'oblong.onnx'}?crop=24")


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ("ouput=pooled", "unknown choice 'ouput'.*nearest: output"),
        ("output", "is no choice"),
        ("pool=max", r"\?pool of an ONNX graph is cls or avg"),
        ("order=nhwc", "finds no 3 channels"),
        ("std=0,1,1", r"\?std of an ONNX graph cannot be so"),
        ("mean=red", r"\?mean of an ONNX graph is three numbers"),
        ("crop=1e3", r"\?crop of an ONNX graph is a number of pixels"),
        ("interpolation=best", r"\?interpolation of an ONNX graph cannot be so"),
    ],
)
def test_choices_that_cannot_be(tmp_path: Path, choices: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        bench.load(f"{saved(tmp_path, graph())}?{choices}")


def test_graphs_that_are_no_image_networks(tmp_path: Path) -> None:
    two = graph(inputs=(helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", 7]),))
    with pytest.raises(BenchError, match=r"takes 2 inputs \(images .*; input_ids int64 \?x7\)"):
        bench.load(saved(tmp_path, two))
    for shape, sentence in (
        ((1, 4, 32, 32), "images of 3 channels"),
        (("b", None, None, None), r"add \?order=nchw or \?order=nhwc"),
        ((3, 32, 32), "no batch of images"),
    ):
        bare = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])], "g", [helper.make_tensor_value_info("x", FLOAT, shape)],
            [helper.make_tensor_value_info("y", FLOAT, shape)],
        )  # fmt: skip
        model = helper.make_model(bare, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        with pytest.raises(BenchError, match=sentence):
            bench.load(saved(tmp_path, model))
    with pytest.raises(BenchError, match="--arch resnet18 makes no sense with ONNX"):
        bench.load(saved(tmp_path, graph()), arch="resnet18")


def test_a_graph_in_training_mode_is_refused(tmp_path: Path) -> None:
    """Its batch normalisation would make an image's feature depend on its neighbours."""
    model = graph(outputs=("centred",), extra=(
        helper.make_node("ReduceMean", ["pooled"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["pooled", "mean"], ["centred"]),
    ))  # fmt: skip
    with pytest.raises(BenchError, match="depends on the others of its batch: export it in eval mode"):
        bench.load(saved(tmp_path, model))


def test_weights_beside_the_file_and_outside_of_its_folder(tmp_path: Path, images: torch.Tensor) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    kept = {"all_tensors_to_one_file": True, "size_threshold": 100}
    onnx.save_model(graph(), folder / "net.onnx", save_as_external_data=True, location="net.data", **kept)
    backbone = bench.load(folder / "net.onnx")
    close(backbone.features(images)["pooled"], expected(images)[1])
    # The digest covers the weights wherever they are.
    data = bytearray((folder / "net.data").read_bytes())
    data[0] ^= 1
    (folder / "net.data").write_bytes(data)
    assert bench.load(folder / "net.onnx").card.weight_digest != backbone.card.weight_digest
    (folder / "net.data").rename(tmp_path / "secret")
    with pytest.raises(BenchError, match=r"a file 'net.data' beside it, which is not there"):
        bench.load(folder / "net.onnx")
    (folder / "net.data").symlink_to(tmp_path / "secret")
    with pytest.raises(BenchError, match="a link that leads out of its folder"):
        bench.load(folder / "net.onnx")
    for location in ("../secret", str(tmp_path / "secret"), "*/_ORT_MEM_ADDR_/*/../..", ""):
        model = onnx.load(folder / "net.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        with pytest.raises(BenchError, match="outside of its folder"):
            bench.load(saved(folder, model, "evil.onnx"))


def test_external_data_inside_subgraphs_attributes_and_functions_are_found(tmp_path: Path) -> None:
    outside = numpy_helper.from_array(np.ones(3, np.float32), "w")
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    entry = outside.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    constant = helper.make_node("Constant", [], ["k"], value=outside)
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("k", FLOAT, [3])])
    condition = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
    inner = helper.make_node("If", ["yes"], ["k2"], then_branch=branch, else_branch=branch)
    for extra in ((constant,), (condition, inner)):
        with pytest.raises(BenchError, match="'/etc/passwd', outside of its folder"):
            bench.load(saved(tmp_path, graph(extra=extra)))
    model = graph()
    model.functions.append(helper.make_function("own", "f", [], ["k"], [constant], [helper.make_opsetid("", 17)]))
    with pytest.raises(BenchError, match="'/etc/passwd', outside of its folder"):
        bench.load(saved(tmp_path, model))


def test_operators_of_a_library_of_their_own_are_not_looked_for(tmp_path: Path) -> None:
    model = graph(extra=(helper.make_node("Wild", ["pooled"], ["wild"], domain="evil.ops"),))
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    with pytest.raises(BenchError, match=r"operators of 'evil.ops', which a library of their own"):
        bench.load(saved(tmp_path, model))


def test_recognised_by_content_and_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, graph()))
    whole = path.read_bytes()
    for name in ("weights.pth", "model.safetensors", "x.ort", "no-suffix"):
        (tmp_path / name).write_bytes(whole)
        assert bench.load(tmp_path / name).card.architecture == "onnx"
    generator = np.random.default_rng(0)
    for number in range(60):
        content = bytearray(whole)
        if number % 3 == 0:
            content = content[: int(generator.integers(20, len(whole)))]
        else:
            for at in generator.integers(0, len(content), 1 + number % 5):
                content[at] = int(generator.integers(256))
        (tmp_path / "fuzz.onnx").write_bytes(content)
        # Anything but a sentence would come through.
        with contextlib.suppress(BenchError):
            bench.load(tmp_path / "fuzz.onnx")
    with pytest.raises(BenchError, match="is for ONNX graphs"):
        torch.save({"a": torch.ones(1)}, tmp_path / "net.pth")
        bench.load(f"{tmp_path / 'net.pth'}?output=x")


def test_what_a_black_box_cannot_serve(tmp_path: Path, images: torch.Tensor) -> None:
    backbone = bench.load(saved(tmp_path, graph()))
    with pytest.raises(BenchError, match="a black box without maps: give the checkpoint"):
        backbone.pyramid(images)
    with pytest.raises(BenchError, match="without token blocks"):
        backbone.blocks(images)
    with pytest.raises(BenchError, match="without gradients"):
        copy.deepcopy(backbone)
    with pytest.raises(BenchError, match="own precision"), torch.autocast("cpu", dtype=torch.bfloat16):
        backbone.features(images)
    for suite, sentence in (
        ("finetune", r"trains a copy.*'net' .*\(ONNX graph, opset 17, hand\): give a checkpoint"),
        ("attentive", "reads the tokens of a transformer"),
        ("coco", r"reads the maps.*'net' \(ONNX graph, opset 17, hand\) gives none"),
        ("ade20k", "reads the maps of a network's stages"),
    ):
        with pytest.raises(BenchError, match=sentence):
            bench.run(backbone, [suite], "demo")


def test_suites_read_its_features(tmp_path: Path) -> None:
    path = saved(tmp_path, graph())
    record = bench.run(path, ["knn", "linear", "similarity"], "demo", teacher=path, limit=60, runs=tmp_path / "runs")
    assert record.model.spec == path
    values = {(m.suite, m.metric): m.value for m in record.measurements if m.headline}
    assert values["knn", "top1"] > 10
    assert next(m.value for m in record.measurements if "cka" in m.metric) == pytest.approx(1, abs=1e-4)
    cost = bench.run(path, ["cost"], settings={"cost.batch": 2, "cost.repeats": 6}, limit=None)
    counted = {m.metric: m.value for m in cost.measurements}
    assert counted["parameters"] == 196
    assert "gflops" not in counted


def test_without_onnxruntime_the_sentence_says_what_to_install(tmp_path: Path) -> None:
    path = saved(tmp_path, graph())
    program = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        f"import bench\ntry: bench.load({path!r})\nexcept bench.BenchError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert "needs onnxruntime: pip install 'bench-representations[onnx]'" in done.stdout
