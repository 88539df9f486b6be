"""The contract under anything that a client can send: a job or an InvalidJob, and never a way out of its places."""

from __future__ import annotations

import json
import posixpath
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint_common import keys
from overpaint_common.errors import ForbiddenReference, InvalidJob
from overpaint_common.job import Job
from overpaint_common.keys import LedgerKeys
from overpaint_common.references import Reference
from overpaint_common.storage import Access
from tests.fuzz.mutations import bounded, damaged, mutated, scalars, spelled, values

JOB: dict[str, Any] = {
    "schema_version": 1,
    "id": "order-1234-cover",
    "source": "s3://photos/in/cat.jpg",
    "model": "some-model",
    "passes": [
        {"op": "img2img", "prompt": "a cat", "strength": 0.5, "steps": 10, "guidance_scale": 7.5, "seed": 1},
        {"op": "inpaint", "mask": "s3://photos/in/mask.png", "negative_prompt": "a dog"},
        {"op": "upscale"},
        {"op": "edit", "prompt": "snow"},
        {"op": "match_color", "method": "wavelet"},
    ],
    "prepare": {"fit": "bucket", "size": 512},
    "seed": 7,
    "variants": 2,
    "output": {"prefix": "s3://pictures/out/", "format": "jpeg", "quality": 80},
    "priority": "bulk",
    "deadline": "2030-01-01T00:00:00Z",
    "max_attempts": 2,
    "webhook": "https://example.com/done?token=1",
    "labels": {"customer": "42", "project/name": "x"},
}
SMALL = {
    "source": JOB["source"],
    "model": "m",
    "passes": [{"op": "img2img"}],
    "output": {"prefix": "s3://pictures/out"},
}
ATTEMPT = "0123456789ab"
ROOT = Reference.parse("s3://ledger/root/")
ACCESS = Access(
    read=(Reference.parse("s3://photos/in/"), Reference.parse("file:///photos/in/")),
    write=(Reference.parse("s3://pictures/out/"), Reference.parse("file:///pictures/out/")),
    ledger=ROOT,
)

plain = st.sampled_from(["a", "in", "out", "é", " ", "~", "in-private", "a.b", "..."])
segments = plain | plain | st.sampled_from(["..", ".", "", "%2e%2e", "%2E", "%2f..", "%00", "%", "..\\", "\u2028", "*"])
places = st.sampled_from(["s3://photos/in/", "s3://pictures/out/", "file:///photos/in/", "file:///pictures/out/"])
references = st.builds(
    lambda start, parts, end: start + "/".join(parts) + end,
    places
    | places
    | st.sampled_from(
        [
            "s3://photos/",
            "s3://ledger/root/",
            "file:///",
            "file://photos/",
            "s3://",
            "S3://photos/",
            "s3://../",
            "/",
            "",
        ]
    ),
    st.lists(segments, max_size=4),
    st.sampled_from(["", "", "/", "//", "?versionId=1", "#x"]),
)
names = st.text("abz019-", min_size=8, max_size=64) | st.sampled_from(
    [
        "..",
        "../x",
        "a/../../x",
        "job-number-1\n",
        "job-number-1/..",
        "JOB-NUMBER-1",
        "job-number-\u0661",
        "a" * 65,
        "-" * 9,
    ]
)


def assert_plain(reference: Reference) -> None:
    """It says the same however often it is read, and no path library would shorten it."""
    assert Reference.parse(str(reference)) == reference
    assert posixpath.normpath("/" + reference.key) == "/" + reference.key.removesuffix("/")


@bounded(200)
@given(st.binary(max_size=80) | damaged(st.sampled_from([spelled(JOB), spelled(SMALL)])))
def test_any_bytes_are_a_job_or_invalid(body: bytes) -> None:
    """Given bytes, when they are read as a job, then there is one, or an InvalidJob."""
    with suppress(InvalidJob):
        Job.parse(body)


