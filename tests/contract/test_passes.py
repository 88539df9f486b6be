"""The contract of the passes: bounds, defaults, digests, and what settling refuses."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from overpaint_common.errors import ForbiddenReference, InvalidJob, NotServed, StrengthTooSmall
from overpaint_common.fleet import (
    ControlCard,
    ModelCard,
    model_of,
    models_of,
    running_steps,
    settle,
    total_steps,
)
from overpaint_common.job import Job
from overpaint_common.passes import OPERATIONS, Control, Diffusion, Edit, Img2Img, Inpaint, Lora, MatchColor, Upscale

MASK = "s3://photos/mask.png"
MINIMAL: dict[str, dict[str, Any]] = {
    "img2img": {"op": "img2img"},
    "inpaint": {"op": "inpaint", "mask": MASK},
    "upscale": {"op": "upscale"},
    "edit": {"op": "edit"},
    "match_color": {"op": "match_color"},
}


def job(*passes: dict[str, Any], **changes: Any) -> Job:
    body: dict[str, Any] = {
        "id": "job-number-1",
        "source": "s3://photos/cat.jpg",
        "model": "sd15",
        "passes": list(passes) or [MINIMAL["img2img"]],
        "output": {"prefix": "s3://pictures/cats"},
    }
    return Job.parse(json.dumps(body | changes))


def card(name: str = "sd15", **changes: Any) -> ModelCard:
    known: dict[str, Any] = {
        "name": name,
        "operations": ("img2img", "inpaint", "match_color"),
        "schedulers": ("euler", "heun"),
        "controls": (ControlCard(name="canny", reads="edges"), ControlCard(name="pose", reads="picture")),
        "loras": ("oil",),
        "family": "stable-diffusion",
        "steps_rule": "floor",
        "native_size": 512,
        "default_steps": 50,
        "default_guidance_scale": 7.5,
        "max_steps": 100,
        "max_size": 1024,
        "revision": "local",
        "reads": ("s3://photos/",),
        "writes": ("s3://pictures/",),
    }
    return ModelCard(**known | changes)


def settled(*passes: dict[str, Any], cards: tuple[ModelCard, ...] = (), **changes: Any) -> Job:
    return settle(job(*passes, **changes), {each.name: each for each in (card(), *cards)})


UPSCALER = card("x4", operations=("upscale", "match_color"), default_steps=20, default_guidance_scale=1.0)
EDITOR = card("instruct", operations=("edit", "match_color"), default_steps=30, steps_rule="ceil")


def test_every_operation_is_told_apart_by_its_op() -> None:
    """Given the smallest body of each operation, when it is read, then it is that operation with its defaults."""
    read = [p for body in MINIMAL.values() for p in job(body).passes]

    assert tuple(MINIMAL) == OPERATIONS
    assert read == [Img2Img(), Inpaint(mask=MASK), Upscale(), Edit(), MatchColor()]


def test_the_defaults() -> None:
    """Given passes without settings, when they are read, then these are the settings that the guide promises."""
    assert Img2Img().model_dump() == {
        "op": "img2img",
        **{"prompt": "", "negative_prompt": "", "steps": None, "guidance_scale": None, "seed": None},
        **{"model": None, "scheduler": None, "loras": (), "strength": 0.5, "enlarge": 1.0, "controls": ()},
    }
    inpaint = Inpaint(mask=MASK)
    assert (inpaint.strength, inpaint.invert, inpaint.threshold, inpaint.feather) == (0.8, False, None, 0.0)
    assert (inpaint.only_masked, inpaint.padding) == (False, 32)
    assert Upscale().noise_level == 20
    assert Edit().image_guidance_scale is None
    assert (MatchColor().method, MatchColor().amount) == ("lab", 1.0)
    control = Control(name="canny")
    assert (control.image, control.scale, control.start, control.end) == (None, 1.0, 0.0, 1.0)
    assert (control.low, control.high) == (0.1, 0.2)
    assert Lora(name="oil").scale == 1.0
    bare = job()
    assert (bare.reproducible, bare.prepare.fill, bare.output.size, bare.output.intermediates) == (
        *(False, "edge", "model", False),
    )


IN_BOUNDS: list[dict[str, Any]] = [
    {"op": "img2img", "strength": 0},
    {"op": "img2img", "strength": 1, "enlarge": 4, "guidance_scale": 0},
    {"op": "img2img", "loras": [{"name": "oil", "scale": -4}] * 8},
    {"op": "img2img", "controls": [{"name": "canny", "scale": 2, "start": 0.0, "end": 0.01}] * 4},
    {"op": "img2img", "controls": [{"name": "canny", "low": 0.5, "high": 0.5}]},
    {"op": "inpaint", "mask": MASK, "threshold": 1, "feather": 1024, "padding": 0},
    {"op": "upscale", "noise_level": 0},
    {"op": "upscale", "noise_level": 1000},
    {"op": "edit", "image_guidance_scale": 1},
    {"op": "match_color", "method": "wavelet", "amount": 0},
]


@pytest.mark.parametrize("body", IN_BOUNDS, ids=[str(i) for i in range(len(IN_BOUNDS))])
def test_the_bounds_themselves_are_allowed(body: dict[str, Any]) -> None:
    assert Job.parse(job(body).model_dump_json()).passes == job(body).passes


OUT_OF_BOUNDS: list[tuple[dict[str, Any], str]] = [
    ({"op": "img2img", "strength": 1.01}, "strength: .* less than or equal to 1"),
    ({"op": "img2img", "strength": -0.1}, "strength: .* greater than or equal to 0"),
    ({"op": "img2img", "enlarge": 0.5}, "enlarge: .* greater than or equal to 1"),
    ({"op": "img2img", "enlarge": 5}, "enlarge: .* less than or equal to 4"),
    ({"op": "img2img", "guidance_scale": 101}, "guidance_scale"),
    ({"op": "img2img", "seed": 2**53}, "seed"),
    ({"op": "img2img", "steps": 0}, "steps"),
    ({"op": "img2img", "model": "org/repository"}, "model"),
    ({"op": "img2img", "scheduler": "dpm++"}, "scheduler: .*'euler_a'"),
    ({"op": "img2img", "mask": MASK}, "mask: unknown field"),
    ({"op": "img2img", "loras": [{"name": "oil", "scale": 5}]}, r"loras\.0\.scale"),
    ({"op": "img2img", "loras": [{"name": "oil"}] * 9}, "loras: .* at most 8"),
    ({"op": "img2img", "loras": [{"name": "../oil"}]}, r"loras\.0\.name"),
    ({"op": "img2img", "controls": [{"name": "canny"}] * 5}, "controls: .* at most 4"),
    ({"op": "img2img", "controls": [{"name": "canny", "scale": 2.1}]}, r"controls\.0\.scale"),
    ({"op": "img2img", "controls": [{"name": "canny", "start": 0.5, "end": 0.5}]}, "start 0.5 must be below end 0.5"),
    ({"op": "img2img", "controls": [{"name": "canny", "low": 0.4, "high": 0.3}]}, "low 0.4 must not be above high 0.3"),
    ({"op": "img2img", "controls": [{"name": "canny", "low": 0}]}, r"controls\.0\.low"),
    ({"op": "img2img", "controls": [{"name": "canny", "image": "https://x/y"}]}, r"controls\.0\.image: reference"),
    ({"op": "inpaint"}, "mask: required"),
    ({"op": "inpaint", "mask": "mask.png"}, "mask: reference 'mask.png'"),
    ({"op": "inpaint", "mask": MASK, "threshold": 0}, "threshold: .* greater than 0"),
    ({"op": "inpaint", "mask": MASK, "feather": -1}, "feather"),
    ({"op": "inpaint", "mask": MASK, "padding": 1025}, "padding: .* less than or equal to 1024"),
    ({"op": "upscale", "noise_level": 1001}, "noise_level: .* less than or equal to 1000"),
    ({"op": "upscale", "strength": 0.5}, "strength: unknown field"),
    ({"op": "edit", "image_guidance_scale": 0.9}, "image_guidance_scale: .* greater than or equal to 1"),
    ({"op": "edit", "controls": []}, "controls: unknown field"),
    ({"op": "match_color", "method": "magic"}, "method: .*'lab', 'histogram' or 'wavelet'"),
    ({"op": "match_color", "amount": 1.1}, "amount"),
    ({"op": "match_color", "prompt": "x"}, "prompt: unknown field"),
]


@pytest.mark.parametrize(("body", "says"), OUT_OF_BOUNDS, ids=[str(i) for i in range(len(OUT_OF_BOUNDS))])
def test_what_a_pass_may_not_say(body: dict[str, Any], says: str) -> None:
    """Given a value beyond its bounds, when the job is read, then the error names the pass, its field and the bound."""
    with pytest.raises(InvalidJob, match=rf"^passes\.0\.{body['op']}\b.*{says}"):
        job(body)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prepare": {"fill": "black"}}, "fill"),
        ({"prepare": {"fill": "#12345"}}, "fill"),
        ({"output": {"prefix": "s3://pictures/x", "size": "huge"}}, "size: .*'model' or 'source'"),
        ({"output": {"prefix": "s3://pictures/x", "intermediates": "all"}}, "intermediates"),
        ({"reproducible": "very"}, "reproducible"),
    ],
)
def test_what_the_new_fields_of_a_job_may_not_say(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        job(**changes)


@pytest.mark.parametrize("op", OPERATIONS)
def test_defaults_written_out_change_no_digest(op: str) -> None:
    """Given a pass with every default written out, when the job is digested, then it is as if they were left out."""
    (bare,) = job(MINIMAL[op]).passes
    written = json.loads(bare.model_dump_json())

    assert job(written).digest() == job(MINIMAL[op]).digest()


def test_job_defaults_written_out_change_no_digest() -> None:
    written = job(
        reproducible=False,
        prepare={"fit": "pad", "size": None, "fill": "edge"},
        output={"prefix": "s3://pictures/cats", "size": "model", "intermediates": False, "previews": False},
    )

    assert written.digest() == job().digest()


def test_the_digest_is_that_of_what_was_given_and_of_nothing_else() -> None:
    """Given a job with a few fields, when it is digested, then it is the sha256 of those, however many there are."""
    body = {
        "source": "s3://photos/cat.jpg",
        "model": "sd15",
        "passes": [{"op": "img2img", "prompt": "oil", "strength": 0.3}],
        "output": {"prefix": "s3://pictures/cats/"},
    }
    expected = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    assert job({"op": "img2img", "prompt": "oil", "strength": 0.3}).digest() == expected


def test_the_same_fields_under_another_op_are_another_job() -> None:
    digests = {job({"op": op, "prompt": "x", "steps": 5}).digest() for op in ("img2img", "upscale", "edit")}
    digests.add(job({"op": "inpaint", "mask": MASK, "prompt": "x", "steps": 5}).digest())

    assert len(digests) == 4


@pytest.mark.parametrize(
    "body",
    [
        {"op": "img2img", "enlarge": 2},
        {"op": "img2img", "model": "other"},
        {"op": "img2img", "scheduler": "euler"},
        {"op": "img2img", "loras": [{"name": "oil"}]},
        {"op": "img2img", "controls": [{"name": "canny"}]},
    ],
)
def test_a_new_field_given_changes_the_digest(body: dict[str, Any]) -> None:
    assert job(body).digest() != job().digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"reproducible": True},
        {"prepare": {"fill": "reflect"}},
        {"output": {"prefix": "s3://pictures/cats", "previews": True}},
    ],
)
def test_a_new_field_of_the_job_given_changes_the_digest(changes: dict[str, Any]) -> None:
    assert job(**changes).digest() != job().digest()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"op": "upscale"}, "pass 0 asks for 'upscale', which is not served .* serves img2img, inpaint, match_color"),
        ({"op": "edit"}, "pass 0 asks for 'edit'"),
        ({"op": "img2img", "scheduler": "lms"}, "pass 0: model 'sd15' has no scheduler 'lms'; it has euler, heun"),
        ({"op": "img2img", "loras": [{"name": "ink"}]}, "pass 0: model 'sd15' has no LoRA 'ink'; it has oil"),
        ({"op": "img2img", "controls": [{"name": "depth"}]}, "model 'sd15' has no control 'depth'; it has canny, pose"),
        ({"op": "img2img", "controls": [{"name": "pose"}]}, "control 'pose' reads a picture .*; give image"),
        ({"op": "inpaint", "mask": MASK, "steps": 101}, "pass 0: steps 101: model 'sd15' takes at most 100"),
    ],
)
def test_what_the_model_does_not_serve_is_refused(body: dict[str, Any], says: str) -> None:
    """Given a valid pass beyond the model's card, when the job is settled, then the error says what there is."""
    with pytest.raises(NotServed, match=says):
        settled(body)


