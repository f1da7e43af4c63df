"""Charts of the board and of the model pages."""

from __future__ import annotations

from pathlib import Path

import pytest
import vl_convert
from recordhelp import Maker
from sitehelp import Page

from bench.record import Record
from reports import plots
from reports.board import Board, assemble
from reports.plots import charts
from reports.site import publish
from reports.tables import KD, SSL, survey


def test_throughput_is_drawn_from_forwards_that_were_timed(make: Maker) -> None:
    timed = {"environment": {"images_forwarded": 3000}, "timings": {"forward": 10.0}}
    stored = {"environment": {"images_forwarded": 0}, "timings": {"forward": 0.0}}
    taught = {**timed, "teacher": make().model}

    def speeds(*records: Record) -> list[float]:
        drawn = charts(*(survey(k, k, c, Board(), None)[0] for k, c in (("ssl", SSL), ("kd", KD))), assemble(records))
        found = [c["spec"]["layer"][0]["data"]["values"] for c in drawn if c["id"] == "speed"]
        return [point["x"] for point in found[0]] if found else []

    assert speeds(make("a", **timed), make("b", **timed)) == [300.0, 300.0]
    assert speeds(make("a", **timed), make("b", **stored)) == [], "one point compares nothing"
    assert speeds(make("a", **timed), make("b", **taught)) == [], "two networks shared those seconds"


def test_a_training_curve_is_drawn_with_its_losses_alone(make: Maker, tmp_path: Path) -> None:
    curve = [{"iteration": 50 * i, "epoch": i / 2, "lr": 1e-3, "loss": 2 / i, "penalty": 0.1} for i in (1, 2, 3)]
    make(details={"curve": curve}, runs=tmp_path / "runs")
    publish(tmp_path / "runs", tmp_path / "site")
    page = Page(next((tmp_path / "site" / "models").iterdir()).read_text())
    spec = next(c["spec"] for c in page.documents["charts"] if ": training." in c["spec"]["description"])
    assert vl_convert.vegalite_to_svg(spec).startswith("<svg")
    points = spec["data"]["values"]
    assert {point["what"] for point in points} == {"loss", "penalty"}
    assert [point["x"] for point in points if point["what"] == "loss"] == [0.5, 1, 1.5]


def test_names_in_a_chart_do_not_cover_each_other() -> None:
    points = [{"name": name, "x": 2020, "y": y} for name, y in (("SimCLR", 69.3), ("MoCo v2", 71.1), ("low", 40.0))]
    points += [{"name": "lost", "x": 2021, "y": None}]
    sides = plots._sides(points, logarithmic=False)
    # A name above SimCLR would lie on MoCo v2's point.
    assert sides == ["right", "above", "above", "above"]
    marks = plots._marks([{**p, "kind": "published", "family": "x", "ya": p["y"]} for p in points], {"title": "Year"})
    text = [layer for layer in marks["layer"] if layer["mark"]["type"] == "text"]
    shown = [layer["transform"][0]["filter"]["equal"] for layer in text]
    assert sorted(shown) == ["above", "right"], "every name is drawn once"
    many = [{"name": str(i), "x": i, "y": i} for i in range(1, 100)]
    assert set(plots._sides(many, logarithmic=True)) == {"above"}


def test_a_chart_of_one_point_has_an_axis_around_it() -> None:
    point = {"name": "a", "kind": "measured", "family": "x", "x": 84.4, "y": 84.5}
    marks = plots._marks([point], {"field": "x", "title": "Agreement", "scale": {"zero": False}})
    encoding = marks["layer"][0]["encoding"]
    assert encoding["y"]["scale"] == {"zero": False, "domain": [83.5, 85.5]}
    assert encoding["x"]["scale"]["domain"] == pytest.approx([83.4, 85.4])
