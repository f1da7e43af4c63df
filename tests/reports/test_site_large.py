"""Ledgers of very many records, measurements and faults: the page stays small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recordhelp import Maker
from sitehelp import measured_table

from reports.site import publish


def test_a_record_of_very_many_measurements_is_still_a_page(make: Maker, tmp_path: Path) -> None:
    first = make().measurements[0].model_copy(update={"outcomes": None})
    many = [first.model_copy(update={"settings": {"k": k, "temperature": 0.07}}) for k in range(1, 5001)]
    make(measurements=many, runs=tmp_path / "runs")
    summary = publish(tmp_path / "runs", tmp_path / "site")
    assert summary.page.stat().st_size < 3_000_000
    assert "4,940 more columns" in measured_table(summary)["note"]
    page = next((tmp_path / "site" / "models").iterdir()).read_text()
    assert "3,000 more are in" in page
    assert len(pd.read_csv(tmp_path / "site" / "leaderboard.csv")) == 5000


@pytest.mark.slow
def test_two_thousand_records(make: Maker, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(2000):
        make(f"net-{i}", run=f"run-{i}", seed=i, accuracy=rng.uniform(0.5, 0.9), n=500, runs=tmp_path / "runs")
    summary = publish(tmp_path / "runs", tmp_path / "site")
    assert summary.models == 2000
    assert summary.page.stat().st_size < 3_000_000


@pytest.mark.slow
def test_a_hundred_thousand_measurements(make: Maker, tmp_path: Path) -> None:
    """Half a minute; where the work grows as their square, hours."""
    first = make().measurements[0].model_copy(update={"outcomes": None, "transform": None, "details": {}})
    many = [first.model_copy(update={"feature": {"tokens": str(i)}, "headline": False}) for i in range(100_000)]
    record = make(measurements=many)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / f"{record.run}.json").write_text(record.model_dump_json(by_alias=True, exclude_defaults=True))
    summary = publish(tmp_path / "runs", tmp_path / "site")
    assert summary.page.stat().st_size < 3_000_000
    assert len(pd.read_csv(tmp_path / "site" / "leaderboard.csv")) == 100_000


def test_endless_texts_are_shortened_on_the_board(make: Maker, tmp_path: Path) -> None:
    long = "x" * 500_000
    card = make().model.model_copy(update={"architecture": long, "notes": [long]})
    fields = {"interval_note": long, "protocol": f"knn/{long}", "metric": long, "dataset": long}
    make(long, run="run-long", model=card, runs=tmp_path / "runs", **fields)
    (tmp_path / "runs" / ("y" * 200 + ".json")).write_text("[" * 100_000)
    summary = publish(tmp_path / "runs", tmp_path / "site")
    assert summary.page.stat().st_size < 3_000_000
    assert len(str(summary)) < 1_500
    assert max(len(cell) for row in measured_table(summary)["rows"] for cell in row["cells"][:2]) == 240


def test_very_many_faulty_files_are_counted(make: Maker, tmp_path: Path) -> None:
    make(runs=tmp_path / "runs")
    for i in range(300):
        (tmp_path / "runs" / f"faulty-{i}.json").write_text("{}")
    summary = publish(tmp_path / "runs", tmp_path / "site")
    assert len(summary.problems) == 300
    assert "and 100 more" in summary.page.read_text()
