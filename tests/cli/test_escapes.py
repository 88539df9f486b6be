"""What others wrote cannot steer the terminal it is shown on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from overpaint_common.errors import InvalidJob
from overpaint_common.job import Job
from overpaint_common.live import Progress
from overpaint_common.result import Failure, Result
from overpaint_producer.cli import main
from overpaint_producer.cli.display import show_moment, show_record
from overpaint_producer.cli.terminal import say, tell
from tests.cli.conftest import Place
from tests.support.terminal import ESCAPES, print_to_terminal

TITLE = "\x1b]0;x\x07"
"""Sets the title of a terminal's window."""

CLEAR = "\x9b2J"
"""Clears the screen, in the one-byte form of the escape."""


def steering(text: str) -> list[str]:
    """What is left of `text` that is neither to be seen nor one of our own colours."""
    return [char for char in ESCAPES.sub("", text) if not char.isprintable() and char not in "\r\n"]


def job(folder: Path, **fields: object) -> str:
    passes = [{"op": "img2img", "prompt": "a cat", "strength": 0.5}]
    document = {"source": folder.as_uri() + "/in/house.png", "model": "mini", "passes": passes, **fields}
    return json.dumps(document)


def test_an_error_about_somebody_elses_job_shows_its_escapes(place: Place) -> None:
    """Given a job whose name holds an escape, when it is submitted, then the error spells that out."""
    body = job(place.folder, output={"prefix": place.output.as_uri(), "name": f"{{{TITLE}}}.png"})
    done = place.run("submit", "--job", "-", stdin=body)
    assert done.exit_code == 2
    assert steering(done.output) == []
    assert "{\\x1b]0;x\\x07} is no field" in done.stderr
    with pytest.raises(InvalidJob) as raised:
        Job.parse(body)
    assert steering(str(raised.value)) == []


@pytest.mark.parametrize("write", [say, tell])
@pytest.mark.parametrize("width", [None, 80])
def test_notes_are_shown_without_their_escapes(
    capfd: pytest.CaptureFixture[str], write: object, width: int | None
) -> None:
    assert callable(write)
    if width is None:
        write(f"worker {TITLE}{CLEAR}")
        raw = "".join(capfd.readouterr())
    else:
        raw = print_to_terminal(lambda: write(f"worker {TITLE}{CLEAR}"), columns=width).raw
    assert steering(raw) == []
    assert "\\u001b]0;x\\u0007\\u009b2J" in raw


@pytest.mark.parametrize("on_terminal", [True, False])
def test_following_a_job_shows_no_escapes_of_its_worker(
    place: Place, monkeypatch: pytest.MonkeyPatch, on_terminal: bool
) -> None:
    """Given a worker whose reports hold escapes, when its job is followed, then none of them gets through."""
    job_id = place.submit()
    with place.producer(monkeypatch) as producer:
        producer.live.report({job_id: [Progress(state="running", phase=TITLE, detail=f"slow{CLEAR}", worker=TITLE)]})
    arguments = ("wait", job_id, "--timeout", "0.2")
    told = print_to_terminal(lambda: main(arguments)).raw if on_terminal else place.run(*arguments).stderr
    assert "\\u001b]0;x\\u0007" in told
    assert steering(told) == []


def test_records_and_moments_are_shown_without_their_escapes(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    """Given a record and a moment that a worker wrote, when they are shown, then nothing of them gets through."""
    now = datetime.now(UTC)
    record = Result(
        job_id="job-of-somebody",
        status="failed",
        attempt="a",
        attempts=1,
        job=Job.parse(job(place.folder, output={"prefix": place.output.as_uri()})),
        accepted_at=now,
        started_at=now,
        finished_at=now,
        device=f"cpu{TITLE}",
        failure=Failure(code=f"code{CLEAR}", message=f"why{TITLE}", retryable=False),
    )
    show_record(record)
    show_moment(Progress(state="running", phase=TITLE, worker=CLEAR, detail=TITLE))
    told = capfd.readouterr().out
    assert "code\\u009b2J: why\\u001b" in told
    assert steering(told) == []
