"""Reading the project's own pages: code blocks, tables, links, and the commands they tell people to type."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = (README, *sorted(DOCS.rglob("*.md")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Page:
    path: Path
    text: str

    @property
    def name(self) -> str:
        """Its path within the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def code(self) -> list[tuple[str, str]]:
        """Language and content of each of its code blocks, in order."""
        return _FENCE.findall(self.text)

    def blocks(self, language: str) -> list[str]:
        """The contents of its code blocks in one language, in order."""
        return [body for found, body in self.code if found == language]

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
        # A line of code may begin like a heading.
        masked = _FENCE.sub(lambda block: re.sub("^#", " ", block[0], flags=re.MULTILINE), self.text)
        (heading,) = re.finditer(rf"^(#+) {re.escape(title)}$", masked, re.MULTILINE)
        after = re.compile(rf"^#{{1,{len(heading[1])}}} ", re.MULTILINE).search(masked, heading.end())
        return Page(self.path, self.text[heading.end() : after.start() if after else None].lstrip("\n"))

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
        lines = [line for block in self.blocks("sh") for line in typed(block)]
        candidates = lines + [span for span in self.spans if span.split()[0] == program]
        words = [shlex.split(line, comments=True) for line in candidates]
        return [line[1:] for line in words if line[:1] == [program]]


def typed(block: str) -> list[str]:
    """The lines of a shell block, those that go on after a backslash made one."""
    return block.replace("\\\n", " ").splitlines()


def page(path: Path) -> Page:
    return Page(path, path.read_text(encoding="utf-8"))


def pages() -> list[Page]:
    return [page(path) for path in PAGES]
