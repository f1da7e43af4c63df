"""Grad-CAM agreement: the maps against pytorch-grad-cam and by hand, identity, refusals."""

import numpy as np
import pytest
import torch
from lookhelp import backbone, pictures, vit
from torch import nn

import bench
from bench.errors import BenchError
from suites.class_activation import GradCAM

CLASSIFIER = {"classes": 2, "label_set": "squares"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("squares"), np.random.default_rng(0))


def cnn(seed=0, size=64, name="test_resnet", **more):
    return backbone(name, seed=seed, size=size, **{**CLASSIFIER, **more})


def run(student, teacher, data, **settings):
    given = {f"gradcam.{k}": v for k, v in {"replicates": 200, **settings}.items()}
    return bench.run(student, ["gradcam"], data, teacher=teacher, settings=given).measurements


def test_after_mean_pooling_it_is_the_classifiers_weights(images):
    """Zhou et al. 2016: under mean pooling and one linear layer Grad-CAM is CAM over the number of positions."""
    network = cnn()
    x = torch.randn(3, 3, 64, 64)
    camera = GradCAM(network)
    found = camera(x)
    with torch.no_grad():
        last = network.network.forward_features(x)
        logits = network.features(x)["logits"]
    torch.testing.assert_close(found.logits, logits)
    weight = network.network.get_classifier().weight[logits.argmax(1)]
    expected = torch.einsum("bc,bchw->bhw", weight, last).clamp_min(0) / last[0, 0].numel()
    torch.testing.assert_close(found.maps, expected)
    assert found.maps.shape[1] > 1
    assert camera.layer == "network.layer4"
    # Parameters and gradients are as they were.
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "densenet121"])
def test_it_is_what_pytorch_grad_cam_computes(name):
    library = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network = cnn(name=name, size=96)
    x = torch.randn(2, 3, 96, 96)
    camera = GradCAM(network)
    classes = torch.tensor([1, 0])
    mine = camera(x, classes).maps.numpy()
    model = network.network
    target = dict(model.named_modules())[camera.layer.removeprefix("network.")]
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    with library.GradCAM(model=model, target_layers=[target]) as cam:
        theirs = cam(input_tensor=x, targets=[ClassifierOutputTarget(int(c)) for c in classes])
    from pytorch_grad_cam.utils.image import scale_cam_image

    seen = mine.max((1, 2)) > 0
    assert seen.any()
    mine, theirs = mine[seen], theirs[seen]
    # The library scales before and after it enlarges, and adds 1e-7 to what it divides by, which shows in maps of
    # untrained networks.
    mine = scale_cam_image(scale_cam_image(mine / mine.max((1, 2), keepdims=True), (96, 96)))
    np.testing.assert_allclose(mine, theirs / theirs.max((1, 2), keepdims=True), atol=1e-5)


def test_networks_of_other_makes_show_a_map():
    for spec in ("demo:trio-kd", "demo:trio-plain"):
        camera = GradCAM(bench.load(spec))
        found = camera(torch.randn(2, 3, 32, 32))
        assert found.maps.ndim == 3
        assert found.maps.shape[1] > 1
    assert (camera(torch.zeros(1, 3, 32, 32)).maps >= 0).all()


def test_a_network_against_itself_is_exactly_alike(images):
    found = run(cnn(), cnn(), images)
    assert {m.metric for m in found} == {"cosine", "spearman"}
    assert {m.settings["class"] for m in found} == {"teacher", "own"}
    for m in found:
        assert m.value == 1.0
        assert m.interval == (1.0, 1.0)
    assert [m.metric for m in found if m.headline] == ["cosine"]


def test_other_weights_find_the_class_elsewhere(images):
    found = run(cnn(1, size=96), cnn(0), images, samples=8)
    m = found[0]
    assert 0 <= m.value < 1
    assert m.details["grid"]["teacher"] != m.details["grid"]["student"]
    assert m.n + m.details.get("blank", 0) == 8
    assert m.details["layer"]["teacher"] == "network.layer4"
    assert not any("among" in m.settings for m in found), "'squares' are not known to be the folder's classes"


def test_the_bundled_students_on_their_own_data():
    """A known set of classes: the images that both have right are a group of their own."""
    given = {"gradcam.samples": 24, "gradcam.replicates": 200}
    record = bench.run("demo:trio-kd", ["gradcam"], "demo", teacher="demo:trio-plain", settings=given, limit=40)
    groups = {(m.settings["class"], m.settings.get("among")): m for m in record.measurements if "cosine" in m.metric}
    assert set(groups) == {("teacher", None), ("teacher", "both right"), ("own", None)}
    assert groups["teacher", "both right"].n <= groups["teacher", None].n <= 24
    assert 0.3 < groups["teacher", None].value < 1
    assert groups["teacher", None].value > groups["teacher", None].details["of_different_images"]


def test_refusals(images):
    with pytest.raises(BenchError, match="no classifier of its own, so no class"):
        run(cnn(classes=0, label_set=None), cnn(), images)
    with pytest.raises(BenchError, match=r"transformer without convolutional maps: .*suite 'attention'"):
        run(cnn(), vit(), images)
    with pytest.raises(BenchError, match="2 classes .squares. of .* 3 .squares. of"):
        run(cnn(), cnn(classes=3), images)
    with pytest.raises(BenchError, match="the classifiers differ"):
        run(cnn(), cnn(label_set="circles"), images)

    class Pooled(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    with pytest.raises(BenchError, match="has no classifier of its own"):
        run(bench.wrap(Pooled(), transform={"resize": 8, "crop": 8}), cnn(), images)
    flat = cnn(size=16)
    flat.network.layer1 = nn.AdaptiveAvgPool2d(1)
    flat.network.conv1 = nn.Conv2d(3, flat.network.layer2[0].conv1.in_channels, 16)
    with pytest.raises(BenchError, match="none with more than one position"):
        GradCAM(flat)(torch.zeros(1, 3, 16, 16))
