"""One picture through the whole system: S3 over HTTP, Redis, and a worker process."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image
from PIL import Image, ImageChops

from overpaint_common.result import Result
from overpaint_producer import Img2Img, Job, Output, Producer
from overpaint_worker.engine.registry import EMBEDDED
from tests.support.stack import Stack, encoded, eventually, picture

PROMPT = "a blue square on a plain background"


def test_the_backend_gets_the_picture_and_its_record(serving: Stack, producer: Producer) -> None:
    """Given a stored picture, when a job repaints it, then both come back and the ledger is closed."""
    data = encoded(picture())
    source = serving.put("scene.png", data)
    before = datetime.now(UTC)

    handle = producer.img2img(
        source, prompt=PROMPT, output=serving.output, strength=0.6, steps=10, seed=7, variants=2, labels={"team": "web"}
    )
    record = handle.wait(timeout=60)

    assert record.status == "succeeded"
    assert [picture.size for picture in handle.pictures()] == [(64, 43)] * 2  # 96 x 64 within 64 x 64, padding undone
    assert [v.seed for v in record.variants] == [7, 8]
    for variant in record.variants:
        (stored,) = variant.outputs
        body = serving.body(stored.uri)
        assert stored.uri == f"{serving.output}{handle.id}/{variant.index}-{record.attempt}.png"
        assert (stored.sha256, stored.size) == (hashlib.sha256(body).hexdigest(), len(body))
        (run,) = variant.passes
        assert (run.op, run.seed, run.steps) == ("img2img", 7 + variant.index, 10)
        assert (run.effective_steps, run.start_step) == (6, 4)
    assert record.source is not None
    assert record.source.sha256 == hashlib.sha256(data).hexdigest()
    assert record.source.etag == hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert (record.source.width, record.source.height, record.source.format) == (96, 64, "png")
    assert record.model is not None
    assert (record.model.name, record.model.scheduler, record.model.dtype) == (
        "overpaint-mini",
        "DDIMScheduler",
        "float32",
    )
    assert record.model.pipeline == "StableDiffusionImg2ImgPipeline"
    assert len(record.model.digest) == 64
    assert (record.device, record.attempts, record.warnings) == ("cpu", 1, ())
    # Two of each variant, which may have shared forwards.
    assert record.batch_rows in (2, 4)
    assert {"overpaint", "torch", "diffusers", "transformers", "celery", "pillow"} <= set(record.software)
    assert {"queued", "fetch", "decode", "prepare", "paint", "engine", "encode", "upload"} <= set(record.timings)
    assert record.started_at is not None
    assert before <= record.accepted_at <= record.started_at <= record.finished_at <= datetime.now(UTC)
    assert record.job.labels == {"team": "web"}

    eventually(lambda: not serving.keys("ledger", "open"), "marker deleted")
    assert sorted(serving.keys("ledger", "jobs", handle.id)) == ["record.json", "request.json"]
    copy = Result.model_validate_json(serving.body(f"{serving.output}{handle.id}/result.json"))
    assert copy == record
    assert len(serving.keys("out", handle.id)) == 3


def test_the_picture_is_the_one_that_diffusers_makes(serving: Stack, producer: Producer) -> None:
    """Given the same seed and model, when diffusers is called directly, then it makes the same picture."""
    scene = picture(64, 64)
    handle = producer.img2img(
        serving.put("square.png", encoded(scene)), prompt=PROMPT, output=serving.output, strength=0.7, steps=12, seed=3
    )
    handle.wait(timeout=60)
    pipeline = AutoPipelineForImage2Image.from_pretrained(EMBEDDED, dtype=torch.float32)
    direct = pipeline(
        prompt=PROMPT,
        image=scene,
        strength=0.7,
        num_inference_steps=12,
        guidance_scale=4.0,
        generator=torch.Generator("cpu").manual_seed(3),
    ).images[0]

    (ours,) = handle.pictures()
    assert np.asarray(ImageChops.difference(ours.convert("RGB"), direct)).max() <= 1


def test_each_step_is_told_in_order_and_within_a_second(serving: Stack, producer: Producer) -> None:
    """Given a running job, when its progress is read, then every step comes, and the last one at once."""
    job = Job(
        source=serving.put("steps.png", encoded(picture())),
        model="overpaint-mini",
        passes=(Img2Img(prompt=PROMPT, strength=0.5, steps=20), Img2Img(prompt=PROMPT, strength=0.3, steps=20)),
        output=Output(prefix=serving.output, previews=True),
    )

    arrivals = [(time.time(), moment) for moment in producer.submit(job).progress(timeout=60)]

    steps = [moment.step for _, moment in arrivals if moment.phase == "denoise"]
    assert sorted(set(steps)) == list(range(17))
    assert steps == sorted(steps)
    assert {moment.steps for _, moment in arrivals if moment.state == "running"} == {16}
    assert arrivals[-1][1].state == "succeeded"
    left = {moment.step: moment.seconds_left for _, moment in arrivals if moment.phase == "denoise"}
    assert [step for step, seconds in left.items() if seconds is None] == [0, 1, 2]
    assert all(seconds > 0 for step, seconds in left.items() if seconds is not None and step < 16)
    assert left[16] == 0
    assert {moment.seconds_left for _, moment in arrivals if moment.phase != "denoise"} == {None}
    assert producer.handle(job.id).preview() is None
    runs = producer.handle(job.id).result().variants[0].passes
    for run, last in zip(runs, (10, 16), strict=True):
        assert run.started_at is not None
        arrived = next(at for at, moment in arrivals if moment.step == last)
        assert arrived - (run.started_at.timestamp() + run.seconds) < 1


def test_strength_zero_returns_the_bytes_and_no_mark(serving: Stack, producer: Producer) -> None:
    """Given strength 0, when the job runs, then the stored bytes are the source's and no model is named."""
    data = encoded(picture(333, 77))
    handle = producer.img2img(serving.put("zero.png", data), prompt=PROMPT, output=serving.output, strength=0)

    record = handle.wait(timeout=60).raise_for_status()

    assert record.passthrough
    assert record.model is None
    assert record.variants[0].passes[0].effective_steps == 0
    assert serving.body(record.outputs[0].uri) == data


