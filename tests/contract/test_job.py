"""The contract: what a job may say, and how it is settled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint_common.errors import InvalidJob, NotServed, StrengthTooSmall
from overpaint_common.fleet import settle, total_steps
from overpaint_common.job import MAX_JOB_BYTES, Job
from overpaint_common.passes import MAX_SEED, Img2Img
from overpaint_common.schema import FOLDER, render, schemas
from overpaint_common.seeds import job_id_from_key, seeds_of_passes
from overpaint_common.steps import StepsRule, check_strength, effective_steps
from tests.support.cards import model_card

BODY: dict[str, Any] = {
    "id": "job-number-1",
    "source": "s3://photos/cat.jpg",
    "model": "sd15",
    "passes": [{"op": "img2img", "prompt": "a cat in oil"}],
    "output": {"prefix": "s3://pictures/cats"},
}
CARD = model_card(
    "sd15",
    native_size=512,
    default_steps=50,
    default_guidance_scale=7.5,
    max_size=1024,
    reads=("s3://photos/",),
    writes=("s3://pictures/",),
)


def job(**changes: Any) -> Job:
    return Job.parse(json.dumps({**BODY, **changes}, ensure_ascii=False))


def test_a_job_survives_its_own_json() -> None:
    """Given a job, when it is written and read, then it is the same job."""
    assert Job.parse(job().model_dump_json()) == job()


def test_the_digest_covers_the_body_and_not_the_id() -> None:
    """Given two bodies, when only the id differs the digest is the same; any other difference changes it."""
    assert job().digest() == job(id="job-number-2").digest()
    assert job().digest() != job(seed=1).digest()
    assert job().digest() != job(passes=[{"op": "img2img", "prompt": "a dog in oil"}]).digest()


def test_a_field_given_at_its_default_changes_no_digest() -> None:
    """Given a default written out, when it is digested, then it equals the default left out."""
    assert job().digest() == job(variants=1, priority="standard", seed=None).digest()


def test_the_id_of_a_key_is_stable_across_releases() -> None:
    """Given an idempotency key, when its id is derived, then it is the sha256 that other clients can compute."""
    import hashlib

    assert job_id_from_key("order-1") == hashlib.sha256(b"overpaint idempotency key\0order-1").hexdigest()[:32]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"passes": []}, "passes"),
        ({"passes": [{"op": "img2img"}] * 17}, "passes"),
        ({"passes": [{"op": "dream"}]}, r"^passes\.0: op 'dream' is none of img2img, inpaint, .*match_color$"),
        ({"passes": [{"prompt": "x"}]}, r"^passes\.0: names no op; give one of img2img, inpaint, .*match_color$"),
        ({"variants": 17}, "variants"),
        ({"id": "../../etc/passwd"}, "id"),
        ({"model": "org/repository"}, "model"),
        ({"source": "https://example.com/cat.jpg"}, "^source: reference 'https.*file:///absolute/path$"),
        ({"source": "s3://photos/"}, "names a folder"),
        ({"source": "s3://photos/../ledger/x"}, r"'\.\.'"),
        ({"schema_version": 2}, "schema_version"),
        ({"deadline": "2026-01-01T00:00:00"}, "deadline"),
        ({"labels": {"a" * 100: "x"}}, "labels"),
        ({"extra": 1}, "extra: unknown field"),
    ],
)
def test_what_a_job_may_not_say(changes: dict[str, Any], says: str) -> None:
    """Given a wrong field, when the job is read, then the error names it."""
    with pytest.raises(InvalidJob, match=says):
        job(**changes)


def test_all_wrong_fields_are_named_at_once() -> None:
    """Given two wrong fields, when the job is read, then one error names both."""
    with pytest.raises(InvalidJob, match=r"variants: .*; priority: "):
        job(variants=0, priority="urgent")


def test_a_wrong_pass_does_not_make_the_list_too_short() -> None:
    """Given a list with one wrong pass, when the job is read, then that pass alone is complained of."""
    with pytest.raises(InvalidJob) as raised:
        job(passes=[{"op": "img2img", "strength": 3}])
    assert str(raised.value) == "passes.0.img2img.strength: Input should be less than or equal to 1 (given: 3)"


def test_a_huge_body_is_refused_before_it_is_parsed() -> None:
    """Given more bytes than a job may have, when it is read, then its size and the limit are named."""
    with pytest.raises(InvalidJob, match=str(MAX_JOB_BYTES)):
        Job.parse(b"[" * (MAX_JOB_BYTES + 1))


def test_a_job_is_measured_as_it_is_sent() -> None:
    """Given a job whose JSON fits in UTF-8 but not escaped, when measured, then it is accepted."""
    fitting = job(passes=[{"op": "img2img", "prompt": "\u732b" * 9000}] * 8)
    fitting.check_size()
    with pytest.raises(InvalidJob, match=str(MAX_JOB_BYTES)):
        fitting.model_copy(update={"passes": fitting.passes * 2}).check_size()


def test_a_remedy_is_never_more_than_the_model_takes() -> None:
    """Given a strength that only more steps than allowed would serve, when refused, then another remedy is named."""
    with pytest.raises(StrengthTooSmall, match="raise the strength"):
        settle(job(passes=[{"op": "img2img", "strength": 0.002}]), {CARD.name: CARD})


def test_settling_fills_every_default_and_is_final() -> None:
    """Given a bare job, when it is settled, then nothing is left open, and settling again changes nothing."""
    settled = settle(job(), {CARD.name: CARD})
    (only,) = settled.passes
    assert isinstance(only, Img2Img)
    assert (only.steps, only.guidance_scale) == (50, 7.5)
    assert settled.seed == only.seed is not None
    assert settle(settled, {CARD.name: CARD}) == settled
    assert total_steps(settled, {CARD.name: CARD}) == 25


def test_settling_without_a_fleet_still_settles_the_seeds() -> None:
    """Given no announced model, when a job is settled, then steps stay open but a retry draws the same noise."""
    settled = settle(job(), {})
    (only,) = settled.passes
    assert isinstance(only, Img2Img)
    assert only.steps is None
    assert only.seed is not None
    assert settle(settled, {CARD.name: CARD}).passes[0] == settle(job(), {CARD.name: CARD}).passes[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"passes": [{"op": "img2img", "steps": 101}]}, "at most 100"),
        ({"prepare": {"size": 2048}}, "at most 1024"),
        ({"passes": [{"op": "match_color"}]}, "not served by this fleet"),
    ],
)
def test_what_the_fleet_does_not_serve_is_refused(changes: dict[str, Any], says: str) -> None:
    """Given a valid job beyond the fleet, when it is settled, then the error says what is not served."""
    with pytest.raises(NotServed, match=says):
        settle(job(**changes), {CARD.name: CARD})


@given(
    given_seeds=st.lists(st.none() | st.integers(0, MAX_SEED), min_size=1, max_size=16),
    base=st.integers(0, MAX_SEED),
    variants=st.integers(1, 16),
)
def test_derived_passes_never_share_noise(given_seeds: list[int | None], base: int, variants: int) -> None:
    """Given any seeds, when the rest are derived, then no derived pass meets another pass in any variant."""
    seeds = seeds_of_passes(base, given_seeds, variants)
    assert seeds == seeds_of_passes(base, given_seeds, variants)
    for index, (seed, own) in enumerate(zip(seeds, given_seeds, strict=True)):
        assert 0 <= seed <= MAX_SEED
        if own is not None:
            assert seed == own
            continue
        others = [other for place, other in enumerate(seeds) if place != index]
        assert all(abs(seed - other) >= variants for other in others)


@pytest.mark.parametrize(
    ("rule", "steps", "strength", "running"),
    [
        ("floor", 50, 0.5, 25),
        ("floor", 50, 0.58, 28),  # 50 * 0.58 is 28.999... in floating point, and diffusers truncates it
        ("floor", 30, 1.0, 30),
        ("ceil", 50, 0.58, 29),
        ("ceil", 28, 0.6, 17),
        ("ceil", 10, 0.01, 1),
    ],
)
def test_effective_steps_are_those_of_the_pipelines(rule: StepsRule, steps: int, strength: float, running: int) -> None:
    """Given steps and strength, when the running steps are computed, then they are what diffusers runs."""
    assert effective_steps(rule, steps, strength) == running


@given(steps=st.integers(1, 1000), strength=st.floats(0, 1, exclude_min=True))
def test_the_named_steps_are_the_smallest_that_work(steps: int, strength: float) -> None:
    """Given a strength too small, when it is refused, then the named steps work and one less does not."""
    try:
        assert check_strength("floor", steps, strength, where="pass 0") > 0
    except StrengthTooSmall as error:
        if "use steps >=" in str(error):
            enough = int(str(error).split("steps >= ")[1].split(",")[0])
            assert effective_steps("floor", enough, strength) > 0
            assert effective_steps("floor", enough - 1, strength) == 0


@pytest.mark.parametrize("name", sorted(schemas()))
def test_the_committed_schemas_are_those_of_the_code(name: str) -> None:
    """Given the models, when their schemas are generated, then the committed files agree; else run `make schema`."""
    assert (FOLDER / name).read_text() == render(schemas()[name])
    jsonschema.Draft202012Validator.check_schema(schemas()[name])


def test_the_schema_accepts_and_refuses_as_the_code_does() -> None:
    """Given bodies, when they are held against the schema by another library, then it agrees with ours."""
    validator = jsonschema.Draft202012Validator(json.loads((FOLDER / "job.schema.json").read_text()))
    assert validator.is_valid(BODY)
    assert validator.is_valid(json.loads(settle(job(), {CARD.name: CARD}).model_dump_json()))
    for wrong in ({"extra": 1}, {"variants": 17}, {"source": "ftp://x/y"}, {"passes": [{"op": "dream"}]}):
        assert not validator.is_valid({**BODY, **wrong})


def test_no_schema_is_left_over() -> None:
    """Given the folder of schemas, when it is listed, then it holds the generated ones and nothing else."""
    assert {file.name for file in Path(FOLDER).iterdir()} == set(schemas())
