"""Bad input ends in an error that names the value and the remedy, as early as it can be known."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image
from pydantic import ValidationError

from overpaint_common.errors import (
    ForbiddenReference,
    InvalidJob,
    NotServed,
    StrengthTooSmall,
    UnknownModel,
)
from overpaint_common.live import Live
from overpaint_common.result import Result
from overpaint_producer import Edit, Img2Img, Job, Output, Producer
from tests.support.stack import Stack, encoded, eventually, picture


def repaint(stack: Stack, producer: Producer, source: str, **changes: object) -> Result:
    arguments = {"prompt": "a blue square", "output": stack.output, "steps": 4, **changes}
    return producer.img2img(source, **arguments).wait(timeout=60)  # type: ignore[arg-type]


def bomb() -> bytes:
    """A PNG of a few hundred bytes whose header promises 60,000 x 60,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def animation() -> bytes:
    file = io.BytesIO()
    frames = [picture(colour=(shade, 0, 0)) for shade in (10, 100, 200)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "code", "says"),
    [
        ("empty.png", lambda: b"", "source_empty", "empty"),
        ("text.png", lambda: b"this is no picture" * 20, "source_not_a_picture", "picture"),
        ("cut.png", lambda: encoded(Image.effect_noise((64, 64), 50))[:1500], "source_truncated", "ends after"),
        ("cut.jpg", lambda: encoded(picture(), "JPEG")[:400], "source_truncated", "ends after"),
        ("bomb.png", bomb, "source_too_large", "60000"),
        ("moving.gif", animation, "source_animated", "3 frames"),
    ],
)
def test_an_unusable_source_fails_with_its_own_code(
    serving: Stack, producer: Producer, name: str, data: Callable[[], bytes], code: str, says: str
) -> None:
    """Given a source that is no usable picture, when the job runs, then its record says which way and what to do."""
    record = repaint(serving, producer, serving.put(name, data()))

    assert record.status == "failed"
    assert record.failure is not None
    assert (record.failure.code, record.failure.retryable) == (code, False)
    assert says in record.failure.message
    assert (record.attempts, record.outputs) == (1, ())
    eventually(lambda: serving.keys("out", record.job_id) == ["result.json"], "the owner's copy")


def sixteen_bit() -> bytes:
    return encoded(Image.new("I;16", (40, 40), 40_000))


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(90, 60), "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("name", "data", "mode", "size"),
    [
        ("cmyk.jpg", lambda: encoded(picture().convert("CMYK"), "JPEG"), "CMYK", (64, 43)),
        ("deep.png", sixteen_bit, "I;16", (64, 64)),
        ("palette.png", lambda: encoded(picture().quantize(16)), "P", (64, 43)),
        ("rotated.jpg", rotated, "RGB", (43, 64)),
    ],
)
def test_an_unusual_source_is_repainted_all_the_same(
    serving: Stack, producer: Producer, name: str, data: Callable[[], bytes], mode: str, size: tuple[int, int]
) -> None:
    """Given CMYK, 16 bits, a palette or an EXIF rotation, when the job runs, then the picture is as it is displayed."""
    record = repaint(serving, producer, serving.put(name, data())).raise_for_status()

    assert record.source is not None
    assert record.source.mode == mode
    assert (record.outputs[0].width, record.outputs[0].height) == size


def test_a_missing_source_is_recorded_as_not_found(serving: Stack, producer: Producer) -> None:
    """Given a reference to nothing, when the job runs, then the record names it."""
    missing = str(serving.at("in", "nowhere.png"))
    failure = repaint(serving, producer, missing).failure
    assert failure is not None
    assert failure.code == "object_not_found"
    assert missing in failure.message


@pytest.mark.parametrize("where", ["secret/a.png", "ledger/jobs/x/request.json", "in-private/a.png"])
def test_a_forbidden_source_is_refused_at_submission(serving: Stack, producer: Producer, where: str) -> None:
    """Given a source outside the allowlist, when it is submitted, then the error names it and the setting."""
    source = str(serving.at(*where.split("/")))
    with pytest.raises(ForbiddenReference, match="OVERPAINT_READ") as caught:
        repaint(serving, producer, source)
    assert source in str(caught.value)


def test_a_forbidden_output_is_refused_at_submission(serving: Stack, producer: Producer) -> None:
    """Given an output outside the allowlist, when it is submitted, then the error names the setting."""
    with pytest.raises(ForbiddenReference, match="OVERPAINT_WRITE"):
        repaint(serving, producer, serving.put("a.png", encoded(picture())), output=str(serving.at("elsewhere")))