def test_what_the_caller_should_know_is_in_the_record(serving: Stack, producer: Producer) -> None:
    """Given a prompt beyond the model's context and a size far from its native one, when it runs, both are told."""
    source = serving.put("warned.png", encoded(picture()))
    prompt = " ".join(["blue house on grass"] * 12)
    record = producer.img2img(source, prompt=prompt, output=serving.output, steps=2, prepare={"size": 128}).wait(60)

    notes = {warning.code: warning.message for warning in record.raise_for_status().warnings}
    assert set(notes) == {"prompt_cut", "size_far_from_native"}
    assert "tokens, of which the model reads the first 32" in notes["prompt_cut"]
    assert "128 x 128" in notes["size_far_from_native"]
    assert record.outputs[0].width == 128


def test_a_painted_picture_carries_its_provenance(serving: Stack, producer: Producer) -> None:
    """Given a painted picture, when its text is read with Pillow, then it says what made it."""
    handle = producer.img2img(
        serving.put("marked.png", encoded(picture())), prompt=PROMPT, output=serving.output, steps=4, seed=5
    )
    handle.wait(timeout=60)

    (made,) = handle.pictures()
    text = " ".join(str(value) for value in made.info.values())
    assert "compositeWithTrainedAlgorithmicMedia" in text
    assert handle.id in text
    assert "overpaint-mini" in text


def test_the_same_seed_repaints_the_same_pixels_in_any_format(serving: Stack, producer: Producer) -> None:
    """Given one source, when it is repainted twice, then the pixels agree; another seed gives others."""
    source = serving.put("again.png", encoded(picture()))
    first, second, other = (
        producer.img2img(source, prompt=PROMPT, output=serving.output, steps=6, seed=seed).wait(60).outputs[0].uri
        for seed in (11, 11, 12)
    )

    def pixels(uri: str) -> bytes:
        import io

        return Image.open(io.BytesIO(serving.body(uri))).tobytes()

    assert pixels(first) == pixels(second) != pixels(other)
    jpeg = producer.img2img(source, prompt=PROMPT, output=serving.output, steps=6, seed=11, format="jpeg").wait(60)
    assert serving.body(jpeg.outputs[0].uri)[:3] == b"\xff\xd8\xff"
    assert jpeg.outputs[0].content_type == "image/jpeg"


def test_a_whole_job_may_come_as_a_plain_celery_message(serving: Stack, producer: Producer) -> None:
    """Given a client that knows only Celery, when it sends a job to overpaint.submit, then the job runs."""
    from celery import Celery

    source = serving.put("celery.png", encoded(picture()))
    job_id = "from-another-language-1"
    body = {
        "id": job_id,
        "source": source,
        "model": "overpaint-mini",
        "passes": [{"op": "img2img", "prompt": PROMPT, "steps": 4}],
        "output": {"prefix": serving.output},
    }
    with Celery("elsewhere", broker=serving.redis.url, set_as_current=False) as app:
        app.send_task("overpaint.submit", args=[body], queue="overpaint.submit")
        for wrong in ({"variants": 99}, {"source": str(serving.at("secret", "a.png"))}):
            app.send_task("overpaint.submit", args=[{**body, "id": "refused-1", **wrong}], queue="overpaint.submit")
        app.send_task("overpaint.submit", args=["no object"], queue="overpaint.submit", task_id="../x")
        unnamed = {name: value for name, value in body.items() if name != "id"}
        sent = app.send_task("overpaint.submit", args=[unnamed], queue="overpaint.submit")

    eventually(lambda: bool(serving.keys("ledger", "jobs", job_id)), "job accepted")
    assert producer.handle(job_id).wait(timeout=60).status == "succeeded"
    eventually(lambda: bool(serving.keys("ledger", "jobs", sent.id)), "job without an id accepted under the message's")
    assert producer.handle(sent.id).wait(timeout=60).status == "succeeded"
    eventually(lambda: len(serving.keys("ledger", "dead", "submissions")) == 3, "refused jobs kept")
    letters = [
        serving.at("ledger", "dead", "submissions", key) for key in serving.keys("ledger", "dead", "submissions")
    ]
    kept = [json.loads(serving.body(str(letter))) for letter in letters]
    codes = sorted((letter["code"], letter["error"].split(":")[0].split()[0]) for letter in kept)
    assert codes == [
        ("forbidden_reference", "source"),
        ("invalid_job", "overpaint.submit"),
        ("invalid_job", "variants"),
    ]
    assert [letter["body"] for letter in kept if letter["error"].startswith("variants")] == [
        {**body, "id": "refused-1", "variants": 99}
    ]
