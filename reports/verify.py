"""`bench verify`: what to run for a released checkpoint, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.protocol import cards
from reports.reference import Reference, Verdict, judge, located, of_model, of_other_size
from reports.wording import clean

if TYPE_CHECKING:
    from bench.record import Record


class Verification:
    """The published values of ``suites`` for ``model`` (a name of the table, a released file, or any path).

    ``reference`` says whose values hold for a path that does not. Raises `BenchError` for a model or a suite without
    published values, and for a protocol that this version cannot run.
    """

    def __init__(self, model: str, suites: Sequence[str], reference: str | None = None) -> None:
        known = of_model(reference or model)
        self.wanted: list[Reference] = []
        for suite in dict.fromkeys(suites):
            mine = [r for r in known if r.suite == suite]
            if not mine:
                there = ", ".join(dict.fromkeys(r.suite for r in known))
                raise BenchError(f"no value of suite '{suite}' is published for {known[0].title}; there are: {there}")
            for r in mine:
                if r.protocol not in cards():
                    near = [id_ for id_ in cards() if id_.startswith(r.protocol.partition("@")[0])]
                    other = f" ({', '.join(near)} is another protocol)" if near else ""
                    raise BenchError(
                        f"{r.title}'s {suite} value of {r.value:g} was published under {r.protocol}, which this "
                        f"version cannot run{other}"
                    )
            self.wanted += mine
        if len(sets := sorted({r.dataset for r in self.wanted})) > 1:
            raise BenchError(f"the published values are on {', '.join(sets)}: verify a suite at a time")
        self.spec = str(located(known)) if model == known[0].name else model

    @property
    def protocols(self) -> dict[str, str]:
        """suite -> the protocol that its value was published under."""
        found: dict[str, str] = {}
        for r in self.wanted:
            if found.setdefault(r.suite, r.protocol) != r.protocol:
                raise BenchError(f"{r.title} has values under both {found[r.suite]} and {r.protocol}: none was run")
        return found

    @property
    def data(self) -> str:
        return self.wanted[0].dataset

    def check(self, data: str) -> None:
        """Refuse data of another size than that of the published values before anything is computed on it."""
        from bench.data.opening import open_data

        test = open_data(data).test
        for r in self.wanted:
            if r.n != len(test):
                raise BenchError(of_other_size(r, len(test), test.name))

    def against(self, record: Record) -> Answer:
        """Hold a run against the published values."""
        return Answer(record.run, judge(record, self.wanted))


class Answer:
    """``exit_code`` 0 when every value is reproduced, 1 when one is off."""

    def __init__(self, run: str, verdicts: list[Verdict]) -> None:
        self.run = run
        self.verdicts = verdicts
        self.exit_code = 0 if all(v.reproduced for v in verdicts) else 1

    def render(self) -> str:
        """A line a value."""
        lines = [clean(self.verdicts[0].reference.title)]
        for v in self.verdicts:
            r = v.reference
            setting = f" {r.setting}" if r.setting else ""
            published = f"published {r.value:g} ± {r.tolerance:g} ({r.source})"
            lines.append(f"  {r.protocol}{setting}  {r.metric} {v.value:.2f}  {published}: {v}")
        return "\n".join([*lines, f"  record  {self.run}.json"])

    def to_json(self) -> str:
        rows = [
            {
                "model": (r := v.reference).name,
                "protocol": r.protocol,
                "metric": r.metric,
                "setting": r.setting,
                "value": v.value,
                "published": r.value,
                "tolerance": r.tolerance,
                "off": v.off,
                "reproduced": v.reproduced,
                "source": r.source,
            }
            for v in self.verdicts
        ]
        return json.dumps({"schema": 1, "run": self.run, "reproduced": self.exit_code == 0, "values": rows}, indent=1)
