"""Reading the project's own pages: code blocks, tables, links, and the commands they tell people to type."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = (README, *sorted(DOCS.glob("*.md")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Page:
    path: Path
    text: str

    def blocks(self, language: str) -> list[str]:
        """The contents of its code blocks in one language, in order."""
        return [body for found, body in _FENCE.findall(self.text) if found == language]

    @property
    def spans(self) -> list[str]:
        """What stands between single backticks, line breaks made spaces."""
        return [" ".join(span.split()) for span in _SPAN.findall(_FENCE.sub("", self.text))]

    @property
    def links(self) -> list[str]:
        return _LINK.findall(_FENCE.sub("", self.text))

    @property
    def anchors(self) -> set[str]:
        """What a link may name after `#`, spelled as common renderers do."""
        headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", self.text), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def section(self, title: str) -> Page:
        """What stands under one heading, up to the next of its level or above."""
        lines = iter(self.text.splitlines(keepends=True))
        heading = next(line for line in lines if line.lstrip("#").strip() == title)
        level = len(heading) - len(heading.lstrip("#"))
        body = takewhile(lambda line: not 0 < len(line) - len(line.lstrip("#")) <= level, lines)
        return Page(self.path, "".join(body))

    @property
    def prose(self) -> str:
        """The text with its line breaks made spaces, so that a sentence is found however it is broken."""
        return " ".join(self.text.split())

    def rows(self, first_column: str) -> list[list[str]]:
        """The rows of every table whose first column is headed so, cells without their backticks."""
        rows, inside = [], False
        for line in self.text.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
            if not cells:
                inside = False
            elif cells[0] == first_column:
                inside = True
            elif inside and not set(cells[0]) <= set("- "):
                rows.append([cell.strip("`") if cell.count("`") == 2 else cell for cell in cells])
        return rows

    def commands(self, program: str) -> list[list[str]]:
        """The arguments of each call of `program` in shell blocks and between backticks."""
        lines = [line for block in self.blocks("sh") for line in block.splitlines()]
        candidates = lines + [span for span in self.spans if span.split()[0] == program]
        words = [shlex.split(line, comments=True) for line in candidates]
        return [line[1:] for line in words if line[:1] == [program]]


def page(path: Path) -> Page:
    return Page(path, path.read_text(encoding="utf-8"))


def pages() -> list[Page]:
    return [page(path) for path in PAGES]
