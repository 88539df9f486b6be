"""`overpaint replay` with a played worker: what counts as the same, what is measured, and what is refused at once."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from overpaint_common.job import Job
from overpaint_common.ledger import Request
from overpaint_common.references import Reference
from overpaint_common.result import Failure, ModelInfo, PassRun, Result, SourceInfo, StoredObject, VariantResult
from overpaint_producer import Img2Img, MatchColor, Producer
from overpaint_producer.compose import PassLike
from overpaint_producer.replay import LOSSY_TOLERANCE, TOLERANCE, repeated
from tests.cli.conftest import Place

Pixels = NDArray[np.uint8]
SOFTWARE = {"overpaint": "1", "torch": "2"}
PAINTED = np.random.default_rng(3).integers(10, 200, (12, 16, 3)).astype(np.uint8)
"""What the played worker paints."""


def nudged(pixels: Pixels, by: int) -> Pixels:
    """The same with one value of one pixel raised."""
    other = pixels.copy()
    other[5, 7, 1] += by
    return other


@dataclass
class Played:
    """A worker that writes what it is told to for every job that has no record."""

    producer: Producer
    paint: Callable[[], Pixels] = lambda: PAINTED
    between: Pixels | None = None
    """After the first pass."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of the record."""

    def finish(self, request: Request) -> Result:
        job = request.job
        runs = [
            PassRun(op=p.op, seed=getattr(p, "seed", None), steps=40, effective_steps=20, start_step=20)
            for p in job.passes
        ]
        if self.between is not None:
            runs[0] = runs[0].model_copy(update={"output": self._stored(job, "0-pass0", self.between)})
        fields: dict[str, Any] = {
            "status": "succeeded",
            "variants": (
                VariantResult(
                    index=0, seed=job.base_seed, outputs=(self._stored(job, "0", self.paint()),), passes=tuple(runs)
                ),
            ),
            "source": SourceInfo(
                uri=job.source, etag="e", sha256="a" * 64, size=1, width=16, height=12, format="PNG", mode="RGB"
            ),
            "models": (model_info(),),
            "model": model_info(),
            "reproducible": job.reproducible,
            "device": "cpu",
            "software": SOFTWARE,
            **self.changes,
        }
        record = self.producer.ledger.commit(
            Result(
                job_id=job.id,
                attempt="b" * 12,
                attempts=1,
                job=job,
                accepted_at=request.accepted_at,
                finished_at=datetime.now(UTC),
                **fields,
            )
        )
        self.producer.live.end(record)
        return record

    @contextmanager
    def working(self) -> Iterator[None]:
        """Finish whatever is accepted meanwhile."""
        stop = threading.Event()

        def serve() -> None:
            while not stop.wait(0.02):
                for marker in self.producer.ledger.open_jobs():
                    if self.producer.ledger.record(marker.job_id) is None:
                        self.finish(self.producer.ledger.request(marker.job_id))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(10)

    def _stored(self, job: Job, name: str, pixels: Pixels) -> StoredObject:
        file, notes = io.BytesIO(), PngInfo()
        # As a worker's file it names its job, so that no two files are the same.
        notes.add_text("job", job.id)
        picture = Image.fromarray(pixels)
        form = job.output.format
        picture.save(file, form, **({"pnginfo": notes} if form == "png" else {"comment": job.id.encode()}))
        reference = Reference.parse(job.output.prefix).join(job.id, f"{name}.{form}")
        self.producer.store.put(reference, file.getvalue(), content_type=f"image/{form}")
        return StoredObject(
            uri=str(reference),
            sha256=hashlib.sha256(file.getvalue()).hexdigest(),
            size=len(file.getvalue()),
            width=picture.width,
            height=picture.height,
            content_type=f"image/{form}",
        )


def model_info(**changes: str) -> ModelInfo:
    fields = {"name": "mini", "revision": "1", "digest": "d", "pipeline": "P", "scheduler": "S", "dtype": "float32"}
    return ModelInfo.model_validate({**fields, **changes})


@pytest.fixture
def producer(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Producer]:
    place.announce(alive=True, operations=("img2img", "match_color"))
    with place.producer(monkeypatch) as producer:
        yield producer


@pytest.fixture
def worker(producer: Producer) -> Played:
    return Played(producer)


def recorded(place: Place, worker: Played, **fields: Any) -> Result:
    """The record of one job that the worker has done."""
    passes: list[PassLike] = [Img2Img(prompt="a", strength=0.5), MatchColor()]
    handle = worker.producer.repaint(place.source, passes, output=place.output, **fields)
    return worker.finish(worker.producer.ledger.request(handle.id))


