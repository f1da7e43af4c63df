"""One record on the terminal.

The reader wants, in this order: which number is the answer, how sure it is, what it was measured on, where it lies. So
a section per (protocol, data), its headline in bold and marked, and one line per setting when metrics share a setting::

    efficientnet-lite0   seed 0, 2026-11-21 05:12:00 UTC
      model   tf_efficientnet_lite0, 3,413,024 parameters, plain, 358/358 tensors
      data    fashion-mnist test, 1,000 samples, 4f0c9a1b2d3e

    knn/dino@1  temperature=0.07, avg, l2, faiss 1.15.1
              top1  95 % interval   top5  95 % interval      n
       k=10  81.20  78.66 … 83.50  98.10  97.05 … 98.78  1,000
    ›  k=20  81.40  78.87 … 83.69  98.30  97.29 … 98.94  1,000

"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.wording import clean, describe, number, provenance, shared_settings, short

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bench.record import Measurement, Record

HEADLINE = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
"""Marks a headline where bold cannot be seen."""


def show(record: Record, console: Console | None = None, *, path: Path | str | None = None) -> None:
    """Print ``record`` on ``console`` (default: stdout); ``path``: where it was written, None when it was not.

    Lines fit 80 columns; without a terminal the text is plain.
    """
    console = console or Console(highlight=False)
    created = record.created.replace("T", " ").replace("Z", " UTC")
    console.print()
    console.print(Text.assemble((clean(record.name), "bold"), (clean(f"   seed {record.seed}, {created}"), "dim")))
    for label, text in _facts(record):
        console.print(_fact(label, text))
    groups = _groups(record.measurements)
    for group in groups:
        console.print()
        for part in _section(
            group, several=len({g[0].dataset for g in groups if g[0].protocol == group[0].protocol}) > 1
        ):
            console.print(part)
    console.print()
    if record.timings:
        console.print(_fact("time", _timings(record.timings)))
    if path is not None:
        console.print(_fact("record", str(path)))


SETS = 8
"""Lines of data sets at most."""


def _fact(label: str, text: str) -> RenderableType:
    """A label and its text, continuation lines indented below the text."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=9, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(f"  {label}", style="dim"), Text(clean(text)))
    return grid


def _facts(record: Record) -> list[tuple[str, str]]:
    rows = [("model", describe(record.model))]
    if record.model.transform is not None:
        rows.append(("input", record.model.transform.describe()))
    rows += [("hazard", hazard) for hazard in record.model.hazards]
    if record.teacher is not None:
        rows.append(("teacher", f"{record.teacher.name}: {describe(record.teacher)}"))
    sets: dict[tuple[str, str, str], int] = {}
    for m in record.measurements:
        sets[m.dataset, m.split, m.fingerprint] = max(m.n, sets.get((m.dataset, m.split, m.fingerprint), 0))
    data = [("data", f"{name} {split}, {n:,} samples, {short(print_)}") for (name, split, print_), n in sets.items()]
    if len(data) > SETS:
        data[SETS - 1 :] = [("data", f"and {len(data) - SETS + 1:,} more, named with their numbers")]
    return rows + data


def _groups(measurements: Sequence[Measurement]) -> list[list[Measurement]]:
    """Measurements that one section shows together: those that differ in metric and settings only."""
    groups: dict[tuple[str, ...], list[Measurement]] = {}
    for m in measurements:
        key = (m.suite, m.protocol, m.dataset, m.split, m.fingerprint, provenance(m))
        groups.setdefault(key, []).append(m)
    return list(groups.values())


def _section(group: list[Measurement], *, several: bool = False) -> list[RenderableType]:
    """``several``: the protocol has numbers on more than one data set, so each section names its own."""
    first = group[0]
    networks = [m for m in group if "network" in m.settings]
    rest = [m for m in group if "network" not in m.settings]
    common, labels = shared_settings(rest or group)
    heading = ", ".join(filter(None, (f"on {first.dataset}" if several else "", common, provenance(first))))
    parts: list[RenderableType] = [Text.assemble((clean(first.protocol), "bold cyan"), (f"  {clean(heading)}", "dim"))]
    if networks:
        parts += [_networks(networks), Text("")] if rest else [_networks(networks)]
    if not rest:
        return parts + _noted(group)
    rows = list(dict.fromkeys(labels))
    metrics = list(dict.fromkeys(m.metric for m in rest))
    cells = {(label, m.metric): m for label, m in zip(labels, rest, strict=True)}
    # A grid of settings by metrics when several numbers share a setting and three columns hold them; else a list.
    if len(rows) > 1 and len(metrics) <= 3 and len(cells) == len(rest) > len(rows):
        parts.append(_grid(rows, metrics, cells))
    else:
        parts.append(_list(rest, labels if len(rows) > 1 else None))
    return parts + _noted(group)


def _noted(group: Sequence[Measurement]) -> list[RenderableType]:
    from rich.padding import Padding

    return [Padding(Text(clean(note), style="yellow"), (0, 0, 0, 4)) for note in notes(group)]


