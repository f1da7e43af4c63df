"""`pytest --bench-baseline`: the gate as tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from recordhelp import Maker

pytest_plugins = ["pytester"]


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "reports.pytest_plugin", "-p", "no:cacheprovider", *options)


def test_one_test_for_each_headline(pytester: pytest.Pytester, make: Maker) -> None:
    make(run="before", accuracy=0.9, runs=Path("old"))
    make(run="same", accuracy=0.9, runs=Path("new"))
    make(run="after", accuracy=0.6, runs=Path("bad"))
    pytester.makepyfile(test_own="def test_mine(): pass")
    run(pytester, "--bench-baseline", "old", "--bench-candidate", "new").assert_outcomes(passed=3)
    result = run(pytester, "--bench-baseline", "old", "--bench-candidate", "bad")
    result.assert_outcomes(passed=1, failed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*regressed: lost *", "baseline: 9*", "*bench-gate?net-a knn top1*"])
    run(pytester, "--bench-baseline", "old", "--bench-candidate", "bad", "-k", "linear").assert_outcomes(
        failed=1, deselected=2
    )
    run(pytester).assert_outcomes(passed=1)


def test_what_cannot_be_judged_fails_or_is_skipped(pytester: pytest.Pytester, make: Maker) -> None:
    make(run="before", n=300, runs=Path("old"))
    make(run="after", n=300, seed=2, runs=Path("runs"))
    result = run(pytester, "--bench-baseline", "old")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*inconclusive: * are needed at this noise*"])
    run(pytester, "--bench-baseline", "old", "--bench-allow-inconclusive").assert_outcomes(skipped=2)


def test_a_refusal_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--bench-baseline", "nothing")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: no record at nothing*"])
