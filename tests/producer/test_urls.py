"""URLs of finished pictures, from Python and from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
from click.testing import CliRunner
from click.testing import Result as Ran

from overpaint_common.errors import JobFailed, NotFinished, ObjectNotFound, StorageDenied, StorageError
from overpaint_common.references import Reference
from overpaint_common.storage import LocalStore, ObjectInfo
from overpaint_producer.cli import main
from tests.producer.played import NO_REDIS, Scene, scene_in


def opened(url: str) -> bytes:
    with urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def seconds(url: str) -> str:
    return parse_qs(urlsplit(url).query)["X-Amz-Expires"][0]


def run(scene: Scene, *arguments: str) -> Ran:
    """`overpaint <arguments>` with the scene's settings."""
    settings = scene.producer.settings
    variables = {
        "OVERPAINT_REDIS_URL": NO_REDIS,
        "OVERPAINT_LEDGER": settings.ledger,
        "OVERPAINT_S3_ENDPOINT_URL": settings.s3_endpoint_url or "",
        "OVERPAINT_S3_ADDRESSING_STYLE": "path",
    }
    return CliRunner().invoke(main, arguments, env=variables)


def test_each_variant_has_a_url_that_gives_its_bytes_to_anybody(scene: Scene) -> None:
    """Given a finished job, when its URLs are opened without credentials, then the pictures come, in their order."""
    record = scene.paint(scene.job(variants=2))

    urls = scene.producer.handle(record.job_id).urls()

    assert [opened(url) for url in urls] == [b"painted 0", b"painted 1"]


class Forbidding(LocalStore):
    """A store that says "forbidden" of what is not there, as S3 does to whoever may not list."""

    def head(self, reference: Reference) -> ObjectInfo:
        try:
            return super().head(reference)
        except ObjectNotFound:
            raise StorageDenied(f"looking at {reference} is forbidden; check the credentials") from None


def test_a_copy_that_is_not_there_yet_needs_no_right_to_list(tmp_path: Path) -> None:
    """Given a store that forbids a look at what is missing, when URLs are asked for, then the picture's own comes."""
    with scene_in(Reference.from_path(tmp_path), Forbidding()) as scene:
        record = scene.paint(scene.job(name="{stem}.png"))
        assert scene.producer.handle(record.job_id).urls() == [record.outputs[0].uri]


def test_urls_lead_to_the_published_copies_once_they_are_there(s3: Scene) -> None:
    """Given a recorded job that publishes, when URLs are signed before and after its finish, then first they lead to
    the picture itself, and then to the copy, whose name a browser keeps."""
    record = s3.paint(s3.job(name="{stem}.png"))
    handle = s3.producer.handle(record.job_id)

    (before,) = handle.urls(expires=60)
    s3.finish(record)
    (after,) = handle.urls(expires=120)

    assert (seconds(before), seconds(after)) == ("60", "120")
    assert record.job_id in urlsplit(before).path
    assert urlsplit(after).path.endswith("/out/cat.png")
    assert opened(before) == opened(after) == b"painted 0"


def test_the_url_of_a_local_picture_is_its_file(local: Scene) -> None:
    """Given a local store, when URLs are signed, then they are those of the files, with odd names escaped."""
    record = local.paint(local.job(name="{stem} #{variant}.png"))
    local.finish(record)

    (url,) = local.producer.handle(record.job_id).urls()

    assert url == (local.at("out").path / "cat #0.png").as_uri()
    assert Path(Reference.parse(url).path).read_bytes() == b"painted 0"


def test_a_job_without_pictures_has_no_urls(local: Scene) -> None:
    """Given a job that failed and one that is not done, when URLs are wanted, then the errors are those of pictures."""
    failed = local.fail(local.job())
    waiting = local.submit(local.job())

    with pytest.raises(JobFailed):
        local.producer.handle(failed.job_id).urls()
    with pytest.raises(NotFinished):
        waiting.urls()


def test_a_time_that_no_signature_allows_is_refused(local: Scene) -> None:
    """Given a finished job, when its URLs should last eight days, then the error says how long they may."""
    record = local.paint(local.job())

    with pytest.raises(StorageError, match="choose 1 to 604800, which is seven days"):
        local.producer.handle(record.job_id).urls(expires=8 * 86400)


def test_the_command_line_prints_one_url_a_line(s3: Scene) -> None:
    """Given a finished job, when its URLs are printed, then a program can take them line by line."""
    record = s3.paint(s3.job(variants=2))

    lines = run(s3, "result", record.job_id, "--urls", "--expires", "2h").stdout.splitlines()

    assert [opened(url) for url in lines] == [b"painted 0", b"painted 1"]
    assert {seconds(url) for url in lines} == {"7200"}


def test_the_command_line_prints_urls_as_json(local: Scene) -> None:
    """Given a finished job, when its URLs are printed as JSON, then they are one object, with the job's id."""
    record = local.paint(local.job(variants=2))

    document = json.loads(run(local, "result", record.job_id, "--urls", "--json").stdout)

    assert document == {"id": record.job_id, "urls": [output.uri for output in record.outputs]}


@pytest.mark.parametrize(
    ("given", "code"), [("7d", 0), ("604800", 0), ("90s", 0), ("8d", 2), ("0", 2), ("soon", 2), ("-1h", 2)]
)
def test_the_command_line_takes_times_up_to_a_week(local: Scene, given: str, code: int) -> None:
    """Given a length of time, when URLs should last for it, then it is taken, or refused with how to write one."""
    record = local.paint(local.job())

    done = run(local, "result", record.job_id, "--urls", "--expires", given)

    assert done.exit_code == code
    assert bool(done.stdout) == (code == 0)
    if code:
        assert "write 90s, 30m, 1h or 7d" in done.stderr or "not between 1s and 7d" in done.stderr


def test_the_command_line_prints_no_url_of_a_job_that_failed(local: Scene) -> None:
    """Given a failed job, when its URLs are wanted, then stdout stays empty for the next program in the pipe."""
    record = local.fail(local.job())

    done = run(local, "result", record.job_id, "--urls")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error[job_failed]:")