def test_a_stage_is_held_against_the_card_of_its_own_model() -> None:
    """Given a second stage on another model, when that has no such LoRA, operation or steps, then it is named."""
    first = {"op": "img2img", "loras": [{"name": "oil"}]}
    bare = card("bare", loras=(), schedulers=(), controls=(), max_steps=10)

    with pytest.raises(NotServed, match="pass 1: model 'bare' has no LoRA 'oil'; it has none"):
        settled(first, {**first, "model": "bare"}, cards=(bare,))
    with pytest.raises(NotServed, match=r"pass 1 asks for 'img2img', .* model 'x4' serves upscale, match_color"):
        settled(first, {"op": "img2img", "model": "x4"}, cards=(UPSCALER,))
    with pytest.raises(NotServed, match="pass 1: steps 50: model 'bare' takes at most 10"):
        settled(first, {"op": "img2img", "model": "bare"}, cards=(bare,))


@pytest.mark.parametrize(
    ("body", "field", "uri"),
    [
        ({"op": "inpaint", "mask": "s3://elsewhere/m.png"}, "passes.1.mask", "s3://elsewhere/m.png"),
        (
            {"op": "img2img", "controls": [{"name": "canny"}, {"name": "pose", "image": "s3://elsewhere/p.png"}]},
            "passes.1.controls.1.image",
            "s3://elsewhere/p.png",
        ),
    ],
)
def test_a_picture_outside_the_allowlist_is_named_by_its_field(body: dict[str, Any], field: str, uri: str) -> None:
    """Given a mask or a control picture elsewhere, when the job is settled, then its field and remedy are named."""
    with pytest.raises(ForbiddenReference, match=f"^{field} {uri} is outside .* OVERPAINT_READ"):
        settled(MINIMAL["img2img"], body)


