"""Adapters: any checkpoint -> Backbone. One row per kind of SPEC (``scheme:rest``); a bare path is ``path``.

An adapter is a function ``load(rest, *, arch, weights_key, trust) -> Backbone`` (or, for features made elsewhere, a
`bench.stored.StoredFeatures`).
"""

from bench.registry import Entry

TABLE = {
    "path": Entry("adapters.path:load", "a weight file or folder, with --arch"),
    "demo": Entry("adapters.demo:load", "bundled ImageNet encoders"),
    "timm": Entry("adapters.timm_models:load", "a timm model by name"),
    "torchvision": Entry("adapters.torchvision_models:load", "a torchvision model by name"),
    "hf": Entry("adapters.hub:load", "a model of the Hugging Face hub: ORG/NAME, from the local cache or downloaded"),
    "openclip": Entry("adapters.openclip:load", "an open_clip model: NAME/TAG, NAME?weights=FILE, or a folder"),
    "features": Entry("adapters.features:load", "features made elsewhere: a folder with train.npz and test.npz"),
}

MODELS = {
    "demo:efficientnet-lite0": Entry(TABLE["demo"].target, "ImageNet-1k, supervised, 224 px, classifier included"),
    "demo:efficientnet-lite1": Entry(TABLE["demo"].target, "ImageNet-1k, supervised, 240 px, classifier included"),
    "demo:efficientnet-lite2": Entry(TABLE["demo"].target, "ImageNet-1k, supervised, 260 px, classifier included"),
    "demo:mobilenetv2": Entry(TABLE["demo"].target, "ImageNet-1k, supervised, 224 px, no classifier"),
    "demo:trio-teacher": Entry(TABLE["demo"].target, "EfficientNet-Lite0 at 128 px under a head for Fashion-MNIST"),
    "demo:trio-kd": Entry(TABLE["demo"].target, "ResNet-8, 32 px, Fashion-MNIST, distilled from the trio's teacher"),
    "demo:trio-plain": Entry(TABLE["demo"].target, "ResNet-8, 32 px, Fashion-MNIST, the same without distillation"),
    "demo:minilm": Entry(TABLE["demo"].target, "MiniLM-L6 text encoder for sentences, extra [text]"),
}
"""Models that have a name and need no file of the user's; any of them takes ``@SIZE`` for another resolution."""
