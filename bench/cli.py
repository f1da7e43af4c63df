"""The front door: the command line. Everything heavier than typer is imported inside the commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bench import console, interruption
from bench._version import __version__
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.progress import Progress
    from bench.record import Record

app = typer.Typer(
    name="bench",
    help="Evaluate frozen visual representations: any checkpoint in, the columns of a paper's table out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


FAULTS_TOLD = 50
"""Faults of a ledger that are printed, one a line."""


def _path(text: str) -> Path:
    """A path; an empty one (a variable that is not set) would quietly be the current folder."""
    if not str(text).strip():
        raise typer.BadParameter("the path is empty")
    return Path(text)


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A path, timm:NAME, torchvision:NAME, hf:ORG/NAME, openclip:NAME/TAG, demo:NAME or features:DIR.",
        metavar="SPEC",
    ),
]
Arch = Annotated[str | None, typer.Option(help="Architecture of a bare weight file (timm's name).", metavar="NAME")]
WeightsKey = Annotated[str | None, typer.Option(help="Which weight set of a file with several.", metavar="KEY")]
Trust = Annotated[
    bool, typer.Option("--trust-checkpoint", help="Let the file's pickle run code. Only for files you made yourself.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result document alone on stdout.")]
Runs = Annotated[Path, typer.Option(help="The ledger: the folder where records gather.", metavar="DIR", parser=_path)]
Site = typer.Option(help="Where the pages go.", metavar="DIR", parser=_path)
Launcher = Annotated[
    str, typer.Option(help="local, torchrun (share the forward passes), ray or slurm (send runs elsewhere).")
]
Data = Annotated[str | None, typer.Option(help="demo, a name under $BENCH_DATA, or kind:PATH.", metavar="SPEC")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command(rich_help_panel="Evaluate")
def run(
    model: Model = None,
    suite: Annotated[str | None, typer.Option(help="Suites, comma-separated: knn,linear.", metavar="A,B")] = None,
    data: Data = None,
    teacher: Annotated[
        str | None, typer.Option(help="The model that the student learned from.", metavar="SPEC")
    ] = None,
    arch: Arch = None,
    weights_key: WeightsKey = None,
    protocol: Annotated[
        list[str] | None, typer.Option(help="A protocol other than the default.", metavar="SUITE=NAME")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change an option: a named variant.", metavar="SUITE.OPTION=VALUE")
    ] = None,
    runs: Runs = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Label of the model in reports.", metavar="LABEL")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of hold-out splits and probes (default 0).", min=0)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="auto (the protocol's own), fp32, bf16 or fp16: another one is a named variant.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images per forward (default: found by itself).", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Decoding processes (default: by the cores).", min=0)] = None,
    limit: Annotated[int | None, typer.Option(help="Use N samples of each split, spread over classes.", min=1)] = None,
    launcher: Launcher = "local",
    from_: Annotated[
        Path | None, typer.Option("--from", help="Repeat the run of a record.", metavar="RECORD.json", parser=_path)
    ] = None,
    trust_checkpoint: Trust = False,
    json: Json = False,
) -> None:
    """Evaluate a model by one or more suites and write a record."""
    asked = {
        "--model": model, "--suite": suite, "--data": data, "--teacher": teacher, "--arch": arch,
        "--weights-key": weights_key, "--protocol": protocol or None, "--set": set_ or None, "--name": name,
        "--seed": seed, "--precision": precision, "--limit": limit,
    }  # fmt: skip
    with console.result() as out:
        from bench import api
        from bench.launchers import Place
        from bench.launchers.sending import record_of
        from bench.request import Request, parse_pairs

        expect = None
        if from_ is not None:
            extra = [flag for flag, value in asked.items() if value is not None]
            if extra:
                raise BenchError(f"--from repeats a record as it was, so {', '.join(extra)} cannot go with it")
            request, expect = api.recorded(from_)
        else:
            if not model or not suite:
                missing = "--model SPEC" if not model else "--suite NAMES"
                raise BenchError(
                    f"bench run needs {missing}: bench run --model demo:mobilenetv2 --suite knn --data demo"
                )
            request = Request.of(
                model=model, suites=list(dict.fromkeys(_names(suite))), data=data, teacher=teacher, arch=arch,
                weights_key=weights_key, protocols=parse_pairs(protocol or [], "--protocol", "suite=name"),
                settings=parse_pairs(set_ or [], "--set", "suite.option=value"), seed=seed or 0,
                precision=precision or "auto", limit=limit, name=name,
            )  # fmt: skip
        place = Place(runs, device, batch, workers, trust_checkpoint)
        record = record_of(launcher, request, place, _progress(), expect)
        if record is None:  # This process only helped another one.
            return
        interruption.ignore()  # Nothing is left to interrupt: the record is in the ledger.
    _show(record, runs, as_json=json, out=out)


@app.command(rich_help_panel="Evaluate")
def sweep(
    file: Annotated[Path, typer.Argument(help="Models, suites and data.", metavar="FILE.yaml")],
    runs: Runs = Path("runs"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch: Annotated[int | None, typer.Option(help="Images per forward (default: found by itself).", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Decoding processes (default: by the cores).", min=0)] = None,
    launcher: Launcher = "local",
    plan: Annotated[bool, typer.Option("--plan", help="Show the runs and their cost, and compute nothing.")] = False,
    trust_checkpoint: Trust = False,
    json: Json = False,
) -> None:
    """Many models x suites x data from one file; exit code 2 when a run failed, the others done."""
    from bench import launchers
    from bench import sweep as sweeping
    from bench.listing import aligned
    from bench.ranks import of_torchrun

    launchers.check(launcher)
    if of_torchrun() is not None:
        raise BenchError("a sweep starts its own processes: call it without torchrun, with --launcher torchrun")
    with console.result() as out:
        requests = sweeping.read(file)
        progress = _progress()
        steps = sweeping.plan(requests, runs)
        progress.say(f"plan: {sweeping.cost(steps)}; records go to {runs}")
        for step in steps:
            if step.status == "failed":
                progress.say(f"[{step.number}/{len(steps)}] {step.label}: cannot be run: {step.reason}")
        if not plan:
            table = [{k: v for k, v in row.items() if k != "numbers"} for row in sweeping.rows(steps)]
            for line in aligned(table).splitlines():
                progress.say(line)
            sweeping.carry(
                steps, runs, launcher=launcher, device=device, batch=batch, workers=workers, trust=trust_checkpoint,
                progress=progress,
            )  # fmt: skip
    if json:
        from json import dumps

        console.emit(dumps({"schema": 1, "runs": [step.document() for step in steps]}, indent=1), out)
    else:
        console.emit(aligned(sweeping.rows(steps)), out)
    if failed := [step for step in steps if step.status == "failed"]:
        numbers = ", ".join(str(step.number) for step in failed)
        raise BenchError(
            f"{len(failed)} of {len(steps)} runs failed ({numbers}), reasons above; the others are recorded"
        )


@app.command(rich_help_panel="Evaluate")
def verify(
    model: Annotated[str, typer.Option("--model", help="A name of `bench list models`, or a path.", metavar="NAME")],
    suite: Annotated[str, typer.Option(help="Suites, comma-separated: knn,linear.", metavar="A,B")],
    data: Data = None,
    reference: Annotated[
        str | None, typer.Option(help="Whose published values hold for a path.", metavar="NAME")
    ] = None,
    runs: Runs = Path("runs"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch: Annotated[int | None, typer.Option(help="Images per forward (default: found by itself).", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Decoding processes (default: by the cores).", min=0)] = None,
    json: Json = False,
) -> None:
    """A released model against its published value. Exit code 0: reproduced, 1: off, 2: cannot be judged."""
    from bench.api import carry_out
    from bench.registry import resolve
    from bench.request import Request

    with console.result() as out:
        verification = resolve("reports", "verify")(model, _names(suite), reference)
        request = Request.of(
            model=verification.spec, suites=list(verification.protocols), protocols=verification.protocols,
            data=data or (None if verification.spec.startswith("features:") else verification.data),
        )  # fmt: skip
        if request.data is not None:
            verification.check(request.data)
        record = carry_out(
            request, runs=runs, device=device, batch=batch, workers=workers, progress=_progress(), reuse=True
        )
        answer = verification.against(record)
    console.emit(answer.to_json() if json else answer.render(), out)
    raise typer.Exit(answer.exit_code)


@app.command(rich_help_panel="Evaluate")
def demo(
    runs: Runs = Path("runs"),
    out: Annotated[Path, Site] = Path("site"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """The whole way on the built-in data: real encoders, two suites, a leaderboard. Minutes, no network."""
    from bench.demo import walk

    with console.result() as stdout:
        walk(runs, out, device=device, progress=_progress(), show=lambda r: _show(r, runs, as_json=False, out=stdout))


@app.command(rich_help_panel="Look")
def inspect(
    model: Annotated[str, typer.Option("--model", help="The checkpoint.", metavar="SPEC")],
    arch: Arch = None,
    weights_key: WeightsKey = None,
    trust_checkpoint: Trust = False,
    json: Json = False,
) -> None:
    """What a checkpoint holds and how it would be read; evaluates nothing."""
    with console.result() as out:
        from bench.loading import load

        card = load(model, arch=arch, weights_key=weights_key, trust=trust_checkpoint).card
    if json:
        console.emit(card.model_dump_json(indent=1), out)
        return
    from bench.registry import resolve

    console.emit(resolve("reports", "inspection")(card), out)


@app.command("list", rich_help_panel="Look")
def list_(
    what: Annotated[str, typer.Argument(help="models, suites, protocols, data or features.")],
    json: Json = False,
) -> None:
    """What there is: models, suites, protocols, data sets, stored features."""
    from bench.listing import LISTINGS, render
    from bench.registry import nearest

    if what not in LISTINGS:
        raise BenchError(f"bench list knows no '{what}'{nearest(what, list(LISTINGS))}")
    with console.result() as out:
        rows = LISTINGS[what]()
    console.emit(render(what, rows, as_json=json), out)


@app.command(rich_help_panel="Report")
def publish(
    runs: Runs = Path("runs"),
    out: Annotated[Path | None, Site] = None,
    check: Annotated[bool, typer.Option("--check", help="Validate the ledger and write nothing.")] = False,
    images: Annotated[bool, typer.Option(help="Show the pictures and thumbnails that records keep.")] = True,
) -> None:
    """Make the leaderboard from the ledger: one self-contained page, with Markdown and CSV beside it."""
    from bench.ledger import Ledger

    if check:
        ledger = Ledger(runs)
        problems = ledger.check()
        for problem in problems[:FAULTS_TOLD]:
            typer.echo(f"  {problem}", err=True)
        if problems:
            told = "above" if len(problems) <= FAULTS_TOLD else f"the first {FAULTS_TOLD} above"
            raise BenchError(f"the ledger {runs} has {len(problems):,} fault{'s' * (len(problems) > 1)}, {told}")
        typer.echo(f"{runs}: {len(ledger.paths()):,} records are valid and what they name is in place")
        return
    if out is None:
        raise BenchError("bench publish needs --out DIR (or --check)")
    from bench.registry import resolve

    with console.result() as stdout:
        summary = resolve("reports", "site")(runs, out, images=images)
    console.emit(str(summary), stdout)


@app.command(rich_help_panel="Look after")
def clean(
    verify: Annotated[bool, typer.Option("--verify", help="Check every checksum; remove damaged parts only.")] = False,
    keep_gb: Annotated[
        float | None, typer.Option(help="Trim to this size, least recently used first.", min=0, metavar="N")
    ] = None,
) -> None:
    """The feature store: remove it, check it, or trim it."""
    from bench.housekeeping import clean as clean_

    typer.echo(str(clean_(verify=verify, keep_gb=keep_gb)))


@app.command(rich_help_panel="Report")
def compare(
    first: Annotated[Path, typer.Argument(help="The record to compare with, or a folder of them.", metavar="RECORD")],
    second: Annotated[Path, typer.Argument(help="The record compared, or a folder of them.", metavar="RECORD")],
    json: Json = False,
) -> None:
    """Two records on the same samples: the paired difference of every number, with its interval.

    Two folders are two arms of trainings, a record each: what their method gains, over training seeds and images.
    """
    from bench.registry import resolve

    if first.is_dir() != second.is_dir():
        raise BenchError("bench compare takes two records, or two folders of records: one of each cannot be compared")
    kind = "arms" if first.is_dir() else "compare"
    with console.result() as out:
        comparison = resolve("reports", kind)(first, second)
    console.emit(comparison.to_json() if json else resolve("reports", f"{kind}-text")(comparison), out)


@app.command(rich_help_panel="Report")
def gate(
    baseline: Annotated[str, typer.Option(help="A ledger, a record, or git:REF:path of either.", metavar="X")],
    candidate: Annotated[str, typer.Option(help="What is judged, given alike.", metavar="Y")],
    mode: Annotated[str, typer.Option(help="numerics (these networks) or training (their recipe).")] = "numerics",
    config: Annotated[
        Path | None, typer.Option(help="Tolerances (default: gate.toml here).", metavar="FILE", parser=_path)
    ] = None,
    allow_inconclusive: Annotated[
        bool, typer.Option("--allow-inconclusive", help="Exit 0 when nothing regressed but something is undecided.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.", metavar="FILE", parser=_path)] = None,
    summary: Annotated[Path | None, typer.Option(help="Append Markdown here.", metavar="FILE", parser=_path)] = None,
    json: Json = False,
) -> None:
    """Is the candidate worse than the baseline? Exit code 0: no, 1: yes, 2: cannot be judged."""
    from bench.registry import resolve

    if mode not in ("numerics", "training"):
        raise BenchError(f"--mode is numerics or training, not '{mode}'")
    with console.result() as out:
        report = resolve("reports", "gate")(
            baseline, candidate, mode=mode, config=config, allow_inconclusive=allow_inconclusive
        )
        if junit is not None:
            console.write(junit, resolve("reports", "gate-junit")(report))
        if summary is not None:
            console.write(summary, resolve("reports", "gate-markdown")(report), append=True)
    text = report.to_json() if json else resolve("reports", "gate-text")(report)
    if not json and os.environ.get("GITHUB_ACTIONS") == "true":
        text = text.rstrip("\n") + "\n" + resolve("reports", "gate-annotations")(report)
    console.emit(text, out)
    raise typer.Exit(report.exit_code)


def main() -> NoReturn:
    """Run the command line; every refusal is one sentence on stderr and exit code 2."""
    console.answer(lambda: app(standalone_mode=False))


def _names(suites: str) -> list[str]:
    return [name.strip() for name in suites.split(",") if name.strip()]


def _progress() -> Progress:
    from bench.progress import Progress

    return Progress()


def _show(record: Record, runs: Path, *, as_json: bool, out: int) -> None:
    if as_json:
        console.emit(record.to_json(), out)
        return
    from rich.console import Console

    from bench.registry import resolve

    with os.fdopen(os.dup(out), "w", encoding="utf-8", errors="backslashreplace") as stream:
        resolve("reports", "terminal")(record, Console(file=stream, highlight=False), path=runs / f"{record.run}.json")


if __name__ == "__main__":
    main()
