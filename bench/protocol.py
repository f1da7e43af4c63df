"""Protocol: a versioned card of hyper-parameters with its source; overrides make a named variant."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import BenchError
from bench.registry import nearest, resolve, table

if TYPE_CHECKING:
    from bench.options import Allowed

Selection = Literal["none", "holdout", "last", "best_on_test"]


class Protocol(BaseModel):
    """One protocol card. ``id`` is ``family/name@version``, with ``+option=value`` for every option changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    suite: str
    title: str
    source: str
    """Paper, repository and file, or the sentence that says it is ours."""
    verified: bool
    """False when a value of the card could not be confirmed at its source."""
    unverified: str | None = None
    """What could not be confirmed."""
    data: str | None = None
    """The published data set: used when the user names none."""
    selection: Selection = "none"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    feature: dict[str, Any] = Field(default_factory=dict)
    """Recorded with every measurement: ``tokens`` (``pooled`` is what the model's paper uses), ``layers``, ``norm``."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The options and their defaults: what ``--set suite.option=value`` may change, and nothing else."""
    inputs: list[str] = Field(default_factory=list)
    """Options that name what is compared (a baseline's SPEC) rather than how: they make no variant."""
    axes: dict[str, Any] = Field(default_factory=dict)
    """What `bench.axes` names (input size, tokens...) where the user asked for others than the model's own."""
    overrides: dict[str, Any] = Field(default_factory=dict)

    def variant(self, changes: dict[str, Any]) -> Protocol:
        """The same card with some options changed and a name of its own.

        A value equal to the card's is no change. Raises `BenchError` for an option that the card does not have, and for
        a value that its suite does not allow.
        """
        from bench import axes as along
        from bench.options import Allowed, coerce

        merged = dict(self.overrides)
        settings = dict(self.settings)
        axes = dict(self.axes)
        own = [axis for axis in along.axes_of(self.suite) if axis not in settings]
        for option, raw in changes.items():
            name = f"{self.suite}.{option}"
            if option in own:
                axes[option] = merged[option] = along.checked(option, raw, name)
                continue
            if option not in settings:
                raise BenchError(f"suite '{self.suite}' has no option '{option}'{nearest(option, [*settings, *own])}")
            allowed = options_of(self.suite).get(option, Allowed())
            default = settings[option]
            value = allowed.checked(coerce(raw, like=default, option=name), like=default, option=name)
            if value == allowed.checked(default, like=default, option=name) and type(value) is type(default):
                continue
            settings[option] = value
            if option not in self.inputs:
                merged[option] = value
        return self.model_copy(update={"settings": settings, "axes": axes, "overrides": merged})._renamed()

    def at_precision(self, precision: str) -> Protocol:
        """The card at another precision (``auto``: its own): a named variant, for precision belongs to the protocol."""
        if precision in ("auto", self.precision):
            return self
        overrides = {**self.overrides, "precision": precision}
        return self.model_copy(update={"precision": precision, "overrides": overrides})._renamed()

    def _renamed(self) -> Protocol:
        from bench.options import spell

        suffix = "".join(f"+{option}={spell(value)}" for option, value in sorted(self.overrides.items()))
        return self.model_copy(update={"id": self.id.split("+", 1)[0] + suffix})


def options_of(suite: str) -> dict[str, Allowed]:
    """What the options of ``suite`` may be, by name: what the suite says of itself."""
    if suite not in table("suites"):
        return {}
    return dict(getattr(resolve("suites", suite), "options", {}))


@functools.cache
def cards() -> dict[str, Protocol]:
    """Every card of every installed suite, by id: the YAML files in ``protocols/`` beside the suites' modules."""
    found: dict[str, Protocol] = {}
    # libyaml's reader, where PyYAML has it, takes a tenth of the time: every command waits for it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for package in sorted({entry.target.split(":")[0].rpartition(".")[0] for entry in table("suites").values()}):
        folder = files(package) / "protocols"
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir(), key=lambda p: p.name):
            if not path.name.endswith(".yaml"):
                continue
            try:
                # A file holds one card or, separated by `---`, a family of cards.
                for document in yaml.load_all(path.read_text(encoding="utf-8"), Loader=loader):
                    card = Protocol.model_validate(document)
                    found[card.id] = card
            except (ValidationError, yaml.YAMLError) as error:
                raise BenchError(f"the protocol card {path} is not valid: {error}") from error
    return found


def get(suite: str, name: str | None = None) -> Protocol:
    """The card ``name`` of ``suite``: a full id, an id without version (the newest), or ``mae`` for ``linear/mae``.

    Without a name, the suite's default protocol.
    """
    mine = {id_: card for id_, card in cards().items() if card.suite == suite}
    if name is None:
        from bench.registry import resolve

        name = str(resolve("suites", suite).default)
    if name in mine:
        return mine[name]
    wanted = name if "/" in name else f"{suite}/{name}"
    matching = [id_ for id_ in mine if id_ == wanted or id_.partition("@")[0] == wanted]
    if not matching:
        short = sorted({id_.partition("@")[0] for id_ in mine})
        raise BenchError(f"suite '{suite}' has no protocol '{name}'{nearest(wanted, short)}")
    return mine[max(matching, key=lambda id_: int(id_.partition("@")[2] or 0))]