def replayed(place: Place, worker: Played, what: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """`overpaint replay <what> --json`: its exit code and its report."""
    with worker.working():
        done = place.run("replay", what, *arguments, "--json", "--timeout", "20")
    assert done.exit_code in (0, 1), done.output
    return done.exit_code, json.loads(done.stdout)


def test_the_same_pixels_are_identical_although_the_files_differ(place: Place, worker: Played) -> None:
    """Given a record that says reproducible, when its replay has the same pixels, then it held what it promised."""
    before = recorded(place, worker, reproducible=True, seed=7)
    code, report = replayed(place, worker, before.job_id)
    assert (code, report["verdict"], report["promised"], report["held"]) == (0, "identical", True, True)
    (picture,) = report["pictures"]
    assert (picture["identical"], picture["same_file"], picture["max_difference"]) == (True, False, 0)
    again = worker.producer.handle(report["replay_id"]).result()
    assert again.job.passes == before.job.passes
    assert again.job.seed == 7
    assert again.job.labels == {"replay-of": before.job_id}


def test_one_level_of_one_pixel_breaks_a_promise(place: Place, worker: Played) -> None:
    """Given a record that says reproducible, when one value is one off, then that is no success, and it is measured."""
    before = recorded(place, worker, reproducible=True)
    worker.paint = lambda: nudged(PAINTED, 1)
    code, report = replayed(place, worker, before.job_id)
    assert (code, report["verdict"], report["promised"], report["held"]) == (1, "close", True, False)
    (picture,) = report["pictures"]
    assert picture["max_difference"] == 1
    assert picture["mean_difference"] == pytest.approx(1 / PAINTED.size)


@pytest.mark.parametrize(("by", "code", "verdict"), [(TOLERANCE, 0, "close"), (TOLERANCE + 1, 1, "different")])
def test_without_a_promise_the_tolerance_decides(
    place: Place, worker: Played, by: int, code: int, verdict: str
) -> None:
    """Given a record that promises nothing, when a value is off, then the difference is told and held against 4."""
    before = recorded(place, worker)
    worker.paint = lambda: nudged(PAINTED, by)
    with worker.working():
        done = place.run("replay", before.job_id, "--timeout", "5")
    assert done.exit_code == code
    first, second, last = done.stdout.splitlines()
    assert first.startswith(f"{verdict}  {before.job_id}, replayed as ")
    within = "within" if code == 0 else "beyond"
    assert second == f"  variant 0  differs by up to {by} of 255, {by / PAINTED.size:.3g} on average; {within} " + (
        f"the tolerance of {TOLERANCE}"
    )
    assert last == "  the record does not say reproducible: a difference of up to 4 of 255 counts as close"


def test_the_tolerance_can_be_given(place: Place, worker: Played) -> None:
    """Given a difference of 9, when up to 9 is tolerated, then it is close; the default of JPEG is wider anyway."""
    before = recorded(place, worker)
    worker.paint = lambda: nudged(PAINTED, 9)
    assert replayed(place, worker, before.job_id, "--tolerance", "9")[0] == 0
    assert replayed(place, worker, before.job_id, "--tolerance", "8")[0] == 1
    worker.paint = lambda: PAINTED
    lossy = recorded(place, worker, format="jpeg")
    assert replayed(place, worker, lossy.job_id)[1]["tolerance"] == LOSSY_TOLERANCE


def test_other_software_or_another_device_takes_the_promise_back(place: Place, worker: Played) -> None:
    """Given a reproducible record, when software and device are others, then a small difference is close and both are
    named."""
    before = recorded(place, worker, reproducible=True)
    worker.paint = lambda: nudged(PAINTED, 2)
    worker.changes = {"device": "cuda:0", "software": {**SOFTWARE, "torch": "3"}}
    code, report = replayed(place, worker, before.job_id)
    assert (code, report["verdict"], report["promised"], report["held"]) == (0, "close", False, True)
    assert report["surroundings"] == ["device: cpu then, cuda:0 now", "torch: 2 then, 3 now"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": (model_info(digest="e"),)}, "model mini: digest d then, e now"),
        ({"source": None, "models": ()}, "model mini: digest d then, none now"),
        ({"variants": ()}, "variants: 1 then, 0 now"),
    ],
)
def test_another_chain_is_different_whatever_the_pixels(
    place: Place, worker: Played, changes: dict[str, Any], said: str
) -> None:
    """Given a record, when other weights ran, or fewer variants, then that is named and no pixel makes up for it."""
    before = recorded(place, worker)
    worker.changes = changes
    code, report = replayed(place, worker, before.job_id)
    assert (code, report["verdict"]) == (1, "different")
    assert said in report["chain"]


def test_a_tampered_seed_is_found(place: Place, worker: Played, tmp_path: Path) -> None:
    """Given a record file whose pass has another seed than the job, when it is replayed, then the run differs."""
    before = recorded(place, worker)
    body = json.loads(before.model_dump_json(exclude_none=True))
    body["variants"][0]["passes"][0]["seed"] = 12345
    file = tmp_path / "record.json"
    file.write_text(json.dumps(body))
    code, report = replayed(place, worker, str(file))
    assert (code, report["verdict"]) == (1, "different")
    assert report["chain"] == [f"variant 0, pass 0: seed 12345 then, {before.job.base_seed} now"]


