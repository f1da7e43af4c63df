"""Models beside the student: a teacher that is asked for, and further ones that a suite names in its options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bench
from bench.errors import BenchError
from bench.protocol import Protocol
from bench.suite import Needs, engine_of


class Company:
    """A suite that measures how far two other models are from the student."""

    name = "company"
    default = "company/plain@1"

    def needs(self, protocol, card):
        others = tuple((role, protocol.settings[role]) for role in ("baseline",) if protocol.settings[role])
        return Needs(("pooled", *(["logits"] if "logits" in card.dims else [])), teacher=True, others=others)

    def evaluate(self, task):
        mine = task.data["test"].array("pooled")
        for role, other in {"teacher": None, **task.others}.items():
            data = task.teacher if other is None else other.data
            card = task.teacher_card if other is None else other.card
            yield task.measure(
                "distance", np.abs(data["test"].array("pooled") - mine).max(), n=len(mine), engine=engine_of("numpy"),
                unit="", interval_note="none", settings={"role": role, "model": card.name},
            )  # fmt: skip


CARD = Protocol(
    id="company/plain@1", suite="company", title="t", source="s", verified=True, data="demo", settings={"baseline": ""}
)


@pytest.fixture(autouse=True)
def _company(monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.items

    monkeypatch.setattr("bench.request.Request.cards", lambda self: {"company": CARD.variant(self.options())})
    monkeypatch.setattr(
        "bench.request.Request.options",
        lambda self: {k.partition(".")[2]: v for k, v in self.settings.items()},
        raising=False,
    )
    real = bench.items.resolve
    monkeypatch.setattr("bench.items.resolve", lambda room, name: Company if name == "company" else real(room, name))


def _shifted(folder: Path, by: float, tmp_path: Path) -> str:
    out = tmp_path / f"by{by:g}"
    out.mkdir()
    for split in ("train", "test"):
        with np.load(folder / f"{split}.npz") as file:
            np.savez(out / f"{split}.npz", x=file["x"] + np.float32(by), y=file["y"])
    return f"features:{out}"


def test_a_suite_reads_the_teacher_and_the_models_that_its_options_name(features_dir: Path, tmp_path: Path) -> None:
    record = bench.run(
        f"features:{features_dir}", ["company"], teacher=_shifted(features_dir, 1, tmp_path),
        settings={"company.baseline": _shifted(features_dir, 2, tmp_path)},
    )  # fmt: skip
    found = {m.settings["role"]: (m.settings["model"], round(m.value, 3)) for m in record.measurements}
    assert found == {"teacher": ("by1", 1.0), "baseline": ("by2", 2.0)}


def test_no_teacher_is_said_before_any_work(features_dir: Path) -> None:
    with pytest.raises(BenchError, match="'company' compares with a teacher: say which with --teacher SPEC"):
        bench.run(f"features:{features_dir}", ["company"])


def test_a_model_that_does_not_exist(features_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="does not exist"):
        bench.run(
            f"features:{features_dir}", ["company"], teacher=f"features:{features_dir}",
            settings={"company.baseline": f"features:{tmp_path}/nowhere"},
        )  # fmt: skip
