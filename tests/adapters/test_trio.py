"""The bundled trio: three networks with their own classifiers, as their script left them."""

import numpy as np
import pytest
import torch

import bench
from bench.data.opening import open_data


@pytest.mark.parametrize("name", ["demo:trio-teacher", "demo:trio-kd", "demo:trio-plain"])
def test_their_own_classifiers_know_the_test_images(name):
    backbone = bench.load(name)
    assert backbone.card.classes == "fashion-mnist"
    assert not backbone.training
    test = open_data("demo").test
    rows = np.arange(0, len(test), 10)
    with torch.inference_mode():
        images = torch.stack([backbone.preprocess(test.image(int(i))) for i in rows])
        predicted = backbone.features(images)["logits"].argmax(dim=1).numpy()
    # About 82 % (students) and 87 % (teacher) of 10 000; two of a hundred are six points of deviation.
    assert (predicted == test.labels[rows]).mean() > 0.7


def test_the_three_differ():
    digests = {bench.load(f"demo:trio-{name}").card.weight_digest for name in ("teacher", "kd", "plain")}
    assert len(digests) == 3
