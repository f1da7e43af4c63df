"""Transfer as DCD's table 2 has it: batch statistics frozen or moving, the head alone learnt, 32 x 32 images."""

import numpy as np
import pytest
import torch
from listedhelp import write_tinyimagenet

import bench
from bench import protocol
from bench.errors import BenchError
from suites import cifar_transfer
from suites.cifar_transfer import Transferred

MODEL = "demo:mobilenetv2@32"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    write_tinyimagenet(tmp_path)
    return tmp_path


def run(model=MODEL, **options):
    settings = {"sets": "tinyimagenet", "epochs": 2, "batch": 3, **options}
    return bench.run(
        model, ["transfer"], protocols={"transfer": "dcd"}, workers=0, device="cpu",
        settings={f"transfer.{name}": value for name, value in settings.items()},
    )  # fmt: skip


def statistics(backbone):
    return {name: value.clone() for name, value in backbone.named_buffers() if "running" in name}


def test_both_rows_and_the_original_network_untouched(root, monkeypatch):
    trained = {}
    original = cifar_transfer._trained

    def watched(task, y, classes, mode):
        before = statistics(task.backbone)
        weights = {name: value.clone() for name, value in task.backbone.named_parameters()}
        found = original(task, y, classes, mode)
        after = statistics(task.backbone)
        trained[mode] = all(torch.equal(after[name], value) for name, value in before.items())
        assert all(torch.equal(value, weights[name]) for name, value in task.backbone.named_parameters())
        return found

    monkeypatch.setattr(cifar_transfer, "_trained", watched)
    model = bench.load(MODEL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    record = run(model)
    assert trained == {"frozen": True, "dcd-compat": False}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    rows = [(m.metric, m.settings["batch_norm"], m.headline) for m in record.measurements]
    assert rows[::3] == [("top1", "frozen", True), ("top1", "dcd-compat", False)]
    m = record.measurements[0]
    assert (m.dataset, m.split, m.n, m.selection) == ("tinyimagenet", "val", 2, "last")
    assert m.transform.resize == (32, 32)
    assert m.transform.mean == (0.4802, 0.4481, 0.3975)
    # An original of another size has its own transform still.
    assert record.model.transform.mean != m.transform.mean


def test_outcomes_are_each_rows_own(root, tmp_path):
    settings = {"transfer.sets": "tinyimagenet", "transfer.epochs": 1, "transfer.batch": 3}
    record = bench.run(
        MODEL, ["transfer"], protocols={"transfer": "dcd"}, workers=0, settings=settings, runs=tmp_path / "runs"
    )
    paths = {m.settings["batch_norm"]: m.outcomes for m in record.measurements}
    assert paths["frozen"] != paths["dcd-compat"]
    for m in record.measurements:
        with np.load(tmp_path / "runs" / m.outcomes) as table:
            if m.metric == "top1":
                assert 100 * table["correct"].mean() == m.value


def test_the_head_begins_as_published_and_alone_has_gradients():
    model = bench.load(MODEL)
    network = Transferred(model, 200, frozen=True, seed=3)
    assert network.head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not network.head.bias.any()
    network.train()
    assert not any(part.training for part in model.modules())
    batch = (torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool))
    network(batch)["loss"].backward()
    assert {name for name, p in network.named_parameters() if p.grad is not None} == {"head.weight", "head.bias"}


def test_the_rate_of_mobile_networks_is_a_card_of_its_own(root):
    cards = [protocol.get("transfer", name) for name in ("dcd", "dcd-mobile")]
    assert [card.settings["lr"] for card in cards] == [0.05, 0.01]
    assert cards[0].settings | {"lr": 0.01} == cards[1].settings
    settings = {"transfer.sets": "tinyimagenet", "transfer.epochs": 1, "transfer.batch": 3}
    record = bench.run(MODEL, ["transfer"], protocols={"transfer": "dcd-mobile"}, workers=0, settings=settings)
    assert record.measurements[0].details["training"]["learning_rate"] == 0.01


def test_refusals(root):
    with pytest.raises(BenchError, match="no mean and deviation for 'pets'"):
        run(sets="pets")
    wrapped = bench.wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1)))
    with pytest.raises(BenchError, match="'.*' is a live module"):
        run(wrapped)
