"""The gate's report in the forms that people and machines read: terminal text, Markdown, JUnit XML, annotations."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from reports.gate import Report, Verdict
from reports.wording import clean, digits, markdown_text

_SYMBOLS = {"pass": "ok", "improved": "ok, better", "regressed": "REGRESSED"}


def render(report: Report) -> str:
    """A table for the terminal, what went wrong first, and the one-line answer last."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = io.StringIO()
    console = Console(file=stream, width=110, highlight=False)
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for head in ("", "verdict"):
        table.add_column(head, overflow="fold")
    for head in ("baseline", "candidate", "difference", "interval", "tolerance"):
        table.add_column(head, justify="right", no_wrap=True)
    for v in ordered(report):
        cells = [title(v), _SYMBOLS.get(v.outcome, v.outcome), *_numbers(v)]
        table.add_row(*(Text(clean(cell)) for cell in cells))
    console.print(table)
    for v in ordered(report):
        if v.outcome not in {"pass", "improved"} or v.notes:
            console.print(Text(clean(f"{title(v)}: {'; '.join([v.reason, *v.notes])}")))
    console.print(Text(report.sentence))
    return stream.getvalue()


def ordered(report: Report) -> list[Verdict]:
    """Regressed first, then what could not be judged, then the rest, each in the baseline's order."""
    rank = {"regressed": 0, "missing": 1, "incomparable": 1, "inconclusive": 2}
    return sorted(report.verdicts, key=lambda v: rank.get(v.outcome, 3))


def title(v: Verdict) -> str:
    """``efficientnet-lite0 knn top1 (k=20)``."""
    label = f" ({v.label})" if v.label else ""
    return f"{v.name} {v.suite} {v.metric}{label}"


def markdown(report: Report) -> str:
    """For a job's summary page."""
    lines = [
        f"### bench gate: {report.sentence}",
        "",
        f"Baseline `{_code(report.baseline)}`, candidate `{_code(report.candidate)}`, "
        f"{report.confidence:.0%} confidence over all together.",
        "",
        "| | verdict | baseline | candidate | difference | interval | tolerance | why |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for v in ordered(report):
        outcome = f"**{v.outcome}**" if v.outcome == "regressed" else v.outcome
        why = "; ".join([v.reason, *v.notes])
        cells = [markdown_text(title(v)), outcome, *_numbers(v), markdown_text(why)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def junit(report: Report) -> str:
    """JUnit XML: a regression is a failure, what cannot be judged an error, or skipped where that is allowed."""
    suite = ElementTree.Element("testsuite", name="bench gate", tests=str(len(report.verdicts)))
    counts = {"failure": 0, "error": 0, "skipped": 0}
    for v in report.verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_xml(f"{v.name}.{v.suite}"), name=_xml(f"{v.metric} {v.label}".strip())
        )
        if v.outcome not in {"pass", "improved"}:
            kind = "failure" if v.outcome == "regressed" else "skipped" if report.allow_inconclusive else "error"
            counts[kind] += 1
            fault = ElementTree.SubElement(case, kind, message=_xml(v.reason), type=v.outcome)
            fault.text = _xml(described(v))
        else:
            ElementTree.SubElement(case, "system-out").text = _xml("; ".join([v.reason, *v.notes]))
    suite.set("failures", str(counts["failure"]))
    suite.set("errors", str(counts["error"]))
    suite.set("skipped", str(counts["skipped"]))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def described(v: Verdict) -> str:
    """The numbers of a verdict and its notes, one a line."""
    return "\n".join([f"{k}: {n}" for k, n in zip(_HEADS, _numbers(v), strict=True)] + v.notes)


def workflow_commands(report: Report) -> str:
    """GitHub workflow commands, one a line: errors for regressions, warnings for what could not be judged."""
    lines = []
    for v in ordered(report):
        if v.outcome in {"pass", "improved"}:
            continue
        level = "error" if v.outcome == "regressed" else "warning"
        lines.append(f"::{level} title={_property('bench gate: ' + title(v))}::{_data(v.reason)}")
    lines.append(f"::notice title=bench gate::{_data(report.sentence)}")
    return "\n".join(lines) + "\n"


_HEADS = ("baseline", "candidate", "difference", "interval", "tolerance")


def _numbers(v: Verdict) -> list[str]:
    places = digits(v.unit)
    shown = [f"{n:.{places}f}" if n is not None else "" for n in (v.reference, v.candidate)]
    shown.append(f"{v.difference:+.{places}f}" if v.difference is not None else "")
    shown.append(f"{v.interval[0]:+.{places}f} … {v.interval[1]:+.{places}f}" if v.interval is not None else "")
    shown.append(f"{v.tolerance:g}" if v.tolerance is not None else "")
    return shown


def _xml(text: str) -> str:
    # XML 1.0 has no way at all to write most control characters.
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "\N{REPLACEMENT CHARACTER}", text)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _code(text: str) -> str:
    return clean(text).replace("`", "'").replace("|", "/")