@bounded(150)
@given(values | mutated(JOB, most=2))
def test_any_json_is_a_job_or_invalid(document: Any) -> None:
    """Given JSON of any shape, when it is read as a job, then it survives its own JSON or is InvalidJob."""
    try:
        job = Job.parse(spelled(document))
    except InvalidJob:
        return
    assert Job.parse(job.model_dump_json()) == job
    assert Job.parse(job.model_dump_json()).digest() == job.digest()


hostile = st.one_of(
    references.map(lambda text: {"source": text}),
    references.map(lambda text: {"output": {"prefix": text}}),
    names.map(lambda text: {"id": text}),
    names.map(lambda text: {"model": text}),
)


@bounded(200)
@given(hostile, hostile)
def test_no_accepted_job_leaves_its_places(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Given a job with hostile references and names, when it is accepted, all its keys lie where they should."""
    try:
        job = Job.parse(spelled(JOB | one | other))
    except InvalidJob:
        return
    root, ledger = Reference.parse(job.output.prefix), LedgerKeys(ROOT)
    for written in (keys.job_prefix(job), keys.picture(job, 15, ATTEMPT), keys.result_copy(job)):
        assert_plain(written)
        assert written.within(root)
        assert written.key.startswith(f"{root.key}{job.id}/")
    assert ledger.request(job.id).key == f"root/jobs/{job.id}/request.json"
    assert ledger.webhook(job.id).key == f"root/webhooks/{job.id}"
    assert ledger.marker(job.priority, job.model, job.id).key == f"root/open/{job.priority}/{job.model}/{job.id}"
    assert not {"/", "\\", "\n"} & {*job.id, *job.model}
    assert not {".", ".."} & {job.id, job.model}


@bounded(150)
@given(references)
def test_no_allowed_reference_leads_elsewhere(text: str) -> None:
    """Given a hostile source, when the allowlist lets it pass, then its plain path begins with an allowed one."""
    try:
        source = Reference.parse(Job.parse(spelled({**SMALL, "source": text})).source)
        ACCESS.check_read(source)
    except (InvalidJob, ForbiddenReference):
        return
    assert_plain(source)
    assert source.bucket in ("photos", "")
    where = posixpath.normpath(f"/{source.bucket}/{source.key}".replace("//", "/"))
    assert f"{where}/".startswith("/photos/in/")


def shuffled(document: Any, order: random.Random) -> Any:
    """The same JSON with the keys of every object in another order."""
    if isinstance(document, dict):
        return {key: shuffled(document[key], order) for key in order.sample(list(document), len(document))}
    return [shuffled(item, order) for item in document] if isinstance(document, list) else document


@bounded(80)
@given(mutated(JOB, scalars, most=1), st.integers(0, 1000))
def test_the_digest_does_not_depend_on_the_order_of_keys(document: Any, seed: int) -> None:
    """Given a job, when its keys come in another order or with its defaults spelled out, then its digest stays."""
    try:
        job = Job.parse(spelled(document))
    except InvalidJob:
        return
    other = Job.parse(json.dumps(shuffled(document, random.Random(seed)), indent=1))
    assert other.digest() == job.digest()
    assert Job.parse(job.model_dump_json()).digest() == job.digest()
    assert job.model_copy(update={"id": "another-one"}).digest() == job.digest()


def test_half_a_character_is_invalid() -> None:
    """Given a text with half of a surrogate pair, when it is read as a job, then that is an InvalidJob."""
    with pytest.raises(InvalidJob):
        Job.parse(json.dumps({**SMALL, "labels": {"a": "\ud800"}}, ensure_ascii=False))


def test_an_accepted_prefix_leaves_room_for_every_key() -> None:
    """Given prefixes near the longest key, when a job of such a prefix is accepted, then all its keys can be made."""
    for length in range(900, 1024):
        try:
            job = Job.parse(spelled({**SMALL, "output": {"prefix": "s3://pictures/" + "a" * length}}))
        except InvalidJob:
            continue
        keys.result_copy(job)
        keys.picture(job, 15, ATTEMPT)
