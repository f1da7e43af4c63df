"""The bundled trio: a teacher, and a small student with and without distillation from it (``scripts/train_trio.py``).

``demo:trio-teacher`` is EfficientNet-Lite0 at 128 pixels under a logistic head; ``demo:trio-plain`` and
``demo:trio-kd`` are ResNet-8 for 32 pixels. All three classify Fashion-MNIST and were trained on the images of
``--data demo``.
"""

from __future__ import annotations

from pathlib import Path

from adapters import path
from adapters.layout import CIFAR10
from adapters.timm_backbone import TimmBackbone
from bench.backbone import Backbone, freeze
from bench.errors import BenchError
from bench.transform import resized

FOLDER = Path(__file__).parent / "trio"
CLASSES = "fashion-mnist"
ENCODER = "demo:efficientnet-lite0"
TEACHER = "trio-teacher"
STUDENTS = {
    "trio-plain": ("student_plain", "supervised"),
    "trio-kd": ("student_kd", "distilled from demo:trio-teacher"),
}
NAMES = (TEACHER, *STUDENTS)


def load(name: str) -> Backbone:
    """One of the three, in eval mode, with its own classifier over the ten classes."""
    return _teacher() if name == TEACHER else _student(name)


def _teacher() -> Backbone:
    from safetensors.torch import load_file
    from torch import nn

    from bench.loading import load as load_model

    encoder = load_model(ENCODER)
    assert isinstance(encoder, TimmBackbone)
    head = load_file(FOLDER / "teacher_head.safetensors")
    network = encoder.network
    network.reset_classifier(len(head["bias"]))
    classifier = network.get_classifier()
    assert isinstance(classifier, nn.Linear)
    classifier.load_state_dict(head)
    card = encoder.card
    assert card.transform is not None
    update = {"name": TEACHER, "spec": f"demo:{TEACHER}", "classes": CLASSES, "dims": {}, "weight_digest": ""}
    return TimmBackbone(network, card.model_copy(update={**update, "transform": resized(card.transform, 128)}))


def _student(name: str) -> Backbone:
    file, method = STUDENTS[name]
    backbone = path.load(str(FOLDER / f"{file}.safetensors"), arch="cifar_resnet8")
    update = {"name": name, "spec": f"demo:{name}", "method": method, "classes": CLASSES, "notes": []}
    backbone.card = backbone.card.model_copy(update={**update, "transform": resized(CIFAR10, 32)})
    if "logits" not in backbone.card.dims:
        raise BenchError(f"{file}.safetensors came without its classifier: install bench again")
    return freeze(backbone)
