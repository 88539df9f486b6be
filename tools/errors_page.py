"""The tables of docs/errors.md, made from the error tree: code, class, meaning, remedy, whether to retry.

    python -m tools.errors_page            compare; exit 1 where they differ
    python -m tools.errors_page --write    write them again

The page's own text stays around them: each table lies between `<!-- errors: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from overpaint_common import errors
from overpaint_common.errors import OverpaintError
from tools.generated import ROOT, settle

PAGE = ROOT / "docs" / "errors.md"

GROUPS: Mapping[str, tuple[type[OverpaintError], ...]] = {
    "submission": (
        errors.SettingsError,
        errors.InvalidJob,
        errors.PartlySubmitted,
        errors.ForbiddenReference,
        errors.ForbiddenWebhook,
        errors.InvalidSignature,
        errors.InvalidMessage,
    ),
    "storage": (errors.StorageError, errors.BrokerUnavailable),
    "source": (errors.SourceError,),
    "engine": (errors.EngineError,),
    "rest": (OverpaintError,),
}
"""The page's tables by name: each has these classes and all below them that no table before it has."""

_PART = re.compile(r"(<!-- errors: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

HEAD = "\n| code and class | meaning | remedy | retryable |\n| --- | --- | --- | --- |\n"


def tree() -> list[type[OverpaintError]]:
    """Every class of errors.py, in the order of that file."""
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OverpaintError)]


def tables() -> dict[str, list[type[OverpaintError]]]:
    """The classes of each table."""
    left, found = tree(), {}
    for name, bases in GROUPS.items():
        found[name] = [kind for kind in left if issubclass(kind, bases)]
        left = [kind for kind in left if kind not in found[name]]
    return found


def row(kind: type[OverpaintError]) -> str:
    meaning = " ".join((kind.__doc__ or "").split())
    return f"| `{kind.code}` `{kind.__name__}` | {meaning} | {kind.remedy} | {'yes' if kind.retryable else 'no'} |\n"


def made(page: str) -> str:
    """The page with its tables made anew; raises KeyError for one of a name that GROUPS has not."""
    found = tables()
    return _PART.sub(lambda part: part[1] + HEAD + "".join(map(row, found[part[2]])) + "\n" + part[3], page)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    sys.exit(settle(PAGE, made(text), sys.argv[1:], command="python -m tools.errors_page"))
