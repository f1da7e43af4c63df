"""An ONNX file as a model: which output is the feature and what goes in, by graph, metadata and the SPEC's choices.

``net.onnx?output=embedding&pool=cls&mean=0.5,0.5,0.5``: choices follow the path, see `CHOICES`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from adapters import processor
from adapters.onnx_backbone import DTYPES, OnnxBackbone, first_line, shape_of
from adapters.onnxfile import OnnxFile, read_onnx
from adapters.options import refuse
from bench.backbone import Backbone, freeze
from bench.card import Card, Transform
from bench.data.choices import with_choices
from bench.errors import BenchError
from bench.loader import output_shape
from bench.transform import resized

CHOICES = ("output", "logits", "pool", "order", "size", "resize", "crop", "interpolation", "mean", "std")
"""``output``: the feature; ``logits``: the graph's own classifier; ``pool``: ``cls`` or ``avg`` of tokens; ``order``:
``nchw`` or ``nhwc``; ``size``: input size in pixels of a graph that takes any; the others are the transform's."""
_SMALL = 64
_TOLERANCE = 1e-3
_RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def load(path: Path, text: str = "", *, spec: str, arch: str | None = None, weights_key: str | None = None) -> Backbone:
    """The graph in ``path``; ``text`` is what follows the ``?`` of the SPEC.

    Raises `BenchError` for a graph that is damaged, takes other things than one batch of images, or gives several
    outputs of which none was chosen.
    """
    refuse("ONNX", arch=arch, weights_key=weights_key)
    _, choices = with_choices("onnx", f"?{text}", CHOICES)
    if text and not choices:
        raise BenchError(f"?{text[:80]} after {path} is no choice: write ?output=NAME")
    for name, words in (("pool", ("cls", "avg")), ("order", ("nchw", "nhwc"))):
        if choices.get(name, words[0]) not in words:
            raise BenchError(f"?{name} of an ONNX graph is {' or '.join(words)}, not '{choices[name][:80]}'")
    facts = read_onnx(path)
    session = _session(facts)
    shape, dtype, channels_last = _input(path, session, choices.get("order"))
    outputs = _outputs(path, session, choices)
    transform, notes = _transform(facts, shape, channels_last, dtype == "tensor(uint8)", choices)
    blue_first = processor.swaps(_processor(facts))
    if blue_first:
        notes.append("its processor gives blue first: red and blue are swapped where images enter the graph")
    if shape[0] is not None:
        notes.append(f"the graph takes {shape[0]} images at once: smaller batches are filled up")
    if facts.parameters:
        notes.append("parameters are the numbers in the graph's tensors, running statistics included")
    card = Card(
        name=path.stem,
        spec=spec,
        architecture="onnx",
        family="module",
        dims={},
        feature=_feature(session, outputs["pooled"], choices) + (", of images blue first" if blue_first else ""),
        transform=transform,
        parameters=facts.parameters,
        weight_digest=facts.digest(),
        container=", ".join(part for part in ("ONNX graph", f"opset {facts.opset}", facts.producer) if part),
        layout=f"input {_described(session.get_inputs()[0])}",
        notes=notes,
    )
    backbone = OnnxBackbone(
        session, card, outputs=outputs, pool=choices.get("pool"), channels_last=channels_last, fixed=shape[0],
        blue_first=blue_first,
    )  # fmt: skip
    _try(backbone)
    return freeze(backbone)


