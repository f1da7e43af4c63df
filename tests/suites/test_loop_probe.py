"""The network in the loop: against a plain torch loop over the same batches, resumed exactly, never changed."""

import numpy as np
import pytest
import torch

import bench
from bench.errors import BenchError
from suites import loop_probe
from suites.training.length import Length
from suites.training.order import Order

MODEL = "demo:mobilenetv2@32"


@pytest.fixture(scope="module")
def model():
    return bench.load(MODEL)


def run(model, pictures, protocol="moco", **more):
    settings = {"batch": 12, "epochs": 4, **more.pop("options", {})}
    return bench.run(
        model, ["linear"], pictures, protocols={"linear": protocol},
        settings={f"linear.{name}": value for name, value in settings.items()}, workers=0, device="cpu", **more,
    )  # fmt: skip


def test_without_augmentation_it_is_a_plain_loop_over_the_features(model, pictures, monkeypatch, tmp_path):
    monkeypatch.setattr(loop_probe, "augmentation", lambda settings, backbone: backbone.preprocess)
    options = {"rates": 3.0, "weight_decay": 0.01, "schedule": "cosine"}
    record = run(model, pictures, options=options, runs=tmp_path, seed=5)
    top1 = record.measurements[0]
    assert top1.protocol.startswith("linear/moco@1+")
    from bench.data.opening import open_data

    splits = open_data(pictures)
    with torch.inference_mode():
        x, seen = (
            torch.stack([model.features(model.preprocess(s.image(i))[None])["pooled"][0] for i in range(len(s))])
            for s in splits
        )
    x, seen = x.clone(), seen.clone()
    y = torch.from_numpy(splits.train.labels)
    layer = torch.nn.Linear(x.shape[1], 3)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, x.shape[1], generator=torch.Generator().manual_seed(5)) * 0.01)
        layer.bias.zero_()
    sgd = torch.optim.SGD(layer.parameters(), lr=3.0, momentum=0.9, weight_decay=0.01)
    length = Length.of(30, 12, epochs=4)
    order = Order(length, 5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, length.iterations)
    for step in range(length.iterations):
        rows = order.batch(step)
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(layer(x[rows]), y[rows]).backward()
        sgd.step()
        schedule.step()
    with np.load(tmp_path / top1.outcomes) as table:
        score = torch.softmax(layer(seen), dim=1)[np.arange(15), splits.test.labels].detach().numpy()
        np.testing.assert_allclose(table["score"], score, atol=2e-3)
    assert top1.details["iterations"] > 0


def test_crops_change_the_heads_and_nothing_of_the_network(model, pictures):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, two = run(model, pictures), run(model, pictures)
    assert [m.value for m in one.measurements] == [m.value for m in two.measurements]
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert one.measurements[0].selection == "last"


def test_how_many_images_go_through_at_once_changes_nothing_seen(model, pictures, monkeypatch):
    seen = []
    original = loop_probe.Group.advance

    def noting(self, z, targets):
        seen.append((z.clone(), targets.clone()))
        original(self, z, targets)

    monkeypatch.setattr(loop_probe.Group, "advance", noting)
    run(model, pictures, batch=12)
    whole, seen[:] = list(seen), []
    run(model, pictures, batch=5)
    assert len(whole) == len(seen) == 8
    for (z, y), (other, labels) in zip(whole, seen, strict=True):
        torch.testing.assert_close(z, other, atol=1e-4, rtol=1e-4)
        assert torch.equal(y, labels)
    # Two epochs do not see the same crops.
    assert not torch.equal(whole[0][0], whole[2][0])


def test_an_interrupted_run_goes_on_at_its_last_epoch_with_the_same_bits(model, pictures, monkeypatch, tmp_path):
    options = {"rates": "1,10", "weight_decay": "0,0.001"}
    undisturbed = run(model, pictures, "ibot", options=options, runs=tmp_path / "a")
    steps = []
    original = loop_probe.Group.advance

    def dying(self, z, targets):
        if len(steps) == 5:
            raise KeyboardInterrupt
        steps.append(1)
        original(self, z, targets)

    with monkeypatch.context() as patch:
        patch.setattr(loop_probe.Group, "advance", dying)
        with pytest.raises(KeyboardInterrupt):
            run(model, pictures, "ibot", options=options, runs=tmp_path / "b")
    steps.clear()

    def counting(self, z, targets):
        steps.append(1)
        original(self, z, targets)

    monkeypatch.setattr(loop_probe.Group, "advance", counting)
    resumed = run(model, pictures, "ibot", options=options, runs=tmp_path / "b")
    assert len(steps) == 4  # Of eight, the two epochs of two that were finished are not made again.
    for a, b in zip(undisturbed.measurements, resumed.measurements, strict=True):
        assert (a.value, a.details["path"]) == (b.value, b.details["path"])
    tables = (tmp_path / "a" / undisturbed.measurements[0].outcomes, tmp_path / "b" / resumed.measurements[0].outcomes)
    with np.load(tables[0]) as a, np.load(tables[1]) as b:
        assert (a["score"] == b["score"]).all()


