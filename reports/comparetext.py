"""A comparison as text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.compare import Comparison, Pair
from reports.pairing import Mover
from reports.wording import clean, digits, shared_settings

SHOWN = 12
"""Flipped samples named in the text; `--json` has up to `reports.pairing.LISTED`."""


def render(comparison: Comparison) -> str:
    """The table, then which samples and classes moved under every headline, then what was not compared."""
    stream = io.StringIO()
    console = Console(file=stream, width=100, highlight=False)
    console.print(Text(f"{clean(comparison.second_name)} minus {clean(comparison.first_name)}"))
    console.print(Text(f"  first   {clean(comparison.first)}\n  second  {clean(comparison.second)}\n"))
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("", overflow="fold")
    for head in ("first", "second", "difference", "95 % interval", "p"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for title, pairs in groupby(comparison.pairs, key=lambda p: f"{p.protocol}  {p.dataset} {p.split}"):
        group = list(pairs)
        common, labels = shared_settings(group)
        table.add_row(Text(clean(", ".join(filter(None, (title, common)))), style="cyan"))
        for pair, label in zip(group, labels, strict=True):
            table.add_row(*map(Text, _cells(pair, label)), style="bold" if pair.headline else None)
    console.print(table)
    for pair in comparison.pairs:
        if pair.headline and (pair.flips is not None or pair.movers):
            console.print(Text(_flipped(pair)))
    for item in comparison.incomparable:
        said = f"\nnot comparable: {item.suite} {item.metric} {item.label}: {'; '.join(item.reasons)}"
        console.print(Text(clean(said.strip())))
    for which, names in (("first", comparison.only_first), ("second", comparison.only_second)):
        if names:
            console.print(Text(clean(f"only in the {which}: {', '.join(names)}")))
    if (claim := _of_these(comparison)) is not None:
        console.print(Text(f"\n{clean(claim)}"))
    return stream.getvalue().rstrip() + "\n"


def _of_these(comparison: Comparison) -> str | None:
    """What the headlines say of the two networks, and that it is of these alone."""
    judged = [p for p in comparison.pairs if p.headline and p.verdict]
    if not judged:
        return None
    apart = [f"{p.suite} {p.metric}" for p in judged if p.verdict in ("better", "worse")]
    found = f"these two networks differ in {', '.join(apart)}" if apart else "these two networks cannot be told apart"
    return f"{found}; what a method gains shows over training seeds: bench compare DIR DIR"


def _flipped(pair: Pair) -> str:
    lines = [f"\n{clean(pair.suite)} {clean(pair.metric)} {clean(pair.label)}".rstrip()]
    if (flips := pair.flips) is not None:
        lines.append(
            f"  {flips.gained:,} samples gained, {flips.lost:,} lost, {flips.same_prediction:.2f} % predicted alike"
        )
        for said, samples in (("gained", flips.gained_samples), ("lost", flips.lost_samples)):
            if samples:
                rest = ", ..." if len(samples) > SHOWN else ""
                lines.append(f"  samples {said}, by index: {', '.join(map(str, samples[:SHOWN]))}{rest}")
    lost = [m for m in pair.movers if m.second < m.first][:5]
    gained = [m for m in reversed(pair.movers) if m.second > m.first][:5]
    for said, movers in (("classes that lost most", lost), ("classes that gained most", gained)):
        if movers:
            lines.append(f"  {said}: " + _movers(movers))
    return "\n".join(lines)


def _movers(movers: Sequence[Mover]) -> str:
    return ", ".join(
        f"{clean(m.name) if m.name else m.label} ({m.first:.1f} to {m.second:.1f}, n {m.n:,})" for m in movers
    )


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _cells(pair: Pair, label: str) -> list[str]:
    at = digits(pair.unit)
    interval = "none" if pair.interval is None else f"{pair.interval[0]:+.{at}f} … {pair.interval[1]:+.{at}f}"
    # Pairing is what a reader expects; anything less is said.
    said = ", ".join(filter(None, (pair.verdict, pair.method if pair.method in ("unpaired", "none") else "")))
    name = clean(f"  {pair.metric} {label}".rstrip())
    return [
        name,
        f"{pair.first:.{at}f}",
        f"{pair.second:.{at}f}",
        f"{pair.difference:+.{at}f}",
        interval,
        _p(pair.p),
        said,
    ]