def _session(facts: OnnxFile) -> Any:
    """onnxruntime's session on the processor. Nothing is registered beyond the operators that it brings."""
    path = facts.path
    if facts.domains:
        raise BenchError(
            f"{path} uses operators of {', '.join(sorted(map(ascii, facts.domains)))[:120]}, which a library of their "
            f"own would have to bring: none is loaded for a model; export it with standard operators"
        )
    try:
        import onnxruntime
    except ImportError:
        raise BenchError(
            f"{path} is an ONNX graph, which needs onnxruntime: pip install 'bench-representations[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    # Whatever the file's name says.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's have no common base
        raise BenchError(f"onnxruntime cannot load {path}: {first_line(error)}") from error


def _described(value: Any) -> str:
    lengths = "x".join(str(one) if one else "?" for one in shape_of(value))
    return f"{value.name} {value.type.removeprefix('tensor(').removesuffix(')')} {lengths}".rstrip()


def _input(path: Path, session: Any, order: str | None) -> tuple[list[int | None], str, bool]:
    """(lengths, type, whether the channels come last) of the one input. Refuses graphs that take anything else."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        listed = "; ".join(map(_described, inputs)) or "none"
        raise BenchError(
            f"{path} takes {len(inputs)} inputs ({listed}) and not one batch of images: export the image tower alone"
        )
    lengths, dtype = shape_of(inputs[0]), inputs[0].type
    if len(lengths) != 4 or dtype not in DTYPES:
        raise BenchError(f"{path} takes {_described(inputs[0])}, no batch of images [B, 3, H, W] or [B, H, W, 3]")
    first, last = lengths[1], lengths[3]
    # Three rows of pixels are unheard of: a length of 3 is that of the channels.
    possible = [name for name, channels in (("nchw", first), ("nhwc", last)) if channels in (3, None)]
    if order is not None and order not in possible:
        raise BenchError(f"{path} takes {_described(inputs[0])}, in which ?order={order} finds no 3 channels")
    if not possible:
        raise BenchError(f"{path} takes {_described(inputs[0])}: images of 3 channels are needed")
    if order is None and first is None and last is None:
        raise BenchError(f"{path} does not say where its channels are: add ?order=nchw or ?order=nhwc")
    if order is None:
        order = "nhwc" if last == 3 and first != 3 else "nchw"
    return lengths, dtype, order == "nhwc"


def _outputs(path: Path, session: Any, choices: Mapping[str, str]) -> dict[str, str]:
    """Feature of the Backbone contract -> output of the graph. Refuses an unknown one, and to choose among several."""
    there = {output.name: output for output in session.get_outputs()}
    listed = "; ".join(map(_described, there.values()))
    for choice in ("output", "logits"):
        if choice in choices and choices[choice] not in there:
            raise BenchError(f"{path} has no output '{choices[choice][:80]}'; its outputs: {listed}")
    rest = [name for name in there if name != choices.get("logits")]
    if "output" not in choices and len(rest) != 1:
        raise BenchError(f"{path} gives {len(there)} outputs: say with ?output=NAME which is the feature: {listed}")
    pooled = choices.get("output", rest[0] if rest else "")
    return {"pooled": pooled, **({"logits": choices["logits"]} if "logits" in choices else {})}


def _feature(session: Any, output: str, choices: Mapping[str, str]) -> str:
    """What ``pooled`` is, for the card: another output or another pooling is another feature."""
    rank = next(len(one.shape or ()) for one in session.get_outputs() if one.name == output)
    pooled = choices.get("pool", "avg" if rank == 4 else "")
    return f"output {output}{f', {pooled}' if pooled and rank != 2 else ''}"


def _transform(
    facts: OnnxFile, shape: list[int | None], channels_last: bool, raw: bool, choices: Mapping[str, str]
) -> tuple[Transform, list[str]]:
    """The choices', else the metadata's, else that of a configuration beside the file, else a stated assumption."""
    height, width = (shape[1], shape[2]) if channels_last else (shape[2], shape[3])
    notes = []
    known, origin = _stated(facts)
    asked = _asked(choices, raw)
    transform = known or Transform(interpolation="bilinear")
    side = height or width
    if "size" in choices:
        if side:
            raise BenchError(f"{facts.path} takes images of {height or '?'}x{width or '?'}: ?size cannot change that")
        transform = resized(transform, _whole(choices["size"], "size"))
    elif side is None:
        if known is None and not {"crop", "resize"} & set(asked):
            notes.append("the graph takes images of any size: 224 pixels assumed (?size=N)")
    elif height and width and height != width:
        transform = transform.model_copy(update={"resize": (height, width), "crop": None})
    elif output_shape(transform) != (3, side, side):
        transform = resized(transform, side)
        if known is None and side <= _SMALL:  # images of such sizes are used whole
            transform = transform.model_copy(update={"resize": side})
    if raw:
        transform = transform.model_copy(update=_RAW)
        notes.append("the graph takes pixels of 0 to 255 and standardises them itself")
    try:
        transform = Transform.model_validate({**transform.model_dump(), **asked})
    except ValidationError as error:
        first = error.errors()[0]
        raise BenchError(f"?{first['loc'][0]} of an ONNX graph cannot be so: {first['msg']}") from None
    if known is not None:
        notes.append(f"input transform: {origin}")
    elif not {"mean", "std"} <= set(asked) and not raw:
        notes.append(
            f"the graph does not state its input transform: assumed {transform.describe()} (?mean=, ?std=, ?resize=, "
            f"?crop=, ?interpolation= say otherwise)"
        )
    made = (output_shape(transform) or (3, None, None))[1:]
    if any(own is not None and one != own for one, own in zip(made, (height, width), strict=True)):
        raise BenchError(
            f"{facts.path} takes images of {height or '?'}x{width or '?'} pixels, and its transform "
            f"({transform.describe()}) gives {made[0] or '?'}x{made[1] or '?'}: mend ?crop or ?resize"
        )
    return transform, notes


def _stated(facts: OnnxFile) -> tuple[Transform | None, str]:
    """The transform that the graph's metadata or the folder's ``preprocessor_config.json`` states, and which of them.

    Metadata are a ``preprocessor_config`` (JSON as Hugging Face writes it), or ``mean`` and ``std`` with, where given,
    ``input_size``, ``interpolation`` and ``crop_pct``, as timm's configurations call them.
    """
    told = facts.metadata
    beside = facts.path.parent / "preprocessor_config.json"
    where = "the graph's metadata"
    try:
        if "preprocessor_config" in told:
            return processor.transform_of(json.loads(told["preprocessor_config"])), where
        if {"mean", "std"} <= set(told):
            size = _numbers(told.get("input_size", "224"))[-1]
            share = _numbers(told.get("crop_pct", "0.875"))[0]
            return (
                Transform.model_validate(
                    {
                        "mean": _numbers(told["mean"]),
                        "std": _numbers(told["std"]),
                        "crop": int(size),
                        "resize": int(size / share),
                        "interpolation": told.get("interpolation", "bilinear"),
                    }
                ),
                where,
            )
        where = f"{beside.name} beside the file"
        return processor.transform_beside(beside), where
    except (ValueError, TypeError, OverflowError, IndexError, ZeroDivisionError, RecursionError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise BenchError(f"{facts.path}: {where} states an input transform that cannot be: {first}") from None


def _processor(facts: OnnxFile) -> dict[str, Any]:
    """The processor's configuration that `_stated` reads, empty where it reads none."""
    told = facts.metadata
    if "preprocessor_config" in told:
        content = json.loads(told["preprocessor_config"])
        return content if isinstance(content, dict) else {}
    return {} if {"mean", "std"} <= set(told) else processor.stated(facts.path.parent / "preprocessor_config.json")


def _numbers(text: str) -> list[float]:
    return [float(one) for one in re.split(r"[\s,]+", text.strip("[]() \t\n"))]


def _whole(text: str, name: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) < 1:
        raise BenchError(f"?{name} of an ONNX graph is a number of pixels, not '{text[:80]}'")
    return int(text)


def _asked(choices: Mapping[str, str], raw: bool) -> dict[str, Any]:
    """The fields of the transform that the SPEC's choices set."""
    found: dict[str, Any] = {}
    for name in ("resize", "crop"):
        if name in choices:
            sides = [_whole(side, name) for side in choices[name].split("x") if choices[name] != "none"]
            if len(sides) > 2:
                raise BenchError(f"?{name} of an ONNX graph is N, HxW or none, not '{choices[name][:80]}'")
            found[name] = None if not sides else sides[0] if len(sides) == 1 else tuple(sides)
    for name in ("mean", "std"):
        if name in choices:
            if raw:
                raise BenchError(f"the graph takes pixels of 0 to 255 and standardises them itself: leave ?{name} out")
            try:
                numbers = _numbers(choices[name])
            except ValueError:
                numbers = []
            if len(numbers) not in (1, 3):
                raise BenchError(f"?{name} of an ONNX graph is three numbers as in 0.5,0.5,0.5: '{choices[name][:80]}'")
            found[name] = tuple(numbers * (3 // len(numbers)))
    if "interpolation" in choices:
        found["interpolation"] = choices["interpolation"]
    return found


def _try(backbone: OnnxBackbone) -> None:
    """Run two images: the widths of the outputs, and that what an image gives does not depend on its neighbours.

    A graph exported in training mode standardises each batch by itself: its features would depend on the batch.
    """
    card = backbone.card
    assert card.transform is not None
    made = output_shape(card.transform) or (3, 224, 224)
    images = torch.randn(2, *made, generator=torch.Generator().manual_seed(0))
    if card.transform.mean == _RAW["mean"] and card.transform.std == _RAW["std"]:
        images = images.sigmoid()
    with torch.no_grad():
        together, alone = backbone.features(images), backbone.features(images[:1])
    for name, both in together.items():
        one = alone[name][0]
        if not torch.allclose(both[0], one, rtol=_TOLERANCE, atol=_TOLERANCE * float(one.abs().max())):
            raise BenchError(
                f"{card.name}: what the graph gives for an image depends on the others of its batch: export it in "
                f"eval mode"
            )
    dims = {name: both.shape[1] for name, both in together.items()}
    classes = "imagenet-1k" if dims.get("logits") == 1000 else None
    backbone.card = card.model_copy(update={"dims": dims, "classes": classes})