def test_the_published_grids_choose_on_test_and_say_so(model, pictures):
    record = run(model, pictures, "dinov2", options={"iterations": 3})
    m = record.measurements[0]
    assert (m.selection, m.interval) == ("best_on_test", None)
    assert len(m.details["path"]) == 13
    held = run(model, pictures, "dinov2", options={"iterations": 3, "select": "holdout"})
    assert held.measurements[0].selection == "holdout"
    assert held.measurements[0].interval is not None


def test_clipped_crops_are_byols_formula():
    from PIL import Image

    from suites.crops import ClippedCrop

    # A panorama: most crops of a large area and an aspect below 4 / 3 are higher than it.
    image = Image.new("RGB", (400, 60))
    torch.manual_seed(7)
    found = [ClippedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(300)]
    torch.manual_seed(7)
    for top, left, high, wide in found:
        area = torch.empty(1).uniform_(0.08, 1.0).item() * 400 * 60
        aspect = np.exp(torch.empty(1).uniform_(float(np.log(3 / 4)), float(np.log(4 / 3))).item())
        w, h = min(round((area * aspect) ** 0.5), 400), min(round((area / aspect) ** 0.5), 60)
        assert (high, wide) == (h, w)
        assert top == torch.randint(0, 60 - h + 1, (1,)).item()
        assert left == torch.randint(0, 400 - w + 1, (1,)).item()
    assert sum(high == 60 for _, _, high, _ in found) > 100
    assert len({left for _, left, _, _ in found}) > 50


@pytest.mark.parametrize(
    ("name", "crop", "interpolation"),
    [("mae", "ClippedCrop", "bicubic"), ("byol", "ClippedCrop", "bicubic"), ("simclr", "RandomResizedCrop", "bicubic"),
     ("moco", "RandomResizedCrop", "bilinear"), ("ibot", "RandomResizedCrop", "bilinear"),
     ("dinov2", "RandomResizedCrop", "bicubic")],
)  # fmt: skip
def test_crops_are_drawn_as_the_sources_draw_them(model, name, crop, interpolation):
    from bench.protocol import get

    settings = get("linear", name).settings
    first = loop_probe.augmentation(settings, model).transform.transforms[0]
    assert (type(first).__name__, first.interpolation.value) == (crop, interpolation)


def test_the_best_epoch_on_test_is_taken_where_the_source_takes_it(model, pictures, monkeypatch, tmp_path):
    from suites.best_epoch import BestEpoch

    seen = []
    original = BestEpoch.look

    def noting(self, groups, epoch):
        (feature,) = groups
        heads = groups[feature][1].heads()
        x = self._seen[feature]
        seen.append([(heads.logits(x, h).argmax(axis=1) == self._y).mean() * 100 for h in range(2)])
        original(self, groups, epoch)

    monkeypatch.setattr(BestEpoch, "look", noting)
    # A rate that throws the heads about: the last epoch is seldom the best.
    options = {"rates": "0.1,3000", "epochs": 7}
    record = run(model, pictures, "ibot", options=options, runs=tmp_path)
    top1 = record.measurements[0]
    table = np.array(seen)
    assert table.shape == (7, 2)
    assert (top1.selection, top1.interval) == ("best_on_test", None)
    assert "all epochs" in top1.interval_note
    assert top1.value == pytest.approx(table.max())
    assert [p["test_top1"] for p in top1.details["path"]] == pytest.approx(list(table.max(axis=0)))
    assert [p["epoch"] for p in top1.details["path"]] == list(table.argmax(axis=0) + 1)
    assert table[-1].max() < table.max()  # The last epoch would have been another number.
    with np.load(tmp_path / top1.outcomes) as outcomes:
        assert outcomes["correct"].mean() * 100 == pytest.approx(top1.value)


def test_a_single_rate_is_chosen_by_its_epochs_alone(model, pictures):
    def found(**more):
        return run(model, pictures, "dino-r50", options={"epochs": 3, "rates": 100, **more}).measurements[0]

    best, last = found(), found(select="last")
    # Thirty images make two whole batches of twelve an epoch; a batch of a hundred is one of thirty.
    assert (last.details["iterations"], last.details["batch"]) == (6, 12)
    wide = found(select="last", batch=100)
    assert (wide.details["iterations"], wide.details["batch"]) == (3, 30)
    # A recipe that reports the last epoch has the best one for the asking.
    asked = run(model, pictures, "moco", options={"epochs": 3, "rates": 100, "select": "best_on_test"})
    assert asked.measurements[0].details["path"][0]["epoch"] in (1, 2, 3)
    assert (best.selection, best.interval) == ("best_on_test", None)
    assert best.details["path"][0]["epoch"] in (1, 2, 3)
    assert (last.selection, last.details["path"]) == ("last", [])
    assert best.value >= last.value


def test_stored_features_have_no_crops(tmp_path):
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=np.eye(4, dtype=np.float32), y=np.array([0, 1, 0, 1]))
    with pytest.raises(BenchError, match="runs the network itself"):
        bench.run(f"features:{tmp_path}", ["linear"], protocols={"linear": "mae"})
