"""The tables of docs/settings.md, from the classes that the programs read their settings with.

    python -m tools.settings_page           exit 1 where the page does not say what the classes say
    python -m tools.settings_page --write   write the tables again

Each table stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything else on the page is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from overpaint_common.configuration import values, variable
from overpaint_common.settings import AccessSettings, Settings
from overpaint_worker.engine.registry import ModelSpec
from overpaint_worker.settings import KeeperSettings, WorkerSettings
from tools.generated import ROOT, settle

PAGE = ROOT / "docs" / "settings.md"

TABLES: Mapping[str, tuple[type[BaseModel], type[BaseModel] | None]] = {
    "everybody": (Settings, None),
    "access": (AccessSettings, Settings),
    "keeper": (KeeperSettings, AccessSettings),
    "worker": (WorkerSettings, KeeperSettings),
    "registry": (ModelSpec, None),
}
"""By the names of the markers: a class, and the one whose fields another table has already."""

_GENERATED = re.compile(r"(?<=<!-- generated: )(\w+) -->\n.*?(?=<!-- end -->)", re.DOTALL)


def default(field: FieldInfo) -> str:
    """A default as the page writes it."""
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    match value:
        case None:
            return "none"
        case ():
            return "nothing"
        case bool():
            return f"`{str(value).lower()}`"
        case SecretStr():
            return f"`{value.get_secret_value()}`"
        case _:
            return f"`{value}`"


def table(name: str) -> str:
    """The table of one marker; raises ValueError for a field without a docstring."""
    kind, parent = TABLES[name]
    own = {key: field for key, field in kind.model_fields.items() if parent is None or key not in parent.model_fields}
    head = "key" if issubclass(kind, ModelSpec) else "variable"
    lines = [f"| {head} | default | takes | meaning |", "| --- | --- | --- | --- |"]
    for key, field in own.items():
        if field.description is None:
            raise ValueError(f"{kind.__name__}.{key} has no docstring; write its meaning below it")
        spelled = key if head == "key" else variable(key)
        meaning = " ".join(field.description.split()).removesuffix(".")
        lines.append(f"| `{spelled}` | {default(field)} | {values(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The page with all its tables made again; raises ValueError where one is missing."""
    missing = TABLES.keys() - {found[1] for found in _GENERATED.finditer(text)}
    if missing:
        raise ValueError(f"the page has no table {', '.join(sorted(missing))}; write its two markers")
    return _GENERATED.sub(lambda found: f"{found[1]} -->\n\n{table(found[1])}\n", text)


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    sys.exit(settle(PAGE, written(page), sys.argv[1:], command="python -m tools.settings_page"))
