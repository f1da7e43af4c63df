"""LiDAR and alignment: known answers, generalised eigenvalues, and the views themselves."""

import numpy as np
import pytest
import scipy.linalg
from PIL import Image
from scipy.spatial.distance import pdist

import bench
from bench.errors import BenchError
from suites.views import lidar, misalignment

MODEL = "demo:mobilenetv2@32"


def views(m=40, q=6, width=5, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, 1, width)) + noise * rng.standard_normal((m, q, width))


@pytest.mark.parametrize("seed", range(3))
def test_lidar_is_the_rank_of_the_generalised_eigenvalues(seed):
    x = views(seed=seed) * np.array([5, 2, 1, 0.5, 0.1])
    means = x.mean(axis=1)
    sb = np.cov(means.T)
    sw = sum(np.cov(own.T) for own in x) / len(x) + 1e-4 * np.eye(5)
    values = scipy.linalg.eigh(sb, sw, eigvals_only=True)
    p = values / values.sum()
    assert lidar(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


def test_lidar_counts_directions_that_tell_images_apart():
    wide = lidar(views(m=4000, width=8, noise=0.5))
    assert wide == pytest.approx(8, abs=0.1)
    # Three of eight directions know which image it is, the rest is noise from view to view.
    x = views(m=4000, width=8, noise=0.05, seed=1)
    x[..., 3:] = np.random.default_rng(2).standard_normal((4000, 6, 5))
    assert lidar(x) == pytest.approx(3, abs=0.3)
    # A linear map changes neither scatter's ratio.
    turn = np.random.default_rng(3).standard_normal((8, 8)) + 4 * np.eye(8)
    assert lidar(x @ turn, delta=1e-12) == pytest.approx(lidar(x, delta=1e-12), rel=1e-6)
    with pytest.raises(BenchError, match="the same for every image"):
        lidar(np.ones((4, 3, 2)))


def test_alignment_by_hand_and_by_scipy():
    same = np.broadcast_to(np.random.default_rng(0).standard_normal((3, 1, 4)), (3, 5, 4))
    assert misalignment(same).tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    opposite = np.array([[[2.0, 0], [-7.0, 0]]])
    assert misalignment(opposite).tolist() == pytest.approx([4])
    assert misalignment(opposite, 1.0).tolist() == pytest.approx([2])
    x = views().astype(np.float32)
    z = x / np.linalg.norm(x, axis=2, keepdims=True)
    np.testing.assert_allclose(misalignment(x), [(pdist(own) ** 2).mean() for own in z], rtol=1e-5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1)):
        for number, name in enumerate(("dark", "light")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 90, (8, 8, 3)).repeat(5, 0).repeat(5, 1) + 150 * number
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.png")
    return root


def run(pictures, seed=0, **options):
    settings = {f"quality.{name}": value for name, value in {"views": 4, **options}.items()}
    return bench.run(
        MODEL, ["quality"], f"imagefolder:{pictures}", protocols={"quality": "views"}, settings=settings, workers=0,
        seed=seed, device="cpu",
    )  # fmt: skip


def test_a_run_is_repeatable_and_says_what_it_looked_at(pictures):
    first, again, other = run(pictures), run(pictures), run(pictures, seed=1)
    numbers = [[m.value for m in r.measurements] for r in (first, again, other)]
    assert numbers[0] == numbers[1] != numbers[2]
    found = {m.metric: m for m in first.measurements}
    assert set(found) == {"lidar", "alignment"}
    assert found["lidar"].headline
    assert found["lidar"].n == 8
    assert 1 <= found["lidar"].value <= 8
    assert found["alignment"].interval[0] <= found["alignment"].value <= found["alignment"].interval[1]
    assert 0 < found["alignment"].value < 4
    assert found["lidar"].details["views"] == 4
    # Fewer images than there are.
    assert run(pictures, images=3).measurements[0].n == 3


def test_an_image_that_cannot_be_decoded_is_passed_over(pictures, tmp_path):
    import shutil

    copy = tmp_path / "pictures"
    shutil.copytree(pictures, copy)
    (copy / "train" / "dark" / "0.png").write_bytes(b"no image")
    assert run(copy).measurements[0].n == 7
    for path in (copy / "train").glob("*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(BenchError, match="fewer than two images that can be decoded"):
        run(copy)
