"""Ways to break JSON documents and files, and the settings under which every run is the same."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st


def bounded(examples: int) -> settings:
    """The same examples at every run, with no database and no deadline."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 20),
    st.sampled_from([2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e300, float("inf"), float("nan")]),
    st.text(max_size=12),
    st.sampled_from(
        ["", "0", "null", "a" * 300, "\x00", "\ud800", "é\n", "../..", "s3://photos/a", "2030-01-01T00:00Z"]
    ),
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        | inner.map(lambda value: {"__type__": "bytes", "__value__": value})
    ),
    max_leaves=8,
)


def places(document: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON document."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path for key, value in items for path in ((*here, key), *places(value, (*here, key)))]


@st.composite
def mutated(draw: st.DrawFn, document: Any, replacements: st.SearchStrategy[Any] = values, most: int = 3) -> Any:
    """The document with up to `most` of its values replaced, removed, repeated, or given an unknown neighbour."""
    changed = {"root": copy.deepcopy(document)}
    for _ in range(draw(st.integers(1, most))):
        path = draw(st.sampled_from(places(changed)))
        within = changed
        for step in path[:-1]:
            within = within[step]
        last, act = path[-1], draw(st.sampled_from(["replace", "replace", "replace", "remove", "repeat", "add"]))
        if act == "remove" and path != ("root",):
            del within[last]
        elif act == "repeat" and isinstance(within, list):
            within.extend([within[last]] * draw(st.integers(1, 20)))
        elif act == "add" and isinstance(within, dict):
            within[draw(st.text(max_size=8))] = draw(replacements)
        else:
            within[last] = draw(replacements)
        if "root" not in changed:
            break
    return changed["root"]


@st.composite
def damaged(draw: st.DrawFn, files: st.SearchStrategy[bytes], most: int = 4) -> bytes:
    """A file with bytes flipped, cut out, put in, or its head joined to another's tail."""
    data = draw(files)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "flip", "cut", "drop", "insert", "splice"])):
            case "flip":
                data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
            case "cut":
                data = data[:at]
            case "drop":
                data = data[:at] + data[at + draw(st.integers(1, 40)) :]
            case "insert":
                data = data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
            case _:
                other = draw(files)
                data = data[:at] + other[draw(st.integers(0, len(other))) :]
    return data


def spelled(document: Any) -> bytes:
    """JSON as a careless client writes it: NaN and half characters included."""
    return json.dumps(document).encode()