def test_all_that_a_job_reads_is_listed_by_field() -> None:
    body = {"op": "img2img", "controls": [{"name": "canny"}, {"name": "pose", "image": "s3://photos/pose.png"}]}

    assert job(body, MINIMAL["match_color"], MINIMAL["inpaint"]).pictures == {
        "source": "s3://photos/cat.jpg",
        "passes.0.controls.1.image": "s3://photos/pose.png",
        "passes.2.mask": MASK,
    }


CHAIN: tuple[dict[str, Any], ...] = (
    {"op": "img2img", "strength": 0.5},
    {"op": "inpaint", "mask": MASK, "strength": 0.25, "steps": 10},
    {"op": "match_color"},
    {"op": "upscale", "model": "x4"},
    {"op": "edit", "model": "instruct", "seed": 3},
    {"op": "img2img", "strength": 0},
)


def test_settling_a_chain_fills_each_pass_from_its_own_models_card_and_is_final() -> None:
    """Given six passes on three models, when settled, then all that was open is its model's, once and for all."""
    first = settled(*CHAIN, cards=(UPSCALER, EDITOR), seed=40)

    diffusions = [p for p in first.passes if isinstance(p, Diffusion)]
    assert [(p.steps, p.guidance_scale) for p in diffusions] == [(50, 7.5), (10, 7.5), (20, 1.0), (30, 7.5), (50, 7.5)]
    seeds = [p.seed for p in diffusions]
    assert seeds[0] == 40
    assert seeds[3] == 3
    assert None not in seeds
    assert len(set(seeds)) == 5
    assert first.passes[2] == MatchColor()
    cards = {each.name: each for each in (card(), UPSCALER, EDITOR)}
    assert settle(first, cards) == first
    assert settle(Job.parse(first.model_dump_json()), cards) == first


