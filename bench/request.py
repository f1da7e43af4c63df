"""Request: the arguments of one run, checked before anything heavy is loaded; a Record keeps it."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bench import protocol as protocols
from bench.errors import BenchError, brief
from bench.files import at_home
from bench.protocol import Protocol
from bench.registry import nearest, table
from bench.text import spoken

MODEL_KINDS = ("features", "openclip")
DATA_KINDS = ("imagefolder", "webdataset", "hf", "coco", "voc", "segfolder", "ade20k")
"""Kinds whose text may be a path; ``hf:`` of a model is a name of the hub, never a path."""


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """NumPy's numbers and arrays as Python's; texts that a record cannot hold are refused."""
    settings = {key: value.tolist() if hasattr(value, "tolist") else value for key, value in settings.items()}
    for key, value in settings.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and text:
                try:
                    spoken(text)
                except ValueError as error:
                    raise ValueError(f"{key!a} {error}") from None
    return settings


Text = Annotated[str, AfterValidator(spoken)]


def _whole(value: Any) -> Any:
    """Python and pydantic take True for 1."""
    if isinstance(value, bool):
        raise ValueError(f"is a whole number, not {value}")
    return int(value) if isinstance(value, Integral) else value


class Request(BaseModel):
    """What was asked: everything that a number may depend on, and nothing of where it is run or kept."""

    model_config = ConfigDict(extra="forbid")

    model: Text
    """SPEC, or ``live`` for a module handed over in memory."""
    suites: Annotated[list[Text], AfterValidator(lambda names: list(dict.fromkeys(names)))]
    teacher: Text | None = None
    data: Text | None = None
    arch: Text | None = None
    weights_key: Text | None = None
    protocols: dict[str, str] = Field(default_factory=dict)
    """Suite -> protocol name."""
    settings: Annotated[dict[str, Any], AfterValidator(_plain)] = Field(default_factory=dict)
    """``suite.option`` -> value."""
    seed: Annotated[int, BeforeValidator(_whole)] = Field(default=0, ge=0, lt=2**31)
    """Every library's generators take it, and a few thousand draws more."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    limit: Annotated[int, BeforeValidator(_whole)] | None = Field(default=None, ge=1)
    name: Text | None = None

    @classmethod
    def of(cls, **given: Any) -> Request:
        """A checked request. Raises `BenchError` that names the first argument at fault."""
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            if first["type"] == "value_error":  # A sentence of ours.
                raise BenchError(f"{where} {first['msg'].removeprefix('Value error, ')}") from None
            raise BenchError(f"{where}: {first['msg']} (got {brief(repr(first['input']))})") from None

    def anywhere(self) -> Request:
        """The same request with every path absolute, for a record may be repeated from another folder."""

        def option(value: Any) -> Any:
            # A word that happens to be a file's name is a word; a SPEC of a weight file has a suffix or a separator.
            return placed(value) if isinstance(value, str) and ("." in value or os.sep in value) else value

        return self.model_copy(
            update={
                "model": placed(self.model),
                "teacher": placed(self.teacher) if self.teacher else None,
                "data": _data_anywhere(self.data) if self.data else self.data,
                "settings": {
                    key: [option(v) for v in value] if isinstance(value, list) else option(value)
                    for key, value in self.settings.items()
                },
            }
        )

    def cards(self) -> dict[str, Protocol]:
        """The protocol card of every suite, in the order asked, with the changed options applied.

        Raises `BenchError` for an unknown suite, protocol or option, and for an option of a suite that is not run.
        """
        known = list(table("suites"))
        if not self.suites:
            raise BenchError(f"no suite was asked for; there are: {', '.join(known)}")
        found: dict[str, Protocol] = {}
        for suite in self.suites:
            if suite not in known:
                raise BenchError(f"unknown suite '{suite}'{nearest(suite, known)}")
            card = protocols.get(suite, self.protocols.get(suite))
            changes = {key.partition(".")[2]: v for key, v in self.settings.items() if key.partition(".")[0] == suite}
            found[suite] = card.variant(changes).at_precision(self.precision)
        for key in [*self.protocols, *self.settings]:
            suite = key.partition(".")[0]
            if suite not in found:
                raise BenchError(f"'{key}' is set, but suite '{suite}' is not run (suites: {', '.join(found)})")
        return found


def placed(spec: str, kinds: tuple[str, ...] = MODEL_KINDS, beside: Path | None = None) -> str:
    """``spec`` with the path in it, where there is one, made absolute; links and choices (``?a=b``) stay as they are.

    ``kinds``: the kinds whose text is a path. ``beside``: the folder that paths count from; None: the working folder,
    and a word that is a file's name counts as one.
    """
    kind, separator, rest = spec.partition(":")
    if separator and kind == "ood" and kinds is DATA_KINDS:
        # Two SPECs in one.
        return kind + separator + ",".join(placed(part, kinds, beside) for part in rest.split(","))
    if separator and kind == "openclip" and kinds is MODEL_KINDS and "?weights=" in rest:
        name, _, file = rest.partition("?weights=")
        return f"{kind}:{name}?weights={placed(file, kinds, beside)}"
    if separator and kind in ("corrupted", "imagecorruptions") and kinds is DATA_KINDS and "," in rest:
        what, _, part = rest.partition(",")
        return f"{kind}:{what},{placed(part, kinds, beside)}"
    if separator and kind not in kinds:
        return spec
    text = rest if separator else spec
    if beside is not None and not separator and "." not in text and os.sep not in text:
        return spec
    path, mark, choices = text.partition("?")
    for start, end in {text: "", path: mark + choices}.items():
        where = (beside or Path()) / at_home(start)
        try:
            if start and where.exists():
                return f"{kind if separator else ''}{separator}{where.absolute()}{end}"
        except (OSError, ValueError):
            return spec
    return spec


def _data_anywhere(spec: str) -> str:
    return placed(spec, DATA_KINDS) if ":" in spec else spec


def parse_pairs(pairs: list[str], flag: str, shape: str) -> dict[str, str]:
    """``["a=b"]`` as a dictionary; a pair without ``=`` or a key given twice is refused."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key or (shape.startswith("suite.") and "." not in key):
            raise BenchError(f"{flag} takes {shape}, not '{pair}'")
        if key in found and found[key] != value:
            raise BenchError(f"{flag} gives '{key}' twice: {found[key]} and {value}")
        found[key] = value
    return found
