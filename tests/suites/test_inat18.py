"""iNaturalist 2018: the suite of that name, from its archive to the board's column."""

import pytest
from listedhelp import write_inat18

import bench
from bench.errors import BenchError
from bench.protocol import get
from reports.comparable import exact_column
from reports.tables import survey_key

SHORT = {"inat18.iterations": 2, "inat18.batch": 4, "inat18.rates": [0.1], "inat18.select": "last"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("data", ["inat18", None])
def test_from_the_archive_to_the_column(root, data):
    write_inat18(root)
    record = bench.run("demo:mobilenetv2@32", ["inat18"], data, settings=SHORT, workers=0, device="cpu")
    top1 = record.measurements[0]
    assert (top1.suite, top1.dataset, top1.split, top1.metric, top1.headline) == (
        "inat18",
        "inat18",
        "val",
        "top1",
        True,
    )
    assert top1.protocol.startswith("inat18/dinov2@1+")
    assert survey_key(exact_column(top1)) == "inat18_lp"


def test_the_other_recipe_and_refusals(root):
    with pytest.raises(BenchError, match="'inat18' is not here"):
        bench.run("demo:mobilenetv2@32", ["inat18"])
    write_inat18(root)
    record = bench.run(
        "demo:mobilenetv2@32", ["inat18"], protocols={"inat18": "vissl-cached"}, workers=0, device="cpu",
        settings={"inat18.epochs": 1, "inat18.batch": 4},
    )  # fmt: skip
    assert record.measurements[0].protocol.startswith("inat18/vissl-cached@2+")
    # VISSL's head normalises the feature first, as its gain and shift can undo.
    card = get("inat18", "vissl").settings
    assert (card["batchnorm"], card["affine"], card["init"]) == (True, "free", "uniform")
    vits = get("inat18", "vissl-vit").settings
    assert (vits["features"], vits["affine"], vits["interpolation"]) == (["blocks4.cls"], "decayed", "bicubic")
    with pytest.raises(BenchError, match="has no option 'C'"):
        bench.run("demo:mobilenetv2@32", ["inat18"], settings={"inat18.C": 1})
