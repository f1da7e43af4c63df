"""The library's first verb: `load` a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, brief

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.stored import StoredFeatures


def load(
    spec: str | Path, arch: str | None = None, weights_key: str | None = None, trust: bool = False
) -> Backbone | StoredFeatures:
    """A frozen `Backbone` (eval mode, gradients off, ``.card``) from a SPEC; ``features:DIR`` gives `StoredFeatures`.

    ``spec``: a path, or ``timm:``, ``torchvision:``, ``demo:``, ``features:`` and what follows. ``arch`` names the
    architecture of a bare weight file, ``weights_key`` the weight set of a container with several. ``trust`` lets
    Python's pickle execute what the file says: only for files you made. Raises `BenchError` when the checkpoint does
    not fill the network.
    """
    from bench.registry import nearest, resolve, table
    from bench.text import spoken

    if not isinstance(spec, str | Path):
        raise BenchError(f"a model is loaded from a SPEC (text or path), not from a {type(spec).__name__}")
    text = str(spec)
    for argument, value in (("model", text), ("arch", arch), ("weights_key", weights_key)):
        if value is None:
            continue
        if not isinstance(value, str):
            raise BenchError(f"{argument} is a text, not a {type(value).__name__}")
        try:
            spoken(value)
        except ValueError as error:
            raise BenchError(f"{argument} {error}") from None
    scheme, separator, rest = text.partition(":")
    schemes = [name for name in table("adapters") if name != "path"]
    if separator and scheme in schemes:
        adapter = resolve("adapters", scheme)
    elif separator and not Path(text).exists() and scheme.isidentifier() and len(scheme) > 1:
        raise BenchError(f"unknown kind of model '{scheme}:'{nearest(scheme, schemes)}")
    else:
        adapter, rest = resolve("adapters", "path"), text
    try:
        model: Backbone | StoredFeatures = adapter(rest, arch=arch, weights_key=weights_key, trust=trust)
    except OSError as error:
        raise BenchError(f"the model {brief(text)} cannot be read: {error.strerror or error}") from None
    from bench.backbone import Backbone

    if isinstance(model, Backbone):
        model.asked = {"arch": arch, "weights_key": weights_key}
    return model
