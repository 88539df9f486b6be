"""`overpaint submit` without a worker: what is accepted, what is refused, and how it says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from overpaint_producer import Img2Img
from tests.cli.conftest import Place


def request_of(place: Place, job_id: str) -> dict[str, Any]:
    body = json.loads((place.folder / "ledger" / "jobs" / job_id / "request.json").read_text())
    job: dict[str, Any] = body["job"]
    return job


def a_job(place: Place, **fields: object) -> str:
    return json.dumps(
        {
            "source": place.source.as_uri(),
            "model": "mini",
            "passes": [{"op": "img2img", "prompt": "a blue house", "strength": 0.5}],
            "output": {"prefix": place.output.as_uri()},
            **fields,
        }
    )


def without_model(place: Place) -> str:
    job = json.loads(a_job(place))
    del job["model"]
    return json.dumps(job)


def test_prints_only_the_id_and_queues_one_ticket(place: Place) -> None:
    job_id = place.submit()
    assert request_of(place, job_id)["id"] == job_id
    with Redis.from_url(place.redis.url) as client:
        assert client.llen("overpaint.mini.standard") == 1


def test_every_option_reaches_the_job(place: Place) -> None:
    job_id = place.submit(
        *("--strength", "0.25", "--steps", "20", "--guidance-scale", "3.5", "--negative-prompt", "ugly"),
        *("--seed", "11", "--variants", "3", "--model", "mini", "--format", "webp", "--fit", "crop", "--size", "96"),
        *("--priority", "bulk", "--label", "order=1234", "--label", "note=a=b", "--previews"),
    )
    job = request_of(place, job_id)
    settled = Img2Img(
        prompt="a blue house", negative_prompt="ugly", strength=0.25, steps=20, guidance_scale=3.5, seed=11
    )
    assert job["passes"] == [settled.model_dump(mode="json", exclude_none=True)]
    assert (job["prepare"]["fit"], job["prepare"]["size"]) == ("crop", 96)
    assert (job["output"]["prefix"], job["output"]["format"]) == (f"{place.output.as_uri()}/", "webp")
    assert job["output"]["previews"] is True
    assert (job["seed"], job["variants"], job["priority"]) == (11, 3, "bulk")
    assert job["labels"] == {"order": "1234", "note": "a=b"}


def test_relative_paths_become_file_references(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.folder / "work").mkdir()
    monkeypatch.chdir(place.folder / "work")
    done = place.run("submit", "../in/house.png", "../out", "--prompt", "a blue house")
    assert done.exit_code == 0, done.output
    assert request_of(place, done.stdout.strip())["source"] == place.source.as_uri()


def test_json_output_is_one_object(place: Place) -> None:
    done = place.run("submit", str(place.source), str(place.output), "--prompt", "x", "--json")
    assert json.loads(done.stdout)["state"] == "queued"


def test_a_job_comes_whole_from_stdin_or_a_file(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(a_job(place, seed=5))
    for arguments, stdin in ((("--job", "-"), a_job(place, seed=5)), (("--job", str(file)), None)):
        done = place.run("submit", *arguments, stdin=stdin)
        assert done.exit_code == 0, done.output
        assert request_of(place, done.stdout.strip())["seed"] == 5


def test_a_whole_job_without_a_model_takes_the_only_one(place: Place) -> None:
    done = place.run("submit", "--job", "-", stdin=without_model(place))
    assert done.exit_code == 0, done.output
    assert request_of(place, done.stdout.strip())["model"] == "mini"


def test_with_two_models_served_one_has_to_be_named(place: Place) -> None:
    # Given a fleet with two models, when none is named, then the message says which there are and how to name one
    place.announce(alive=True)
    place.announce(alive=True, worker="other", model="sdxl")
    done = place.run("submit", str(place.source), str(place.output), "--prompt", "x")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error[unknown_model]: name a model with --model: the fleet has mini, sdxl\n"
    done = place.run("submit", "--job", "-", stdin=without_model(place))
    assert done.stderr == 'error[unknown_model]: name a model with "model" in the job: the fleet has mini, sdxl\n'
    assert place.submit("--model", "sdxl")


@pytest.mark.parametrize("body", ["", "[]", "[" * 20_000, '{"passes": 1}'])
def test_what_is_no_job_is_refused_as_such(place: Place, body: str) -> None:
    done = place.run("submit", "--job", "-", stdin=body)
    assert done.exit_code == 2
    assert done.stderr.startswith("error[invalid_job]: ")


def test_a_prompt_may_be_empty(place: Place) -> None:
    done = place.run("submit", str(place.source), str(place.output), "--prompt", "")
    assert done.exit_code == 0, done.output
    (only,) = request_of(place, done.stdout.strip())["passes"]
    assert only["prompt"] == ""


def test_from_python_places_may_be_paths(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)
    with place.producer(monkeypatch) as producer:
        job = producer.img2img(Path("in/house.png"), prompt="a blue house", output=Path("out"))
    request = request_of(place, job.id)
    assert request["source"] == place.source.as_uri()
    assert request["output"]["prefix"] == f"{place.output.as_uri()}/"


def test_the_same_key_gives_the_same_job_and_another_body_is_a_conflict(place: Place) -> None:
    first, again = place.submit("--key", "order-1"), place.submit("--key", "order-1")
    assert first == again
    done = place.run("submit", str(place.source), str(place.output), "--prompt", "a red house", "--key", "order-1")
    assert done.exit_code == 2
    assert done.stderr.startswith("error[idempotency_conflict]:")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--strength", "1.5"), "strength"),
        (("--strength", "0.01", "--steps", "10"), "use steps >= 100"),
        (("--steps", "0"), "steps"),
        (("--variants", "17"), "variants"),
        (("--model", "sdxl"), "the fleet has mini"),
        (("--size", "4096"), "at most 512"),
        (("--label", "order"), "NAME=VALUE"),
        (("--format", "gif"), "gif"),
        (("--negative-prompt", "x" * 100_000), "10000"),
        (("--job", "-"), "--job brings the whole job"),
    ],
)
def test_what_is_wrong_with_a_job_is_named(place: Place, arguments: tuple[str, ...], said: str) -> None:
    done = place.run("submit", str(place.source), str(place.output), "--prompt", "x", *arguments, stdin="{}")
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr) < 1000
    assert done.stdout == ""
    assert not (place.folder / "ledger" / "jobs").exists()


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        ("nowhere.png", "out", "there is no file 'nowhere.png'"),
        ("/", "out", "'/' is a folder; name one picture in it"),
        ("s3://photos/cat.jpg", "s3://pictures/", "error[forbidden_reference]:"),
        ("http://photos/cat.jpg", "s3://pictures/", "error[invalid_job]:"),
        ("s3://photos/", "s3://pictures/", "names a folder"),
    ],
)
def test_a_place_that_cannot_be_used_is_named(place: Place, source: str, output: str, said: str) -> None:
    done = place.run("submit", source, output, "--prompt", "x")
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_wrong_field_of_a_whole_job_is_named(place: Place) -> None:
    done = place.run("submit", "--job", "-", stdin=a_job(place, strenght=1))
    assert done.exit_code == 2
    assert "strenght: unknown field" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("a.png",), ("a.png", "out")])
def test_missing_arguments_are_asked_for(place: Place, arguments: tuple[str, ...]) -> None:
    assert place.run("submit", *arguments).exit_code == 2


def test_with_redis_down_the_job_is_accepted_and_its_id_printed(place: Place) -> None:
    done = place.run(
        *("submit", str(place.source), str(place.output), "--prompt", "x", "--model", "mini", "--key", "k"),
        OVERPAINT_REDIS_URL="redis://127.0.0.1:1/0",
    )
    assert done.exit_code == 0
    assert "accepted, but not queued yet: Redis did not answer" in done.stderr
    job_id = done.stdout.strip()
    assert request_of(place, job_id)["model"] == "mini"
    # Submitting again once Redis is back queues the same job.
    done = place.run("submit", str(place.source), str(place.output), "--prompt", "x", "--model", "mini", "--key", "k")
    assert (done.exit_code, done.stdout.strip()) == (0, job_id)


def test_with_storage_down_nothing_is_accepted(place: Place) -> None:
    done = place.run(
        *("submit", str(place.source), str(place.output), "--prompt", "x"),
        OVERPAINT_LEDGER="s3://my-ledger/",
        OVERPAINT_S3_ENDPOINT_URL="http://127.0.0.1:1",
        OVERPAINT_S3_MAX_ATTEMPTS="1",
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
    )
    assert done.exit_code == 3
    assert done.stderr.startswith("error[storage_unavailable]:")
    assert done.stdout == ""


def test_missing_settings_are_all_listed(place: Place) -> None:
    done = place.run(
        "submit",
        str(place.source),
        str(place.output),
        "--prompt",
        "x",
        OVERPAINT_LEDGER="",
        OVERPAINT_S3_MAX_ATTEMPTS="0",
    )
    assert done.exit_code == 2
    assert done.stderr.startswith("error[settings]: ")
    for name in ("OVERPAINT_LEDGER", "OVERPAINT_S3_MAX_ATTEMPTS"):
        assert name in done.stderr
