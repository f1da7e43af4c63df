"""What a model's page shows of the files beside its records."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert
from PIL import Image
from recordhelp import Maker

from bench.ledger import Ledger, artifact, as_table
from bench.record import Record
from reports.pictures import Pictures, pictures
from reports.reliability import reliability
from reports.site import publish

EVIL = '"><script>window.hit=1</script>'
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'


def picture(form: str, size: tuple[int, int] = (432, 144)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "grey").save(stream, format=form)
    return stream.getvalue()


def neighbours() -> dict[str, Any]:
    about = {"id": EVIL, "label": EVIL, "right": True}
    one = {**about, "prediction": "hen", "neighbours": [{**about, "similarity": 0.5, "right": False}] * 5}
    return {"tile": 72, "rows": [one, {**one, "right": False}]}


def feature_map(classes: int = 3) -> dict[str, Any]:
    return {
        "how": "t-SNE",
        "points": [
            {"x": i, "y": -i, "id": str(i), "label": str(i % classes), "prediction": "0", "right": i % classes == 0}
            for i in range(30)
        ],
    }


def kept(make: Maker, runs: Path, name: str = "net-a", **files: bytes) -> Record:
    record = make(name)
    record.measurements = [
        m.model_copy(update={"outcomes": None, "details": {"figures": {"curve.svg": "Loss & time"}}})
        for m in record.measurements
    ]  # fmt: skip
    named = {
        key.replace("_", "-")[::-1].replace("-", ".", 1)[::-1]: as_table(content) for key, content in files.items()
    }
    Ledger(runs).add(record, named)
    return record


def shown(record: Record, runs: Path) -> Pictures:
    return pictures([record], Ledger(runs), "page")


def test_all_kinds_are_on_the_page(make: Maker, tmp_path: Path) -> None:
    files = {
        "knn_neighbours_json": json.dumps(neighbours()).encode(), "knn_neighbours_jpg": picture("JPEG"),
        "knn_map_json": json.dumps(feature_map()).encode(), "knn_drawn_10_png": picture("PNG"),
        "knn_drawn_2_png": picture("PNG", (3, 4)), "linear_curve_svg": SVG,
    }  # fmt: skip
    record = kept(make, tmp_path / "runs", **files)
    found = shown(record, tmp_path / "runs")
    assert [d["caption"] for d in found.drawings] == ["drawn 2", "drawn 10", "Loss & time"]
    assert found.drawings[2]["source"].startswith("data:image/svg+xml;base64,"), "an SVG is never a file to open"
    [chart] = found.charts
    assert vl_convert.vegalite_to_svg(chart["spec"]).startswith("<svg")
    publish(tmp_path / "runs", tmp_path / "site")
    page = next((tmp_path / "site" / "models").glob("*.html"))
    text = page.read_text()
    assert EVIL not in text
    assert "&lt;script&gt;window.hit=1" in text
    assert text.count('class="tile right"') == 1
    assert text.count('class="tile wrong"') == 11
    assert "knn: map of the features" in text
    for name, content in found.files.items():
        folder, _, file = name.partition("/")
        assert folder == "page"
        assert (page.with_suffix("") / file).read_bytes() == content
        assert f"{page.stem}/{file}" in text
    publish(tmp_path / "runs", tmp_path / "bare", images=False)
    assert not any(path.is_dir() for path in (tmp_path / "bare" / "models").iterdir())
    assert "<img" not in next((tmp_path / "bare" / "models").glob("*.html")).read_text()


@pytest.mark.parametrize(
    "files",
    [
        {"knn_drawn_png": b"<html><script>1</script>"},
        {"knn_drawn_png": picture("JPEG")},
        {"knn_drawn_jpg": picture("PNG")},
        {"knn_drawn_png": picture("PNG", (12_001, 1))},
        {"knn_curve_svg": b"<html></html>"},
        {"knn_curve_svg": SVG + b" " * 2**20},
        {"knn_neighbours_json": json.dumps(neighbours()).encode()},
        {"knn_neighbours_json": b"[1]", "knn_neighbours_jpg": picture("JPEG")},
        {"knn_neighbours_json": b"[" * 10_000, "knn_neighbours_jpg": picture("JPEG")},
        {"knn_neighbours_json": json.dumps({**neighbours(), "tile": 10**9}).encode(),
         "knn_neighbours_jpg": picture("JPEG")},
        {"knn_map_json": b'{"how": "x", "points": [{"x": NaN}]}'},
        {"knn_map_json": json.dumps(feature_map()).replace("-1,", "1e999,").encode()},
    ],
)  # fmt: skip
def test_what_is_no_picture_is_left_out(make: Maker, tmp_path: Path, files: dict[str, bytes]) -> None:
    found = shown(kept(make, tmp_path, **files), tmp_path)
    assert (found.drawings, found.neighbours, found.charts, found.files) == ([], [], [], {})


def test_paths_that_leave_the_ledger_are_not_followed(make: Maker, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture("PNG"))
    record = kept(make, tmp_path / "runs", knn_drawn_png=picture("PNG"))
    path = tmp_path / "runs" / f"{record.run}.json"
    document = json.loads(path.read_text())
    document["artifacts"] = {"../secret.png": "0", "../../etc/passwd.svg": "0", "/etc/x.png": "0"}
    path.write_text(json.dumps(document))
    summary = publish(tmp_path / "runs", tmp_path / "site")
    assert summary.problems == []
    assert "<img" not in next((tmp_path / "site" / "models").glob("*.html")).read_text()


def test_the_newest_run_of_a_suite_is_shown(make: Maker, tmp_path: Path) -> None:
    old = kept(make, tmp_path, knn_drawn_png=picture("PNG", (10, 10)), knn_other_png=picture("PNG", (11, 11)))
    new = old.model_copy(update={"run": "later"})
    Ledger(tmp_path).add(new, {"knn-drawn.png": as_table(picture("PNG", (20, 20)))})
    found = pictures([old, new], Ledger(tmp_path), "page")
    sizes = [Image.open(io.BytesIO(content)).size[0] for content in found.files.values()]
    assert sizes == [20, 11]
    assert artifact("later", "knn-drawn.png") in new.artifacts


def test_many_classes_are_drawn_without_colours(make: Maker, tmp_path: Path) -> None:
    found = shown(kept(make, tmp_path, knn_map_json=json.dumps(feature_map(25)).encode()), tmp_path)
    assert "color" not in found.charts[0]["spec"]["encoding"]


def test_reliability_is_counted_in_bins(make: Maker) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(2000)
    confidence[:3] = [1.0, 0.0, 1 / 15]
    correct = rng.random(2000) < confidence**2
    [chart] = reliability(make().measurements[0], {"confidence": confidence, "correct": correct})
    bars = chart["spec"]["layer"][0]["data"]["values"]
    assert sum(bar["n"] for bar in bars) == 2000
    error = 0.0
    for bar in bars:
        inside = (confidence * 100 > bar["low"]) & (confidence * 100 <= bar["high"] + 1e-9)
        if bar["low"] == 0:
            inside |= confidence == 0
        assert bar["n"] == inside.sum()
        assert bar["right"] == pytest.approx(100 * correct[inside].mean(), abs=0.001)
        error += abs(correct[inside].mean() - confidence[inside].mean()) * inside.sum() / 2000
    assert f"calibration error {100 * error:.2f} points" in chart["text"]
    assert vl_convert.vegalite_to_svg(chart["spec"]).startswith("<svg")
    for wrong in (confidence * 5, confidence[:-1], confidence - 1):
        assert reliability(make().measurements[0], {"confidence": wrong, "correct": correct}) == []


def test_long_tables_are_folded_with_a_search(make: Maker, tmp_path: Path) -> None:
    record = make()
    first = record.measurements[0].model_copy(update={"outcomes": None})
    many = [first.model_copy(update={"settings": {"k": k}, "headline": k == 3}) for k in range(1, 40)]
    make(measurements=many, runs=tmp_path / "runs")
    publish(tmp_path / "runs", tmp_path / "site")
    text = next((tmp_path / "site" / "models").glob("*.html")).read_text()
    assert "<details><summary>All 39 measurements</summary>" in text
    head = text[text.index('id="headlines"') : text.index("<details>")]
    assert head.count("<tr>") == 2
    assert 'type="search"' in text
