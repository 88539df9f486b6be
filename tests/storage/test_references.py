"""References survive every spelling, and never climb out of a prefix."""

from __future__ import annotations

import posixpath
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overpaint_common.errors import InvalidReference
from overpaint_common.references import MAX_KEY_BYTES, Reference

letters = st.characters(exclude_characters="/", exclude_categories=("Cc", "Cs"))
segments = st.text(letters, min_size=1, max_size=20).filter(lambda text: text not in (".", ".."))
keys = st.lists(segments, max_size=6).map("/".join)
slashes = st.sampled_from(["", "/"])
anything = st.text(st.characters(), max_size=60) | st.text("./%2eEfF a\\\x00", max_size=30)


@given(keys, slashes)
def test_an_s3_reference_reads_back_as_it_was_written(key: str, slash: str) -> None:
    text = f"s3://bucket/{key}{slash if key else ''}"

    reference = Reference.parse(text)

    assert str(reference) == text
    assert reference.key == text.removeprefix("s3://bucket/")
    assert Reference.parse(str(reference)) == reference


@given(keys.filter(bool))
def test_a_path_survives_the_way_through_its_reference(key: str) -> None:
    path = Path("/" + key)

    reference = Reference.from_path(path)

    assert reference.path == path
    assert Reference.parse(str(reference)) == reference
    assert str(reference).isascii()


@given(st.sampled_from(["s3://bucket/", "file:///", "file://", "s3://", ""]), anything)
def test_any_text_gives_a_normal_reference_or_a_clear_error(start: str, text: str) -> None:
    try:
        reference = Reference.parse(start + text)
    except InvalidReference:
        return

    assert Reference.parse(str(reference)) == reference
    assert posixpath.normpath("/" + reference.key) == "/" + reference.key.removesuffix("/")


@given(st.sampled_from(["s3://bucket/in", "file:///in"]), anything)
@example("file:///in", "\ud800")
def test_joining_never_escapes_the_prefix(prefix: str, name: str) -> None:
    root = Reference.parse(prefix)
    try:
        joined = root.join(name)
    except InvalidReference:
        return

    assert joined.within(root)
    assert posixpath.normpath("/" + joined.key).startswith("/in")
    assert not joined.within(Reference.parse(f"{prefix}-secret"))


@given(keys, keys)
def test_within_compares_whole_segments(one: str, other: str) -> None:
    reference, prefix = Reference("s3", "bucket", one), Reference("s3", "bucket", other)

    start = other.split("/") if other else []
    assert reference.within(prefix) == (not start or one.split("/")[: len(start)] == start)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bucket/key",
        "http://bucket/key",
        "s3:/bucket/key",
        "s3://",
        "s3:///key",
        "s3://Bucket/key",
        "s3://b/key",
        "s3://bucket/../other/key",
        "s3://bucket/a//b",
        "s3://bucket//a",
        "s3://bucket/./a",
        "s3://bucket/a\nb",
        "s3://bucket/a\x9b2Jb",
        "s3://bucket/\ud800",
        f"s3://bucket/{'é' * (MAX_KEY_BYTES // 2 + 1)}",
        "file://host/path",
        "file://",
        "file:///a/../b",
        "file:///a/%2e%2e/b",
        "file:///a%2f..%2fb",
        "file:///a%00b",
        "file:///a%C2%9B2Jb",
        "file:///a%FFb",
    ],
)
def test_what_is_no_plain_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        Reference.parse(text)


def test_a_relative_path_loses_its_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert Reference.from_path(Path("a/../b")).path == tmp_path / "b"


def test_a_path_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidReference, match="rename it"):
        Reference.from_path(Path("/a\udcff"))
