"""Published pictures: the names that templates make, and when and what is copied there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from overpaint_common.errors import InvalidJob, StorageError, StorageFull, StorageUnavailable
from overpaint_common.job import Job
from overpaint_common.naming import published
from overpaint_common.references import Reference
from overpaint_common.result import Result
from overpaint_common.storage import Access, GuardedStore, LocalStore, ObjectInfo
from overpaint_producer.replay import repeated
from tests.producer.played import ATTEMPT, Scene

BODY: dict[str, Any] = {
    "id": "job-number-1",
    "source": "s3://photos/2026/cat v1.5%20.final.jpg",
    "model": "sd15",
    "passes": [{"op": "img2img"}],
    "seed": 7,
    "variants": 2,
    "labels": {"order": "12/34", "up": "../../x", "line": "a\nb", "empty": ""},
}


def naming(template: str, *, format: str = "png", prefix: str = "s3://pictures/cats", **changes: Any) -> Job:
    output = {"prefix": prefix, "format": format, "name": template}
    return Job.model_validate({**BODY, "output": output, **changes})


def names(job: Job) -> list[str]:
    return [str(published(job, variant)).removeprefix("s3://pictures/cats/") for variant in range(job.variants)]


@pytest.mark.parametrize(
    ("template", "format", "expected"),
    [
        ("{stem}-{variant}.png", "png", ["cat v1.5%20.final-0.png", "cat v1.5%20.final-1.png"]),
        ("{id}/{model}/{seed}.{format}", "webp", ["job-number-1/sd15/7.webp", "job-number-1/sd15/8.webp"]),
        ("{variant}.JPG", "jpeg", ["0.JPG", "1.JPG"]),
        ("{variant}.{format}", "jpeg", ["0.jpeg", "1.jpeg"]),
        ("{label:order}/{{{variant}}}.png", "png", ["12/34/{0}.png", "12/34/{1}.png"]),
    ],
)
def test_a_template_makes_a_name_for_each_variant(template: str, format: str, expected: list[str]) -> None:
    """Given a template, when its fields are filled in, then each variant has its own name below the prefix."""
    assert names(naming(template, format=format)) == expected


def test_a_name_in_a_local_store_is_a_path() -> None:
    """Given characters that a URL would have to escape, when a name is made of them, then the path holds them as is."""
    made = published(naming("{stem} #{variant}?.png", prefix="file:///out"), 0)

    assert made is not None
    assert made.path == Path("/out/cat v1.5%20.final #0?.png")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{stem}.png", r"^job: name '{stem}\.png' is the same for all 2 variants; put {variant} into it$"),
        ("{stem}-{variant}.jpg", "does not end as a png picture does; end it in .png or .{format}"),
        ("{stem}-{variant}", "does not end as a png picture does"),
        ("{nothing}-{variant}.png", "{nothing} is no field; there are {stem}, {variant}, .*{label:NAME}"),
        ("{stem.__class__}-{variant}.png", "{stem.__class__} is no field"),
        ("{stem[0]}-{variant}.png", r"{stem\[0\]} is no field"),
        ("{stem!r}-{variant}.png", "{stem!r} is no field"),
        ("{variant:99999999999}.png", "{variant:99999999999} is no field"),
        ("{label:{stem}}-{variant}.png", "{label:{stem}} is no field"),
        ("{label}-{variant}.png", "{label} is no field"),
        ("{}{0}{variant}.png", "{} is no field"),
        ("{variant.png", "write {stem}, and a brace itself twice"),
        ("variant}.png", "write {stem}, and a brace itself twice"),
        ("{label:missing}-{variant}.png", "the job has no label 'missing'; give it one"),
        ("{label:up}-{variant}.png", r"holds an empty, '\.' or '\.\.' segment"),
        ("{label:empty}/{variant}.png", "holds an empty"),
        ("{label:line}-{variant}.png", "holds control characters"),
        ("/{variant}.png", "holds an empty"),
        ("../{variant}.png", "holds an empty"),
        ("{variant}//x.png", "holds an empty"),
        ("{variant}" + "x" * 505 + ".png", "at most 512 characters"),
        ("", "at least 1 character"),
        (f"other-job/{{variant}}-{ATTEMPT}.png", "looks like a picture as workers store it"),
    ],
)
def test_a_template_that_makes_no_good_names_is_refused(template: str, says: str) -> None:
    """Given a template from anybody, when a job brings it, then the job is refused with the reason, before it runs."""
    with pytest.raises(InvalidJob, match=says):
        Job.parse(json.dumps({**BODY, "output": {"prefix": "s3://pictures/cats", "name": template}}))


def test_names_that_are_too_long_for_a_key_are_refused() -> None:
    """Given a long source and a long prefix, when the names would be no keys, then the job says so, not its worker."""
    with pytest.raises(ValueError, match="longer than 1024 bytes"):
        naming("{stem}-{variant}.png", source=f"s3://photos/{'x' * 900}.png", prefix=f"s3://pictures/{'y' * 200}")


def test_a_published_picture_never_replaces_what_the_job_reads() -> None:
    """Given a job that reads and writes in one folder, when a name is the source's own, then it is refused."""
    with pytest.raises(ValueError, match=r"s3://photos/cat\.png is the job's source; choose another name"):
        naming("{stem}.png", source="s3://photos/cat.png", prefix="s3://photos/", variants=1)


