"""`overpaint status`, `wait`, `result` and `cancel`, with this test playing the worker."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from overpaint_common.live import Live, Progress, connect
from overpaint_common.references import Reference
from overpaint_common.result import Failure, Result, StoredObject, VariantResult
from overpaint_producer import Producer
from overpaint_producer.cli.signals import insistent
from tests.cli.conftest import Place

STEPS = 20


def finish(producer: Producer, job_id: str, *, error: str = "") -> Result:
    """End a job as a worker would: one picture and its record, or a failure."""
    request = producer.ledger.request(job_id)
    output = Reference.parse(request.job.output.prefix).join(job_id, "0-abc.png")
    body = Reference.parse(request.job.source).path.read_bytes()
    producer.store.put(output, body, content_type="image/png")
    stored = StoredObject(
        uri=str(output),
        sha256=hashlib.sha256(body).hexdigest(),
        size=len(body),
        width=64,
        height=64,
        content_type="image/png",
    )
    record = Result(
        job_id=job_id,
        status="failed" if error else "succeeded",
        attempt="abc",
        attempts=1,
        job=request.job,
        variants=() if error else (VariantResult(index=0, seed=7, outputs=(stored,), passes=()),),
        failure=Failure(code=error, message="the source is empty", retryable=False) if error else None,
        accepted_at=request.accepted_at,
        started_at=request.accepted_at,
        finished_at=datetime.now(UTC),
    )
    return producer.ledger.commit(record)


@pytest.fixture
def producer(place: Place, monkeypatch: pytest.MonkeyPatch) -> Producer:
    return place.producer(monkeypatch)


def test_status_says_that_nobody_serves_the_model(place: Place) -> None:
    done = place.run("status", place.submit())
    assert (done.exit_code, done.stdout.strip()) == (0, "queued  no worker serves model 'mini' at the moment")


def test_status_of_a_running_job_names_phase_step_and_worker(place: Place, producer: Producer) -> None:
    job_id = place.submit()
    moment = Progress(state="running", phase="denoise", step=12, steps=25, worker="gpu-1")
    producer.live.report({job_id: [moment]})
    place.announce(alive=True, worker="gpu-1")
    assert place.run("status", job_id).stdout.strip() == "running  denoise  step 12 of 25  on gpu-1"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "less than 1 s left"),
        (0.99, "less than 1 s left"),
        (12.4, "about 12 s left"),
        (119.0, "about 119 s left"),
        (120.0, "about 2 min left"),
        (7199.0, "about 120 min left"),
        (7200.0, "about 2 h left"),
    ],
)
def test_status_says_about_how_long_it_will_take(place: Place, producer: Producer, seconds: float, said: str) -> None:
    job_id = place.submit()
    moment = Progress(state="running", phase="denoise", step=12, steps=25, seconds_left=seconds)
    producer.live.report({job_id: [moment]})
    assert place.run("status", job_id).stdout.strip() == f"running  denoise  step 12 of 25  {said}"
    assert json.loads(place.run("status", job_id, "--json").stdout)["seconds_left"] == seconds


def test_status_saves_the_preview_of_a_running_job(place: Place, producer: Producer) -> None:
    """Given a job with a preview, when it is asked for, then its bytes are in the file, and the answer on stdout."""
    job_id, file = place.submit("--previews"), place.folder / "now.webp"
    producer.live.report({job_id: [Progress(state="running", phase="denoise", step=12, steps=25)]})
    producer.live.show({job_id: b"RIFF\xff\x00WEBP"})
    done = place.run("status", job_id, "--preview", str(file))
    assert (done.exit_code, done.stdout.strip(), done.stderr.strip()) == (
        0,
        "running  denoise  step 12 of 25",
        f"saved {file}",
    )
    assert file.read_bytes() == producer.handle(job_id).preview() == b"RIFF\xff\x00WEBP"


def test_status_says_that_there_is_no_preview(place: Place) -> None:
    job_id, file = place.submit(), place.folder / "now.webp"
    done = place.run("status", job_id, "--preview", str(file))
    assert (done.exit_code, file.exists()) == (0, False)
    assert done.stderr.startswith("there is no preview at the moment")


def test_a_job_has_no_preview_while_redis_is_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = place.submit()
    monkeypatch.setitem(place.variables, "OVERPAINT_REDIS_URL", "redis://127.0.0.1:1/0")
    with place.producer(monkeypatch) as producer:
        assert producer.handle(job_id).preview() is None


def test_status_of_a_running_job_says_that_its_worker_is_gone(place: Place, producer: Producer) -> None:
    # Given a job that a worker was painting, and nobody but another worker alive
    job_id = place.submit()
    producer.live.report({job_id: [Progress(state="running", phase="denoise", step=12, steps=25, worker="gpu-1")]})
    place.announce(alive=True, worker="gpu-2")
    assert place.run("status", job_id).stdout.strip().endswith("worker gpu-1 is silent; another one takes over")


@pytest.mark.parametrize("step", [0, 12])
def test_status_as_json_has_every_field_of_the_moment(place: Place, producer: Producer, step: int) -> None:
    job_id = place.submit()
    moment = Progress(state="running", phase="denoise", step=step, steps=25, worker="gpu-1")
    producer.live.report({job_id: [moment]})
    place.announce(alive=True, worker="gpu-1")
    assert json.loads(place.run("status", job_id, "--json").stdout) == {"id": job_id, **moment.model_dump()}


@pytest.mark.parametrize("command", ["status", "wait", "result", "cancel"])
@pytest.mark.parametrize(
    ("job_id", "said"), [("0" * 32, "no job"), ("../../etc", "is no job id"), ("", "is no job id")]
)
def test_an_id_that_nobody_submitted_is_the_callers_mistake(place: Place, command: str, job_id: str, said: str) -> None:
    done = place.run(command, job_id)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_result_asked_for_too_early_has_its_own_exit_code(place: Place) -> None:
    done = place.run("result", place.submit())
    assert done.exit_code == 4
    assert done.stderr.startswith("error[not_finished]:")


@pytest.mark.parametrize(
    ("command", "exit_code", "code"),
    [
        (("result", "ID"), 4, "not_finished"),
        (("status", "0" * 32), 2, "object_not_found"),
        (("status", "../../etc"), 2, "usage"),
        (("wait", "ID", "--timeout", "soon"), 2, "usage"),
        (("status", "ID", "--colour"), 2, "usage"),
        (("repaint",), 2, "usage"),
    ],
)
def test_after_json_an_error_is_json_too(place: Place, command: tuple[str, ...], exit_code: int, code: str) -> None:
    job_id = place.submit()
    done = place.run(*(job_id if word == "ID" else word for word in command), "--json")
    assert (done.exit_code, done.stdout) == (exit_code, "")
    (error,) = json.loads(done.stderr).values()
    assert error["code"] == code
    assert error["message"]


def test_what_the_operating_system_refuses_is_told_as_such(place: Place, producer: Producer) -> None:
    job_id = place.submit()
    finish(producer, job_id)
    done = place.run("result", job_id, "--save", str(place.source / "saved"))
    assert done.exit_code == 3
    assert done.stderr.startswith("error[os]: ")
    assert "Not a directory" in done.stderr


def test_wait_gives_up_at_its_timeout(place: Place) -> None:
    done = place.run("wait", place.submit(), "--timeout", "0.2")
    assert done.exit_code == 4
    assert done.stderr.splitlines()[-1].startswith("error[wait_timeout]:")


def test_wait_reports_each_step_as_a_json_line_and_ends_with_the_record(place: Place, producer: Producer) -> None:
    # Given a job whose worker reports every step, starting only once `wait` watches
    job_id = place.submit()
    waiting = subprocess.Popen(
        [sys.executable, "-m", "overpaint_producer.cli", "wait", job_id, "--json"], stdout=subprocess.PIPE, text=True
    )
    assert waiting.stdout is not None
    lines = [waiting.stdout.readline()]
    live = Live(connect(place.redis.url))
    for step in range(1, STEPS + 1):
        live.report({job_id: [Progress(state="running", phase="denoise", step=step, steps=STEPS)]})
    record = finish(producer, job_id)
    live.report({job_id: [Progress(state="succeeded")]})
    # When the job has ended
    rest, _ = waiting.communicate(timeout=30)
    # Then every step came once, in order, and the record last
    documents = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    assert [d["step"] for d in documents if d["state"] == "running"] == list(range(1, STEPS + 1))
    assert documents[-1]["record"] == record.model_dump(mode="json", exclude_none=True)
    assert waiting.returncode == 0


def test_wait_in_a_pipe_writes_steps_to_stderr_and_the_record_to_stdout(place: Place, producer: Producer) -> None:
    job_id = place.submit()
    moments = [Progress(state="running", phase="denoise", step=step, steps=100) for step in range(1, 101)]
    producer.live.report({job_id: moments})
    finish(producer, job_id)
    done = place.run("wait", job_id)
    assert done.exit_code == 0
    assert f"{place.output.as_uri()}/{job_id}/0-abc.png  64x64  seed 7" in done.stdout
    # A hundred steps are told in tenths.
    assert 10 <= len([line for line in done.stderr.splitlines() if "step" in line]) <= 11


def test_a_failed_job_says_why_and_exits_1(place: Place, producer: Producer) -> None:
    job_id = place.submit()
    finish(producer, job_id, error="source_empty")
    for command in ("wait", "result"):
        done = place.run(command, job_id)
        assert done.exit_code == 1
        assert "source_empty: the source is empty (submitting it again will not help)" in done.stdout
    assert place.run("status", job_id).exit_code == 0


def test_result_saves_the_pictures_under_names_that_do_not_collide(place: Place, producer: Producer) -> None:
    ids = [place.submit("--seed", seed) for seed in "12"]
    for job_id in ids:
        finish(producer, job_id)
        assert place.run("result", job_id, "--save", str(place.folder / "new" / "saved")).exit_code == 0
    names = {file.name for file in (place.folder / "new" / "saved").iterdir()}
    assert names == {name for job_id in ids for name in (f"{job_id}-0-abc.png", f"{job_id}.json")}
    saved = place.folder / "new" / "saved" / f"{ids[0]}-0-abc.png"
    assert saved.read_bytes() == place.source.read_bytes()


def test_result_json_is_the_record_itself(place: Place, producer: Producer) -> None:
    job_id = place.submit()
    record = finish(producer, job_id)
    assert Result.model_validate_json(place.run("result", job_id, "--json").stdout) == record


def test_a_picture_that_was_replaced_is_not_saved(place: Place, producer: Producer, tmp_path: Path) -> None:
    job_id = place.submit()
    output = finish(producer, job_id).outputs[0]
    path = Reference.parse(output.uri).path
    path.write_bytes(bytes(output.size))
    done = place.run("result", job_id, "--save", str(tmp_path / "saved"))
    assert done.exit_code == 3
    assert "its record says" in done.stderr
    assert list((tmp_path / "saved").iterdir()) == []


def test_cancel_ends_a_queued_job_and_may_be_repeated(place: Place) -> None:
    job_id = place.submit()
    for _ in range(2):
        done = place.run("cancel", job_id)
        assert (done.exit_code, done.stdout.strip()) == (0, "cancelled")
    assert place.run("wait", job_id).exit_code == 1


def test_cancel_after_the_end_changes_nothing_and_says_so(place: Place, producer: Producer) -> None:
    job_id = place.submit()
    finish(producer, job_id)
    done = place.run("cancel", job_id)
    assert done.exit_code == 1
    assert "had succeeded already" in done.stdout
    assert json.loads(place.run("cancel", job_id, "--json").stdout)["state"] == "succeeded"


def test_several_jobs_are_cancelled_in_one_call_whatever_became_of_the_others(place: Place, producer: Producer) -> None:
    """Given a queued job, a finished one and an id of nobody's, when all are cancelled, then each gets its line."""
    queued, done = (place.submit() for _ in range(2))
    finish(producer, done)
    nobody = "0" * 32

    ended = place.run("cancel", done, nobody, queued)

    assert ended.stdout.splitlines() == [f"{done}  too late: the job had succeeded already", f"{queued}  cancelled"]
    assert f"{nobody}  unknown" in ended.stderr
    assert "no job" in ended.stderr
    assert ended.exit_code == 2
    told = place.run("cancel", nobody, queued, "--json")
    assert [json.loads(line)["state"] for line in told.stdout.splitlines()] == ["unknown", "cancelled"]
    assert [json.loads(line)["error"]["code"] for line in told.stderr.splitlines()] == ["object_not_found"]
    assert place.run("cancel", queued, done).exit_code == 1
    assert place.run("cancel", queued, queued).exit_code == 0


def _interrupted(process: subprocess.Popen[str]) -> str:
    """What a process says on stderr once Ctrl-C has ended it; where it hangs, the traces of its threads."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=30)[1]
    process.send_signal(signal.SIGABRT)
    return process.communicate()[1]


def test_an_interrupt_that_is_dropped_comes_again() -> None:
    """Given a block that loses the first KeyboardInterrupt, when it goes on, then there is another one."""

    def losing() -> None:
        with insistent():
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            time.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        losing()


def test_interrupting_wait_leaves_the_job_and_says_how_to_end_it(place: Place, producer: Producer) -> None:
    # Given `wait` on a job that does not move
    job_id = place.submit()
    waiting = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "overpaint_producer.cli", "wait", job_id],
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a script ignores Ctrl-C, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert waiting.stderr is not None
    assert "no worker serves" in waiting.stderr.readline()
    # When Ctrl-C comes
    said = _interrupted(waiting)
    # Then
    assert waiting.returncode == 130, said
    assert f"overpaint cancel {job_id}" in said
    assert producer.handle(job_id).status().state == "queued"
