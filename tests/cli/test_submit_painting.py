"""`overpaint submit` and the Producer's methods: options and arguments become passes, contradictions are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from overpaint_common.errors import IdempotencyConflict, InvalidJob
from overpaint_common.fleet import ControlCard
from overpaint_common.presets import PRESETS
from overpaint_producer import Control, Img2Img, Inpaint, Lora, MatchColor, Producer, Upscale
from overpaint_producer.compose import PassLike
from tests.cli.conftest import Place

PAINTS = ("img2img", "inpaint", "match_color")


@pytest.fixture
def fleet(place: Place) -> Place:
    """A model that repaints, with a control network and a LoRA, and another that upscales."""
    place.announce(
        alive=True,
        operations=PAINTS,
        schedulers=("euler", "ddim"),
        controls=(ControlCard(name="canny", reads="edges"), ControlCard(name="pose", reads="picture")),
        loras=("ink",),
    )
    place.announce(alive=True, worker="other", model="upscaler", operations=("upscale", "match_color"))
    (place.source.parent / "mask.png").write_bytes(place.source.read_bytes())
    return place


@pytest.fixture
def producer(fleet: Place, monkeypatch: pytest.MonkeyPatch) -> Producer:
    return fleet.producer(monkeypatch)


def submitted(place: Place, *arguments: str) -> dict[str, Any]:
    """The one job of `overpaint submit SOURCE OUTPUT <arguments>`."""
    done = place.run("submit", str(place.source), str(place.output), *arguments)
    assert done.exit_code == 0, done.output
    (job,) = [job for job in place.requests() if job["id"] == done.stdout.strip()]
    return job


def test_a_mask_makes_it_an_inpaint(fleet: Place) -> None:
    """Given a mask as a file, when it is submitted with its options, then the pass holds them and a reference."""
    mask = fleet.source.parent / "mask.png"
    job = submitted(
        fleet, "-p", "a collar", "--mask", str(mask), "--feather", "4", "--invert-mask", "--only-masked",
        "--padding", "8", "--threshold", "0.5", "--exact-size",
    )  # fmt: skip
    (only,) = job["passes"]
    assert only["op"] == "inpaint"
    assert only["mask"] == mask.as_uri()
    assert (only["strength"], only["feather"], only["threshold"], only["padding"]) == (0.8, 4, 0.5, 8)
    assert only["invert"] is only["only_masked"] is True
    assert job["output"]["size"] == "source"
    assert job["model"] == "mini"


def test_parts_of_the_model_are_named_with_their_scales(fleet: Place) -> None:
    """Given LoRAs, controls and a scheduler, when they are submitted, then the pass holds each with its scale."""
    mask = fleet.source.parent / "mask.png"
    job = submitted(
        fleet, "-p", "x", "--lora", "ink:0.7", "--control", "canny:0.4", "--control", f"pose@{mask}",
        "--scheduler", "euler", "--enlarge", "2", "--fit", "bucket", "--fill", "#102030", "--reproducible",
    )  # fmt: skip
    (only,) = job["passes"]
    assert only["loras"] == [{"name": "ink", "scale": 0.7}]
    assert [(c["name"], c["scale"], c.get("image")) for c in only["controls"]] == [
        ("canny", 0.4, None),
        ("pose", 1, mask.as_uri()),
    ]
    assert (only["scheduler"], only["enlarge"]) == ("euler", 2)
    assert job["prepare"] == {"fit": "bucket", "fill": "#102030"}
    assert job["reproducible"] is True


@pytest.mark.parametrize("prompts", [["a cat"], ["rough", "finer", "finest"]])
def test_strengths_refine_pass_by_pass(fleet: Place, prompts: list[str]) -> None:
    """Given three strengths and one prompt or three, when they are submitted, then there is a pass for each, and no two
    of them draw the same noise."""
    given = [word for prompt in prompts for word in ("-p", prompt)]
    job = submitted(fleet, *given, "--strengths", "0.6,0.4,0.2", "--seed", "7", "--save-passes")
    assert [p["strength"] for p in job["passes"]] == [0.6, 0.4, 0.2]
    assert [p["prompt"] for p in job["passes"]] == (prompts if len(prompts) == 3 else prompts * 3)
    seeds = [p["seed"] for p in job["passes"]]
    assert seeds[0] == 7
    assert len(set(seeds)) == 3
    assert job["output"]["intermediates"] is True


def test_each_style_is_a_job_of_the_same_call(fleet: Place) -> None:
    """Given two styles and a key, when they are submitted twice, then each is one job that its label tells apart."""
    arguments = ("submit", str(fleet.source), str(fleet.output), "-p", "a cat", "--style", "oils", "--style", "ink")
    first = fleet.run(*arguments, "--key", "cats")
    again = fleet.run(*arguments, "--key", "cats")
    assert first.exit_code == 0, first.output
    ids = first.stdout.split()
    assert again.stdout.split() == ids
    jobs = {job["id"]: job for job in fleet.requests()}
    assert set(jobs) == set(ids)
    assert [jobs[i]["passes"][0]["prompt"] for i in ids] == ["a cat, oils", "a cat, ink"]
    assert [jobs[i]["labels"] for i in ids] == [{"style": "0"}, {"style": "1"}]


def test_json_names_the_style_of_each_job(fleet: Place) -> None:
    """Given a style twice, when it is submitted for a program, then the two are told apart."""
    done = fleet.run("submit", str(fleet.source), str(fleet.output), "--style", "ink", "--style", "ink", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["style"] for line in lines] == ["ink (0)", "ink (1)"]
    assert len({line["id"] for line in lines}) == 2


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"staged"}))
def test_a_preset_makes_its_passes(fleet: Place, name: str) -> None:
    """Given a preset, when it is submitted, then its passes, variants and preparation are the job's."""
    chosen = PRESETS[name]
    needs = ("--mask", str(fleet.source.parent / "mask.png")) if chosen.needs else ()
    job = submitted(fleet, "-p", "a cat", "--preset", name, *needs)
    for given, step in zip(job["passes"], chosen.steps, strict=True):
        assert {field: given.get(field, step[field]) for field in step} == dict(step)
    assert job["variants"] == chosen.variants
    assert job["prepare"] == chosen.prepare.model_dump(exclude_none=True)
    assert job["model"] == ("upscaler" if name == "upscale" else "mini")