def test_pictures_are_published_before_the_owners_copy_and_listed_in_it(scene: Scene) -> None:
    """Given a record of two variants, when it is finished, then copies lie under their names, as the record says."""
    record = scene.paint(scene.job(name="cats/{stem}-{variant}.png", variants=2))

    scene.finish(record)

    assert [scene.body("cats", f"cat-{variant}.png") for variant in range(2)] == [b"painted 0", b"painted 1"]
    copy = Result.model_validate_json(scene.body(record.job_id, "result.json"))
    assert copy.published == tuple(str(scene.at("out", "cats", f"cat-{variant}.png")) for variant in range(2))
    assert not scene.is_open(record.job)


def test_published_pictures_beside_the_jobs_own_are_not_swept(scene: Scene) -> None:
    """Given names in the job's own folder and another attempt's picture there, when the job is finished, then only that
    picture goes."""
    record = scene.paint(scene.job(name="{id}/{stem}.png"))
    scene.store.put(scene.at("out", record.job_id, "0-ffffffffffff.png"), b"zombie", content_type="image/png")

    scene.finish(record)

    below = [f"{record.job_id}/{name}" for name in (f"0-{ATTEMPT}.png", "cat.png", "result.json")]
    assert scene.outputs() == below
    assert scene.body(record.job_id, "cat.png") == b"painted 0"


class Failing(LocalStore):
    """A store that fails for a while when it is to copy."""

    def __init__(self, error: type[StorageError]) -> None:
        self.error = error

    def copy(self, source: Reference, target: Reference) -> ObjectInfo:
        raise self.error(f"cannot copy {source} to {target}; try again later")


@pytest.mark.parametrize("error", [StorageUnavailable, StorageFull])
def test_a_finish_that_could_not_publish_is_made_good_by_the_next(local: Scene, error: type[StorageError]) -> None:
    """Given a store that is silent or full, when a job is finished, then it stays open until a next finish can."""
    record = local.paint(local.job(name="{stem}.png"))

    with pytest.raises(error):
        local.finish(record, Failing(error))
    assert local.is_open(record.job)
    assert local.outputs() == [f"{record.job_id}/0-{ATTEMPT}.png"]

    for _ in range(2):
        local.finish(record)
    assert local.body("cat.png") == b"painted 0"


def test_a_name_that_is_refused_costs_only_its_copy(local: Scene) -> None:
    """Given a folder under the name of one variant, when the job is finished, then the rest of its end is done."""
    record = local.paint(local.job(name="{variant}.png", variants=2))
    local.store.put(local.at("out", "0.png", "x"), b"", content_type="text/plain")

    local.finish(record)

    assert local.body("1.png") == b"painted 1"
    assert f"{record.job_id}/result.json" in local.outputs()
    assert not local.is_open(record.job)


def test_a_place_that_may_not_be_written_is_left_alone(local: Scene) -> None:
    """Given an operator who allows the job's folder alone, when the job is finished, then nothing is published."""
    record = local.paint(local.job(name="{stem}.png"))
    access = Access(read=(), write=(local.at("out", record.job_id),), ledger=local.at("ledger"))

    local.finish(record, GuardedStore(local.store, access))

    assert local.outputs() == [f"{record.job_id}/0-{ATTEMPT}.png", f"{record.job_id}/result.json"]
    assert not local.is_open(record.job)


def test_a_job_that_failed_publishes_nothing(local: Scene) -> None:
    """Given a failed job with a template, when it is finished, then only its record's copy is there."""
    record = local.fail(local.job(name="{stem}.png"))

    local.finish(record)

    assert local.outputs() == [f"{record.job_id}/result.json"]


def test_of_two_jobs_with_one_name_the_later_stays_even_if_the_earlier_ends_again(local: Scene) -> None:
    """Given two jobs that publish under one name, when a late ticket ends the first again, then the second's stays."""
    first, second = (local.paint(local.job(name="{stem}.png"), picture) for picture in ("first", "second"))
    local.finish(first)
    local.finish(second)

    local.finish(first)

    assert local.body("cat.png") == b"second 0"


def test_a_replay_publishes_nothing(local: Scene) -> None:
    """Given a record of a job that published, when it is repeated, then the repetition leaves those copies alone."""
    record = local.paint(local.job(name="{stem}.png"))

    assert repeated(record).output.name is None
    assert repeated(record, output=str(local.at("replayed"))).output.name is None
