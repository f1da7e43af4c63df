"""--set values: read by the default's type, spelled so that two values never share a name."""

import pytest

from bench.errors import BenchError
from bench.options import EXPONENT, SHARE, Allowed, coerce, count, positive, spell, words
from bench.protocol import cards, get, options_of
from bench.registry import table
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


def test_allowed_values():
    sets = Allowed(above=0, most=1, a_set=True)
    assert sets.checked([0.5, 0.1, 0.5], like=[0.1], option="knn.x") == [0.1, 0.5]
    assert Allowed(once=True).checked(["b", "a", "b"], like=["a"], option="knn.x") == ["b", "a"]
    assert Allowed(a_set=True).checked(["b", 3, "a"], like=[], option="knn.x") == [3, "a", "b"]
    assert Allowed(above=0).checked(None, like=None, option="knn.x") is None
    assert words("a", "b").checked("a", like="b", option="knn.x") == "a"


@pytest.mark.parametrize(
    ("allowed", "value", "sentence"),
    [
        (count(), 0, "option knn.x is a number of at least 1 and at most 1e.09, not '0'"),
        (positive(), 0.0, "option knn.x is a number above 0 and at most 1e.100, not '0.0'"),
        (positive(), True, "option knn.x is a number above 0 and at most 1e.100, not 'True'"),
        (positive(), "yes", "above 0"),
        (positive(), 10**400, "above 0"),
        (positive(), [1.0, 2.0], "option knn.x takes one value, not the list '1,2'"),
        (SHARE, 1.0, "option knn.x is a number above 0 and below 1, not '1.0'"),
        (EXPONENT, -400.0, "at least -100 and at most 100, not '-400.0'"),
        (words("exp", "l2", "one"), "exq", "option knn.x is exp, l2 or one, not 'exq'"),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_range(allowed, value, sentence):
    with pytest.raises(BenchError, match=sentence):
        allowed.checked(value, like=None, option="knn.x")


def test_true_is_no_number():
    for like in (1, 0.5, [1]):
        with pytest.raises(BenchError, match="knn.x takes a"):
            coerce(True, like=like, option="knn.x")
    with pytest.raises(BenchError, match="knn.x takes a number"):
        coerce(10**400, like=0.5, option="knn.x")


NUMBERED = tuple(table("suites"))


@pytest.mark.parametrize("suite", NUMBERED)
def test_every_number_of_every_card_has_its_range(suite):
    """Each card's own values are allowed and stand in their one order; no number of a suite goes unchecked."""
    allowed = options_of(suite)
    for card in cards().values():
        if card.suite != suite:
            continue
        for option, default in card.settings.items():
            elements = default if isinstance(default, list) else [default]
            numeric = any(e is None or (isinstance(e, int | float) and not isinstance(e, bool)) for e in elements)
            assert not numeric or option in allowed, f"{card.id}: {option} is held to nothing"
            if option not in allowed:
                continue
            assert allowed[option].checked(default, like=default, option=option) == default, f"{card.id}: {option}"
            if numeric:
                for wild in (-(10.0**30), 10.0**300, True, "word"):
                    value = [wild] if isinstance(default, list) else wild
                    with pytest.raises(BenchError, match=f"option {suite}.{option} "):
                        card.variant({option: value})


def test_one_set_of_values_has_one_name():
    card = get("knn")
    assert {card.variant({"k": k}).id for k in ("20,10", "10,20", "10,10,20", [20, 10])} == {"knn/dino@1+k=10,20"}
    assert card.variant({"k": "200,100,20,10,20", "temperature": "0.07,0.07"}).id == "knn/dino@1"