def test_options_beside_a_preset_count_instead(fleet: Place) -> None:
    """Given a preset of one pass, when strength, variants and fit stand beside it, then they are taken."""
    job = submitted(fleet, "-p", "x", "--preset", "variations", "-s", "0.7", "--variants", "2", "--fit", "crop")
    assert (job["passes"][0]["strength"], job["variants"], job["prepare"]) == (0.7, 2, {"fit": "crop", "fill": "edge"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--preset", "none-such"), "'none-such' is not one of 'light'"),
        (("--preset", "local-edit"), "preset 'local-edit' needs mask"),
        (("--preset", "light", "--strengths", "0.5,0.3"), "--preset has passes of its own: leave out --strengths"),
        (("--preset", "progressive", "-s", "0.4"), "3 painting passes, which cannot share one strength"),
        (("--preset", "staged", "-p", "two"), "paints 3 times and was given 2 prompts"),
        (("--mask", "nowhere.png"), "there is no file 'nowhere.png' for the mask"),
        (("--control", "pose@nowhere.png"), "there is no file 'nowhere.png' for the control"),
        (("--control", "pose"), "control 'pose' reads a picture that no worker can compute; give image"),
        (("--control", "depth"), "has no control 'depth'; it has canny, pose"),
        (("--control", "canny:much"), "'much' is no scale; write NAME:0.8"),
        (("--lora", "oils"), "has no LoRA 'oils'; it has ink"),
        (("--scheduler", "lms"), "has no scheduler 'lms'; it has euler, ddim"),
        (("--invert-mask",), "--invert-mask is of no use without --mask"),
        (("--feather", "2"), "--feather is of no use without --mask"),
        (("--mask", "s3://photos/mask.png", "--enlarge", "2"), "--enlarge is of no use with --mask"),
        (("--strengths", "0.5,0.3", "-s", "0.4"), "--strengths gives the strengths: leave out --strength"),
        (("--strengths", "0.5,0.3,0.2", "-p", "two"), "3 strengths and 2 prompts"),
        (("--strengths", "0.5;0.3"), "'0.5;0.3' is no list of numbers"),
        (("--strengths", "0.5,1.5"), "passes.1.img2img.strength"),
        (("-p", "two"), "several --prompt are for several passes"),
        (("--fill", "red"), "prepare.fill"),
    ],
)
def test_what_contradicts_itself_is_named(fleet: Place, arguments: tuple[str, ...], said: str) -> None:
    """Given options that do not go together, when they are submitted, then the message names them; no job is."""
    done = fleet.run("submit", str(fleet.source), str(fleet.output), "-p", "x", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert (done.stdout, fleet.requests()) == ("", [])


def test_a_chain_finds_the_model_of_each_pass(fleet: Place, producer: Producer) -> None:
    """Given passes that two models serve, when no model is named, then each pass runs on the one that serves it."""
    passes: list[PassLike] = [
        Img2Img(prompt="a", seed=3, loras=(Lora(name="ink"),), controls=(Control(name="canny"),)),
        {"op": "inpaint", "mask": fleet.source.parent / "mask.png", "prompt": "b", "strength": 0.4},
        MatchColor(),
        Upscale(prompt="c", steps=5),
    ]
    with producer:
        producer.repaint(fleet.source, passes, output=fleet.output, intermediates=True, labels={"order": "7"})
    (job,) = fleet.requests()
    assert job["model"] == "mini"
    assert [p.get("model") for p in job["passes"]] == [None, None, None, "upscaler"]
    assert [p.get("seed") is None for p in job["passes"]] == [False, False, True, False]
    assert job["passes"][0]["seed"] == 3
    assert job["passes"][1]["mask"] == (fleet.source.parent / "mask.png").as_uri()
    assert (job["labels"], job["output"]["intermediates"]) == ({"order": "7"}, True)


def test_from_python_a_part_is_repainted(fleet: Place, producer: Producer) -> None:
    """Given a mask's path, when `inpaint` is called, then it is the job that the same pass would be."""
    mask = fleet.source.parent / "mask.png"
    with producer:
        producer.inpaint(fleet.source, mask, prompt="x", output=fleet.output, feather=2, size="source", seed=5)
    (request,) = fleet.requests()
    settled = Inpaint(mask=mask.as_uri(), prompt="x", feather=2, strength=0.8, steps=40, guidance_scale=4, seed=5)
    assert request["passes"] == [settled.model_dump(mode="json", exclude_none=True)]
    assert request["output"]["size"] == "source"


def test_from_python_a_picture_is_refined(fleet: Place, producer: Producer) -> None:
    """Given strengths and a prompt for each, when `refine` is called, then one job holds a pass for each."""
    with producer:
        producer.refine(fleet.source, prompt=["a", "b"], strengths=(0.5, 0.3), output=fleet.output, steps=20)
        with pytest.raises(InvalidJob, match="3 strengths and 2 prompts"):
            producer.refine(fleet.source, prompt=["a", "b"], output=fleet.output)
        with pytest.raises(InvalidJob, match="0 strengths"):
            producer.refine(fleet.source, prompt="a", strengths=(), output=fleet.output)
    (job,) = fleet.requests()
    assert [(p["prompt"], p["strength"], p["steps"]) for p in job["passes"]] == [("a", 0.5, 20), ("b", 0.3, 20)]


def test_from_python_one_source_takes_many_styles(fleet: Place, producer: Producer) -> None:
    """Given named styles and a key, when `restyle` is called twice, then the same jobs come in the styles' order; with
    other words under the key it is a conflict."""
    styles = {"night": "at night, neon", "paper": "pencil on paper"}
    with producer:
        first = producer.restyle(fleet.source, styles, prompt="a cat", output=fleet.output, seed=1, idempotency_key="k")
        again = producer.restyle(fleet.source, styles, prompt="a cat", output=fleet.output, seed=1, idempotency_key="k")
        with pytest.raises(IdempotencyConflict):
            producer.restyle(fleet.source, styles, prompt="a dog", output=fleet.output, seed=1, idempotency_key="k")
    assert [handle.id for handle in first] == [handle.id for handle in again]
    jobs = {job["id"]: job for job in fleet.requests()}
    shown = [(jobs[handle.id]["labels"]["style"], jobs[handle.id]["passes"][0]["prompt"]) for handle in first]
    assert shown == [("night", "a cat, at night, neon"), ("paper", "a cat, pencil on paper")]


def test_a_relative_mask_is_found_from_here(fleet: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a mask beside the caller, when it is named by its file, then the reference is whole."""
    monkeypatch.chdir(fleet.source.parent)
    job = submitted(fleet, "-p", "x", "--mask", "mask.png")
    assert job["passes"][0]["mask"] == (Path.cwd() / "mask.png").as_uri()
