"""The gate as tests: ``pytest --bench-baseline DIR --bench-candidate DIR`` adds one test for each gated measurement.

A regression fails its test; what cannot be judged is an error of its own kind, or skipped where that is allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from reports.gate import Verdict


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "representation gate")
    group.addoption("--bench-baseline", metavar="X", help="A ledger, a record, or git:REF:path of either.")
    group.addoption("--bench-candidate", metavar="Y", default="runs", help="What is judged, given alike.")
    group.addoption("--bench-mode", choices=("numerics", "training"), default="numerics")
    group.addoption("--bench-config", metavar="FILE", help="Tolerances (default: gate.toml here).")
    group.addoption("--bench-allow-inconclusive", action="store_true", help="Skip what cannot be judged.")


@pytest.hookimpl(tryfirst=True)  # Before -k and -m take tests away, so that they hold for these too.
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    baseline = config.getoption("--bench-baseline")
    if baseline is None:
        return
    from bench.errors import BenchError
    from reports import gate, gateforms

    try:
        report = gate.run(
            baseline,
            config.getoption("--bench-candidate"),
            mode=config.getoption("--bench-mode"),
            config=config.getoption("--bench-config"),
            allow_inconclusive=config.getoption("--bench-allow-inconclusive"),
        )
    except BenchError as refusal:
        raise pytest.UsageError(str(refusal)) from None
    for verdict in report.verdicts:
        name = f"bench-gate[{gateforms.title(verdict)}]"
        items.append(Gated.from_parent(session, name=name, verdict=verdict, allowed=report.allow_inconclusive))


class Lost(Exception):
    """A verdict that is no pass."""


class Gated(pytest.Item):
    """One measurement of the gate as a test."""

    def __init__(self, *, verdict: Verdict, allowed: bool, **given: Any) -> None:
        super().__init__(**given)
        self.verdict = verdict
        self.allowed = allowed

    def runtest(self) -> None:
        """Fails for a regression, and for what cannot be judged unless that is allowed."""
        if self.verdict.outcome in ("pass", "improved"):
            return
        if self.verdict.outcome != "regressed" and self.allowed:
            pytest.skip(f"{self.verdict.outcome}: {self.verdict.reason}")
        raise Lost

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if not isinstance(excinfo.value, Lost):
            return super().repr_failure(excinfo, style)
        from reports.gateforms import described

        return f"{self.verdict.outcome}: {self.verdict.reason}\n{described(self.verdict)}"

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, self.name
