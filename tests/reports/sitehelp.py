"""Reading the board's pages."""

from __future__ import annotations

import html.parser
import json
from typing import Any

from reports.site import Summary


class Page(html.parser.HTMLParser):
    """A page's tags, the addresses that it names, its text, and the documents in its script elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.documents: dict[str, Any] = {}
        self._inside = ""
        self._document: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in {"href", "src", "action", "data", "srcset"}]
        self._inside = tag
        self._document = given.get("id") if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        self._document = None

    def handle_data(self, data: str) -> None:
        if self._document is not None:
            self.documents[self._document] = json.loads(data)
        elif self._inside not in {"script", "style"}:
            self.text += data


def board_of(summary: Summary) -> dict[str, Any]:
    return Page(summary.page.read_text()).documents["board-data"]


def measured_table(summary: Summary) -> dict[str, Any]:
    return board_of(summary)["tables"][0]