def test_pictures_between_the_passes_count_too(place: Place, worker: Played) -> None:
    """Given intermediates, when only one of them is another, then the replay is another."""
    worker.between = PAINTED
    before = recorded(place, worker, intermediates=True)
    worker.between = nudged(PAINTED, 50)
    code, report = replayed(place, worker, before.job_id)
    assert code == 1
    shown = [(picture["after_pass"], picture["max_difference"]) for picture in report["pictures"]]
    assert shown == [(0, 50), (None, 0)]


def test_another_size_is_no_measure(place: Place, worker: Played) -> None:
    """Given pictures of two sizes, when they are compared, then they are different and no number is made up."""
    before = recorded(place, worker)
    worker.paint = lambda: PAINTED[:, :8]
    code, report = replayed(place, worker, before.job_id)
    assert (code, report["verdict"], report["pictures"][0]["max_difference"]) == (1, "different", None)


def test_a_source_that_is_gone_fails_the_replay(place: Place, worker: Played) -> None:
    """Given a record, when its replay fails, then its reason is told, and nothing about pictures."""
    before = recorded(place, worker, reproducible=True)
    failure = Failure(code="object_not_found", message="there is no object", retryable=False)
    worker.changes = {"status": "failed", "failure": failure, "variants": (), "reproducible": False}
    with worker.working():
        done = place.run("replay", before.job_id, "--timeout", "5")
    assert done.exit_code == 1
    first, second = done.stdout.splitlines()
    assert first.startswith(f"failed  {before.job_id}")
    assert second == "  the replay failed: object_not_found: there is no object"


def test_a_record_is_read_from_a_file_or_a_reference(place: Place, worker: Played, tmp_path: Path) -> None:
    """Given a record as a file, when it is named by path or reference, then it is replayed; elsewhere on request."""
    before = recorded(place, worker)
    file = tmp_path / "record.json"
    file.write_text(before.model_dump_json(exclude_none=True))
    for named in (str(file), file.as_uri()):
        code, report = replayed(place, worker, named, "--output", str(place.output / "again"))
        assert code == 0
        assert report["pictures"][0]["after"].startswith(f"{place.output.as_uri()}/again/")


def test_a_tampered_hash_is_caught_before_anything_runs(place: Place, worker: Played, tmp_path: Path) -> None:
    """Given a record whose hash is not its picture's, when it is replayed, then it is refused and no job accepted."""
    before = recorded(place, worker)
    file = tmp_path / "record.json"
    wrong = "f" * 64
    file.write_text(before.model_dump_json().replace(before.outputs[0].sha256, wrong))
    done = place.run("replay", str(file), "--timeout", "5")
    assert done.exit_code == 3
    assert f"its record says {wrong}; somebody replaced or damaged it" in done.stderr
    assert len(place.requests()) == 1


def test_a_picture_that_is_gone_is_told_before_anything_runs(place: Place, worker: Played) -> None:
    """Given a record whose picture was deleted, when it is replayed, then it is refused and no job accepted."""
    before = recorded(place, worker)
    Path(before.outputs[0].uri.removeprefix("file://")).unlink()
    done = place.run("replay", before.job_id, "--json", "--timeout", "5")
    assert done.exit_code == 3
    assert json.loads(done.stderr)["error"]["code"] == "object_not_found"
    assert len(place.requests()) == 1


def test_what_made_no_pictures_cannot_be_repeated(place: Place, worker: Played) -> None:
    """Given a job that failed, when its record is replayed, then that is said and nothing runs."""
    worker.changes = {"status": "failed", "variants": ()}
    before = recorded(place, worker)
    done = place.run("replay", before.job_id, "--timeout", "5")
    assert done.exit_code == 2
    assert f"error[invalid_job]: job {before.job_id} failed: it made no pictures" in done.stderr


def test_a_job_that_is_not_finished_is_told(place: Place) -> None:
    done = place.run("replay", place.submit(), "--timeout", "5")
    assert done.exit_code == 4
    assert "error[not_finished]" in done.stderr


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("nowhere.json", "neither a job's id nor a file"),
        ("0123456789abcdef", "error[object_not_found]: no job 0123456789abcdef in the ledger"),
        (__file__, "is no record of a job"),
        ("http://photos/result.json", "http://photos/result.json"),
    ],
)
def test_what_is_no_record_is_named(place: Place, record: str, said: str) -> None:
    done = place.run("replay", record, "--timeout", "5")
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_repeated_job_leaves_out_what_is_over(place: Place, worker: Played) -> None:
    """Given a job with a deadline and all the labels there may be, when it is repeated, then these stay alone."""
    labels = {f"label-{i}": "x" for i in range(32)}
    before = recorded(place, worker, labels=labels, deadline=datetime(2999, 1, 1, tzinfo=UTC))
    job = repeated(before)
    assert (job.deadline, job.webhook, job.labels) == (None, None, labels)
    assert job.id != before.job_id
