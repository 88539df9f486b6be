"""Records: what is written of them is enough to read them."""

from __future__ import annotations

import inspect

import pytest
from pydantic import BaseModel

from overpaint_common import job, passes, result

KINDS = [
    kind
    for module in (job, passes, result)
    for kind in vars(module).values()
    if inspect.isclass(kind) and issubclass(kind, BaseModel) and kind.__module__ == module.__name__
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_may_be_none_may_be_left_out(kind: type[BaseModel]) -> None:
    """Given that documents are stored without their nulls, when they are read, then what may be null defaults to it."""
    lost = {
        name
        for name, field in kind.model_fields.items()
        if type(None) in getattr(field.annotation, "__args__", ())
        and (field.is_required() or field.get_default() is not None)
    }
    assert lost == set()