def notes(group: Sequence[Measurement]) -> list[str]:
    """What a reader must know before trusting these numbers, each said once."""
    said: dict[str, None] = {}
    # What several metrics have in common is said with all of their names.
    without = {note: [m.metric for m in group if _lacks(m) == note] for note in filter(None, map(_lacks, group))}
    for m in group:
        if m.selection == "best_on_test":
            said["Selected on test: the best of several on the reported samples, too high by an unknown amount"] = None
        elif note := _lacks(m):
            said[f"{', '.join(dict.fromkeys(without[note]))}: {note}"] = None
        if not m.verified:
            said["Unverified: the protocol card holds a value that could not be confirmed at its source"] = None
        unseen = m.details.get("without_training_samples")
        if isinstance(unseen, dict) and isinstance(unseen.get("test_samples"), int):
            said[f"{unseen['test_samples']:,} samples are of classes without training samples: none can be right"] = (
                None
            )
        fewer, k = m.details.get("neighbours"), m.settings.get("k")
        if isinstance(fewer, int) and isinstance(k, int):
            said[f"k={k:,}: the training split has only {fewer:,} neighbours to give, and all of them vote"] = None
        if isinstance(zero := m.details.get("zero_features"), int):
            said[f"{zero:,} samples have features that are all zero: no neighbour of theirs is nearer than another"] = (
                None
            )
        left_out = m.details.get("left_out")
        if isinstance(left_out, dict):
            listed = ", ".join(
                f"{facts['corrupt']:,} of {split}"
                for split, facts in left_out.items()
                if isinstance(facts, dict) and isinstance(facts.get("corrupt"), int)
            )
            said[f"Images that could not be decoded were left out: {listed}"] = None
    return list(said)


def _lacks(m: Measurement) -> str | None:
    """Why there is no interval, where a suite says so."""
    return m.interval_note if m.interval is None and m.selection != "best_on_test" else None


def _grid(rows: list[str], metrics: list[str], cells: dict[tuple[str, str], Measurement]) -> Table:
    table = _table()
    # Numbers must stand whole: what gives way is the text.
    table.add_column("", overflow="fold")
    # Two intervals beside their values fill 80 columns; with more metrics only the first shows its own.
    with_interval = metrics if len(metrics) <= 2 else metrics[:1]
    for metric in metrics:
        table.add_column(Text(clean(metric)), justify="right", no_wrap=True)
        if metric in with_interval:
            table.add_column("95 % interval", justify="right", no_wrap=True, style="dim")
    table.add_column("n", justify="right", no_wrap=True)
    for label in rows:
        row = [cells.get((label, metric)) for metric in metrics]
        headline = any(m.headline for m in row if m is not None)
        columns = [HEADLINE if headline else "", clean(label)]
        for metric, m in zip(metrics, row, strict=True):
            columns.append(number(m) if m is not None else "")
            if metric in with_interval:
                columns.append(_interval(m) if m is not None else "")
        columns.append(f"{max(m.n for m in row if m is not None):,}")
        table.add_row(*map(Text, columns), style="bold" if headline else None)
    return table


def _networks(group: list[Measurement]) -> Table:
    """What was measured of each network of a comparison: one line a network, the first metric with its interval."""
    cells = {(str(m.settings["network"]), m.metric): m for m in group}
    rows = list(dict.fromkeys(network for network, _ in cells))
    metrics = list(dict.fromkeys(metric for _, metric in cells))
    table = _table()
    table.add_column("", no_wrap=True)
    _, labels = shared_settings([m.model_copy(update={"settings": _but_network(m)}) for m in group])
    own = {m.metric: label for m, label in zip(group, labels, strict=True)}
    for metric in metrics:
        name = clean(metric) if len(metric) <= 10 else clean(metric).replace("_", "_\n")
        header = f"{name}\n{clean(own[metric])}" if own[metric] else name
        table.add_column(Text(header), justify="right", overflow="fold")
        if metric == metrics[0]:
            table.add_column("95 % interval", justify="right", no_wrap=True, style="dim")
    table.add_column("n", justify="right", no_wrap=True)
    for network in rows:
        found = [cells.get((network, metric)) for metric in metrics]
        columns = ["", clean(network)]
        for metric, m in zip(metrics, found, strict=True):
            columns.append(number(m) if m is not None else "")
            if metric == metrics[0]:
                columns.append(_interval(m) if m is not None else "")
        columns.append(f"{max(m.n for m in found if m is not None):,}")
        table.add_row(*map(Text, columns))
    return table


def _but_network(m: Measurement) -> dict[str, Any]:
    return {key: value for key, value in m.settings.items() if key != "network"}


def _list(group: list[Measurement], labels: list[str] | None) -> Table:
    table = _table()
    if labels is not None:
        table.add_column("", overflow="fold")
    table.add_column("metric", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True, style="dim")
    table.add_column("n", justify="right", no_wrap=True)
    for index, m in enumerate(group):
        value = number(m) + (f" (sd {m.sd:.2f})" if m.sd is not None else "")
        columns = [HEADLINE if m.headline else "", *([clean(labels[index])] if labels else []), clean(m.metric), value]
        columns += [_interval(m), f"{m.n:,}"]
        table.add_row(*map(Text, columns), style="bold" if m.headline else None)
    return table


def _table() -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("", width=3, justify="right", no_wrap=True, style="cyan")
    return table


def _interval(m: Measurement) -> str:
    if m.interval is None:
        return "none"
    low, high = (number(m, bound) for bound in m.interval)
    text = f"{low} … {high}"
    return text if m.confidence == 0.95 else f"{text} ({m.confidence:.0%})"


def _timings(timings: dict[str, float]) -> str:
    shown = {stage: seconds for stage, seconds in timings.items() if seconds >= 0.05 and stage != "total"}
    parts = [f"{stage} {duration(seconds)}" for stage, seconds in shown.items()]
    if "total" in timings:
        parts.append(f"total {duration(timings['total'])}")
    return ", ".join(parts) or "under 0.1 s"


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 03 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