def test_a_chain_with_one_card_unknown_settles_the_rest() -> None:
    """Given no card of the second model yet, when settled, then its passes stay open and are settled later."""
    known = settled(*CHAIN[:2], CHAIN[4])
    (first, _, last) = known.passes

    assert isinstance(first, Img2Img)
    assert isinstance(last, Edit)
    assert (first.steps, last.steps) == (50, None)
    later = settle(known, {each.name: each for each in (card(), EDITOR)})
    assert later == settled(*CHAIN[:2], CHAIN[4], cards=(EDITOR,))


def test_the_steps_of_a_chain_add_up() -> None:
    """Given passes with and without strength, when counted, then upscale and edit run all steps, the others a share."""
    cards = {each.name: each for each in (card(), UPSCALER, EDITOR)}
    chain = settled(*CHAIN, cards=(UPSCALER, EDITOR), variants=3)

    each = [running_steps(p, cards[model_of(p, chain)]) for p in chain.passes]

    assert each == [25, 2, 0, 20, 30, 0]
    assert total_steps(chain, cards) == 3 * 77
    with pytest.raises(KeyError):
        total_steps(chain, {"sd15": cards["sd15"]})


def test_a_mask_needs_a_strength_that_leaves_a_step() -> None:
    with pytest.raises(StrengthTooSmall, match=r"^pass 0: strength 0\.1 of 5 steps .* use steps >= 10"):
        settled({"op": "inpaint", "mask": MASK, "strength": 0.1, "steps": 5})


def test_the_models_of_a_job_are_in_the_order_of_their_first_pass() -> None:
    """Given stages that come back to models, when these are listed, then each once, the job's own first."""
    chain = job(
        {"op": "upscale", "model": "x4"},
        {"op": "match_color"},
        {"op": "img2img"},
        {"op": "edit", "model": "instruct"},
        {"op": "upscale", "model": "x4"},
        {"op": "img2img", "model": "sd15"},
    )

    assert models_of(chain) == ("sd15", "x4", "instruct")
    assert [model_of(p, chain) for p in chain.passes] == ["x4", "sd15", "sd15", "instruct", "x4", "sd15"]
    assert models_of(job()) == ("sd15",)
