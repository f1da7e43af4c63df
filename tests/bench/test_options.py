"""--set values: read by the default's type, spelled so that two values never share a name."""

import pytest

from bench.errors import BenchError
from bench.options import coerce, spell
from bench.request import parse_pairs


@pytest.mark.parametrize(
    ("raw", "like", "value"),
    [
        ("10,20", [1], [10, 20]),
        ("20", [1], [20]),
        ([10, 20], [1], [10, 20]),
        ("0.07", 0.1, 0.07),
        ("3", 0.1, 3.0),
        ("3", 1, 3),
        ("yes", False, True),
        ("none", None, None),
        ("0.01", None, 0.01),
        ("7", None, 7),
        ("cls", None, "cls"),
        ("1,2", None, [1, 2]),
        ("cls", "avg", "cls"),
    ],
)
def test_coerce(raw, like, value):
    result = coerce(raw, like=like, option="knn.x")
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("raw", "like"),
    [("ten", 1), ("1.5", 1), (1.5, 1), ("nan", 0.1), ("inf", None), ("nan", None), ("maybe", True), (",", [1])],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(raw, like):
    with pytest.raises(BenchError, match="knn.x"):
        coerce(raw, like=like, option="knn.x")


def test_spelling_keeps_different_values_apart_and_equal_ones_together():
    values = [0.1, 1.0, 10.0, 1e-5, 1e5, 100, 0.01]
    assert len({spell(v) for v in values}) == len(values)
    assert spell(1) == spell(1.0) == "1"
    assert spell(True) == "true"
    assert spell([10, 20]) == "10,20"


def test_pairs():
    assert parse_pairs(["knn.k=20", "linear.C=0.1"], "--set", "suite.option=value") == {
        "knn.k": "20",
        "linear.C": "0.1",
    }
    assert parse_pairs(["a.b=c=d"], "--set", "suite.option=value") == {"a.b": "c=d"}


@pytest.mark.parametrize("pairs", [["knn.k"], ["=3"], ["k=3"], ["knn.k=1", "knn.k=2"]])
def test_bad_pairs_are_refused(pairs):
    with pytest.raises(BenchError, match="--set"):
        parse_pairs(pairs, "--set", "suite.option=value")
