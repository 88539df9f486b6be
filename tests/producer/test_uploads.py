"""Putting local pictures where workers may read them."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from pathlib import Path

import pytest

from overpaint_common.errors import InvalidReference, SourceEmpty, SourceNotAPicture
from overpaint_common.references import Reference
from tests.producer.played import Scene, scene_in
from tests.support.faulty_http import FaultyProxy, answer, requests
from tests.support.s3 import S3Server
from tests.support.stack import encoded, picture

PICTURE = encoded(picture())
DIGEST = hashlib.sha256(PICTURE).hexdigest()[:32]


class Stream(io.RawIOBase):
    """A picture that comes over a line: it can be read once."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        return self._content.readinto(buffer)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "my cat ü%20.png"
    made.write_bytes(PICTURE)
    return made


def test_a_file_keeps_its_name_behind_its_hash(scene: Scene, file: Path) -> None:
    """Given a file with an odd name, when it is uploaded, then its reference is of its content and ends in its name."""
    uploaded = Reference.parse(scene.producer.upload(file, str(scene.at("in"))))

    assert uploaded == scene.at("in", DIGEST, file.name)
    assert scene.store.read(uploaded, limit=len(PICTURE)) == PICTURE


@pytest.mark.parametrize("kind", [bytes, io.BytesIO, Stream])
def test_bytes_and_open_files_are_named_by_their_hash(scene: Scene, kind: type) -> None:
    """Given a picture in memory, open or coming over a line, when it is uploaded, then all of it arrives."""
    uploaded = Reference.parse(scene.producer.upload(kind(PICTURE), str(scene.at("in"))))

    assert uploaded == scene.at("in", f"{DIGEST}.png")
    assert scene.store.read(uploaded, limit=len(PICTURE)) == PICTURE


def test_an_open_file_is_read_from_its_start(local: Scene) -> None:
    """Given a file that somebody has read already, when it is uploaded, then nothing is missing."""
    opened = io.BytesIO(PICTURE)
    opened.read()

    uploaded = Reference.parse(local.producer.upload(opened, local.at("in").path))

    assert local.store.read(uploaded, limit=len(PICTURE)) == PICTURE


def test_the_content_says_what_it_is(server: S3Server, s3: Scene) -> None:
    """Given pictures as Pillow writes them, when they are uploaded, then extension and content type fit their bytes."""
    found = {}
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        uploaded = Reference.parse(s3.producer.upload(encoded(picture(), format), str(s3.at("in"))))
        stored = server.client.head_object(Bucket=uploaded.bucket, Key=uploaded.key)
        found[uploaded.name.rpartition(".")[2]] = stored["ContentType"]

    assert found == {
        "png": "image/png",
        "jpg": "image/jpeg",
        "webp": "image/webp",
        "gif": "image/gif",
        "bmp": "image/bmp",
        "tif": "image/tiff",
    }


def test_the_same_picture_is_sent_once(local: Scene, file: Path) -> None:
    """Given a picture that was uploaded, when that is repeated, then the object is not even written again."""
    first = local.producer.upload(file, str(local.at("in")))
    before = local.store.head(Reference.parse(first))

    assert local.producer.upload(file, str(local.at("in"))) == first
    assert local.store.head(Reference.parse(first)) == before


def test_what_was_cut_short_is_sent_again(local: Scene) -> None:
    """Given an object under the picture's hash that somebody cut short, when it is uploaded, then it is whole again."""
    damaged = local.at("in", f"{DIGEST}.png")
    local.store.put(damaged, PICTURE[:10], content_type="image/png")

    local.producer.upload(PICTURE, str(local.at("in")))

    assert local.store.read(damaged, limit=len(PICTURE)) == PICTURE


def test_a_name_replaces_what_is_there(local: Scene, file: Path) -> None:
    """Given an object under a name, when a picture is uploaded by that name, then it is in its place."""
    local.store.put(local.at("in", "cats/best.png"), b"older", content_type="image/png")

    uploaded = local.producer.upload(file, str(local.at("in")), name="cats/best.png")

    assert uploaded == str(local.at("in", "cats/best.png"))
    assert local.store.read(Reference.parse(uploaded), limit=len(PICTURE)) == PICTURE


@pytest.mark.parametrize("name", ["../out.png", "/out.png", "a//b.png", "folder/", "", "line\n.png"])
def test_a_name_leads_nowhere_else(local: Scene, name: str) -> None:
    """Given a name that is no key below the prefix, when a picture is uploaded by it, then nothing is written."""
    with pytest.raises(InvalidReference):
        local.producer.upload(PICTURE, str(local.at("in")), name=name)

    assert not local.at().path.exists()


def test_what_is_no_picture_is_refused_and_named(local: Scene, tmp_path: Path) -> None:
    """Given files that workers would refuse, when they are uploaded, then each is named by its error, and none sent."""
    paper, empty = tmp_path / "paper.pdf", tmp_path / "empty.png"
    paper.write_bytes(b"%PDF-1.7 and so on")
    empty.touch()

    with pytest.raises(SourceNotAPicture, match=r"paper\.pdf begins with b'%PDF.*convert it to one of png, jpeg"):
        local.producer.upload(paper, str(local.at("in")))
    with pytest.raises(SourceEmpty, match=r"empty\.png is empty \(0 bytes\)"):
        local.producer.upload(empty, str(local.at("in")))
    with pytest.raises(FileNotFoundError):
        local.producer.upload(tmp_path / "nowhere.png", str(local.at("in")))

    assert not local.at().path.exists()


def test_a_large_file_never_lies_in_memory(local: Scene, tmp_path: Path) -> None:
    """Given a file of 64 MiB, when it is uploaded, then Python holds a small part of it at a time."""
    file, size = tmp_path / "large.png", 64 * 1024 * 1024
    with file.open("wb") as target:
        target.write(PICTURE)
        target.truncate(size)

    tracemalloc.start()
    try:
        uploaded = local.producer.upload(file, str(local.at("in")))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert local.store.head(Reference.parse(uploaded)).size == size
    assert peak < 8 * 1024 * 1024


def test_the_right_to_write_is_enough(server: S3Server) -> None:
    """Given a store that forbids the producer to look, when a picture is uploaded, then it is written all the same."""
    with (
        server.bucket() as bucket,
        FaultyProxy(server.endpoint_url) as proxy,
        scene_in(bucket, s3_endpoint_url=proxy.url, s3_addressing_style="path") as scene,
    ):
        proxy.on(requests("HEAD"), answer(403, "AccessDenied"))

        uploaded = scene.producer.upload(PICTURE, str(bucket.join("in")))

        proxy.clear()
        assert scene.store.read(Reference.parse(uploaded), limit=len(PICTURE)) == PICTURE
