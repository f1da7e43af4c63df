"""What a model page draws of a comparison, from records that the suites wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vl_convert

import bench
from bench.ledger import Ledger
from bench.record import Record
from reports.modelpage import charts
from reports.pictures import pictures


@pytest.fixture
def records(tmp_path: Path) -> tuple[Ledger, list[Record]]:
    rng = np.random.default_rng(0)
    for name, noise in (("teacher", 0.5), ("student", 1.5)):
        (tmp_path / name).mkdir()
        for split in ("train", "test"):
            y = np.arange(60) % 3
            logits = np.eye(3)[y] * 2 + rng.normal(size=(60, 3)) * noise
            np.savez(
                tmp_path / name / f"{split}.npz", x=logits.astype(np.float32), y=y, logits=logits.astype(np.float32)
            )
    student, teacher = (f"features:{tmp_path / name}" for name in ("student", "teacher"))
    ledger = Ledger(tmp_path / "runs")
    made = [
        bench.run(student, suites, teacher=teacher, runs=ledger.folder, settings=settings)
        for suites, settings in ((["agreement"], {}), (["logits"], {"logits.replicates": 100}))
    ]
    return ledger, made


def test_comparisons_of_every_run_are_drawn_in_words_of_their_own(records: tuple[Ledger, list[Record]]) -> None:
    ledger, made = records
    by_run = {record.run: record for record in made}
    drawn = charts(made, lambda run, m: ledger.outcomes(by_run[run], str(m.outcomes)))
    titles = [chart["title"] for chart in drawn]
    assert "agreement: by class" in titles
    assert "agreement: classes" in titles
    assert "Class logits: difference of teacher and student" in titles
    assert "accuracy" not in " ".join(titles)
    for chart in drawn:
        assert vl_convert.vegalite_to_svg(chart["spec"]).startswith("<svg")
    heat = next(chart["spec"] for chart in drawn if chart["title"].startswith("Class logits"))
    m = next(m for m in made[1].measurements if m.headline)
    difference = ledger.outcomes(made[1], str(m.outcomes))["difference"]
    assert {(v["r"], v["c"]): v["v"] for v in heat["data"]["values"]} == {
        (str(i), str(j)): round(float(difference[i, j]), 4) for i in range(3) for j in range(3)
    }


def test_a_newer_run_of_the_same_protocol_takes_the_place_of_an_older(records: tuple[Ledger, list[Record]]) -> None:
    ledger, made = records
    older = made[0].model_copy(update={"run": "older"})
    asked = []

    def outcomes(run: str, m: bench.record.Measurement) -> dict[str, np.ndarray]:  # type: ignore[name-defined]
        asked.append(run)
        return ledger.outcomes(made[0], str(m.outcomes))

    charts([older, made[0]], outcomes)
    assert set(asked) == {made[0].run}


def test_drawings_beside_the_records_are_on_the_page(records: tuple[Ledger, list[Record]]) -> None:
    ledger, made = records
    shown = pictures(made, ledger, "page").drawings
    captions = [drawing["caption"] for drawing in shown]
    assert sorted(captions) == sorted(
        [
            *(f"reliability of teacher and student, {split}" for split in ("train", "test")),
            *(f"the student's confusions less the teacher's, {split}" for split in ("train", "test")),
            "mean standardised logits by class, and their difference",
            "correlations of logits, and their difference",
            "teacher and student in one map",
        ]
    ), "each once, though there is a PNG and an SVG of it"
    only = made[1].model_copy(update={"artifacts": {k: v for k, v in made[1].artifacts.items() if k.endswith(".svg")}})
    assert len(pictures([only], ledger, "page").drawings) == 3