@pytest.mark.parametrize("strength", [-0.1, 1.01, float("nan")])
def test_a_strength_outside_its_range_is_refused(serving: Stack, producer: Producer, strength: float) -> None:
    """Given strength outside [0, 1], when it is submitted, then the error names field and value."""
    with pytest.raises(InvalidJob, match=r"strength.*given: (-0\.1|1\.01|nan)"):
        repaint(serving, producer, serving.put("a.png", encoded(picture())), strength=strength)


def test_a_strength_too_small_for_its_steps_names_enough_steps(serving: Stack, producer: Producer) -> None:
    """Given strength 0.05 of 10 steps, when it is submitted, then the smallest number of steps that works is named."""
    source = serving.put("a.png", encoded(picture()))
    with pytest.raises(StrengthTooSmall, match="use steps >= 20"):
        repaint(serving, producer, source, strength=0.05, steps=10)
    assert repaint(serving, producer, source, strength=0.05, steps=20).status == "succeeded"


def test_an_unknown_model_is_refused_naming_the_known_ones(serving: Stack, producer: Producer) -> None:
    """Given a model that no registry has, when it is submitted, then the error lists those it could be."""
    with pytest.raises(UnknownModel, match="overpaint-mini"):
        repaint(serving, producer, serving.put("a.png", encoded(picture())), model="overpaint-maxi")


def test_an_unknown_field_is_refused_by_name(serving: Stack, producer: Producer) -> None:
    """Given a misspelt field, when the job is built or submitted, then the error names it."""
    with pytest.raises(InvalidJob, match="priorty: unknown field"):
        repaint(serving, producer, serving.put("a.png", encoded(picture())), priorty="bulk")
    with pytest.raises(ValidationError, match="strenght"):
        Img2Img(prompt="x", strenght=0.4)  # type: ignore[call-arg]


def test_a_prompt_of_100_kb_is_refused_with_its_length(serving: Stack, producer: Producer) -> None:
    """Given a huge prompt, when it is submitted, then the error gives its length and the limit, and not the prompt."""
    with pytest.raises(InvalidJob, match=r"10000 characters.*100\d\d\d characters") as caught:
        repaint(serving, producer, serving.put("a.png", encoded(picture())), prompt="blue " * 20_000)
    assert len(str(caught.value)) < 500


def test_another_operation_is_not_served_by_this_fleet(serving: Stack, producer: Producer) -> None:
    """Given a pass that follows an instruction, when it is submitted, then the error says what the model does serve."""
    job = Job(
        source=serving.put("a.png", encoded(picture())),
        model="overpaint-mini",
        passes=(Edit(prompt="x"),),
        output=Output(prefix=serving.output),
    )
    with pytest.raises(NotServed, match=r"'edit', which is not served by this fleet.*serves img2img"):
        producer.submit(job)


def test_what_no_fleet_could_check_is_recorded_by_the_worker(
    serving: Stack, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given jobs accepted before any worker was announced, when a worker claims them, then it refuses them in a record.

    The producer sees no announcement; removed from Redis, it would be back at the worker's next one.
    """
    monkeypatch.setattr(Live, "models", lambda _: {})
    source = serving.put("a.png", encoded(picture()))
    passes = Img2Img(prompt="x", steps=4)
    bad: dict[str, dict[str, object]] = {
        "strength_too_small": {"passes": (Img2Img(prompt="x", steps=3, strength=0.1),)},
        "not_served": {"passes": (Edit(prompt="x"),)},
        "forbidden_reference": {"output": Output(prefix=str(serving.at("elsewhere")))},
    }
    handles = {}
    for code, changes in bad.items():
        fields = {"source": source, "model": "overpaint-mini", "passes": (passes,)}
        handles[code] = producer.submit(Job(**{**fields, "output": Output(prefix=serving.output), **changes}))

    for code, handle in handles.items():
        failure = handle.wait(timeout=60).failure
        assert failure is not None
        assert failure.code == code
    assert not serving.keys("elsewhere")


def test_an_output_that_the_store_denies_ends_with_a_record(serving: Stack, producer: Producer) -> None:
    """Given an output place where the store answers 403, when the job runs, then it still ends, and says so."""
    from tests.support.faults import answer, requests

    serving.proxy.on(requests("PUT", "/out/denied/"), answer(403, "AccessDenied"))
    record = repaint(
        serving, producer, serving.put("a.png", encoded(picture())), output=str(serving.at("out", "denied"))
    )
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.code == "storage_denied"
    assert "denied" in record.failure.message
