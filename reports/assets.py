"""JavaScript and style of the page's table and charts, taken from the installed packages that carry them.

Nothing of theirs is kept in this project: DataTables comes out of the wheel of ``itables``, Vega, Vega-Lite and
Vega-Embed out of that of ``vl-convert-python``, when a page is made, with their licences.
"""

from __future__ import annotations

import functools
import re
from importlib.metadata import PackagePath, distribution
from importlib.resources import files

from bench.errors import BenchError

_EXPORT = re.compile(r"export\s*\{([^}]*)\}\s*;?")


@functools.cache
def table_script() -> str:
    """DataTables with its extensions as a classic script that sets ``window.DataTable``."""
    code = files("itables").joinpath("html", "dt_bundle.js").read_text(encoding="utf-8")
    exported = _EXPORT.search(code)
    names = dict(_pair(item) for item in exported[1].split(",")) if exported else {}
    if exported is None or "default" not in names:
        raise BenchError(
            "the installed itables brings no DataTables bundle that bench knows: install itables 2.4 or later"
        )
    code = code[: exported.start()] + f"window.DataTable={names['default']};" + code[exported.end() :]
    return _scoped(code)


@functools.cache
def table_style() -> str:
    return (
        files("itables").joinpath("html", "dt_bundle.css").read_text(encoding="utf-8").replace("</style", "<\\/style")
    )


@functools.cache
def chart_script() -> str:
    """Vega, Vega-Lite and Vega-Embed as a classic script that sets ``window.vegaEmbed``."""
    import vl_convert

    return _scoped(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


@functools.cache
def licences() -> str:
    """The licence texts of what the pages carry, and which versions those are."""
    import vl_convert

    bundle = files("itables").joinpath("html", "dt_bundle.js").read_text(encoding="utf-8")
    parts = [
        "The pages carry these libraries, unchanged, from installed Python packages.\n",
        f"Vega {vl_convert.get_vega_version()}, Vega-Lite {vl_convert.get_vegalite_versions()[-1]}, "
        f"Vega-Embed {vl_convert.get_vega_embed_version()}: BSD-3-Clause, Copyright University of Washington "
        f"Interactive Data Lab, https://github.com/vega; through vl-convert-python:\n",
        _licence("vl-convert-python"),
        "DataTables and its extensions: MIT, Copyright SpryMedia Ltd, https://datatables.net/license/mit; jQuery: MIT, "
        "Copyright OpenJS Foundation; JSZip: MIT; through itables:\n",
        _licence("itables"),
        "Notices in the bundle:\n",
        *sorted(set(re.findall(r"/\*!.*?\*/", bundle, re.DOTALL))),
    ]
    return "\n".join(parts) + "\n"


def _licence(package: str) -> str:
    found = distribution(package)
    paths: list[PackagePath] = [p for p in found.files or [] if "licen" in p.name.lower() and "dist-info" in str(p)]
    text = "\n".join(path.read_text() for path in paths)
    return f"{package} {found.version}\n\n{text}\n"


def _pair(item: str) -> tuple[str, str]:
    """``Go as ITable`` -> (``ITable``, ``Go``)."""
    inner, _, outer = item.strip().partition(" as ")
    return (outer or inner).strip(), inner.strip()


def _scoped(code: str) -> str:
    """A bundle in a scope of its own, as the module that it was, so that its short names do not become the page's."""
    # "</script" is the one text that ends a script element, whatever it stands in.
    safe = code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return f'(()=>{{"use strict";{safe}\n}})();'
