"""Instruction models: what the engine paints is what diffusers paints, and what is no such model is refused."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from overpaint_common.errors import JobCancelled, ModelLoadFailed, NotServed, PipelineFailed
from overpaint_common.fleet import total_steps
from overpaint_common.passes import Edit
from overpaint_common.result import ModelInfo
from overpaint_common.schedulers import SchedulerName
from overpaint_worker.engine.arguments import arguments_of
from overpaint_worker.engine.calls import Call
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.registry import ModelSpec, Registry
from overpaint_worker.engine.vetting import EDITORS, named_class
from tests.engine.conftest import EDITORS as MODELS
from tests.engine.conftest import Models
from tests.engine.direct import call, noise_picture
from tests.engine.test_operations import Progress, card, run, settled

TOLERANCE = 1e-4
GUIDED_BY_PICTURE = ("instruct", "sdxl-instruct")


def edit(model: str, picture: Image.Image | None = None, **changes: Any) -> Call:
    return call(model, picture or noise_picture(64, 64), op="edit", prompt="make it winter", **changes)


def direct(models: Models, model: str, picture: Image.Image, **changes: Any) -> NDArray[np.float32]:
    """What diffusers paints of the same call, told to keep the picture's size where it would choose one."""
    arguments: dict[str, Any] = {"num_inference_steps": 5, "guidance_scale": 4.0, **changes}
    if model in ("sdxl-instruct", "kontext", "flux2"):
        arguments |= {"width": picture.width, "height": picture.height}
    if model == "kontext":
        arguments |= {"max_area": picture.width * picture.height, "_auto_resize": False}
    return models.direct(model)(picture, seed=7, prompt="make it winter", **arguments)


def painted(engine: Engine, asked: Call) -> NDArray[np.float32]:
    return engine.submit(asked).result(60).pixels


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize("name", MODELS)
def test_every_family_with_and_without_guidance(
    engine: Engine, models: Models, name: str, guidance_scale: float
) -> None:
    picture = noise_picture(96, 64)

    ours = painted(engine, edit(name, picture, guidance_scale=guidance_scale))

    theirs = direct(models, name, picture, guidance_scale=guidance_scale)
    assert ours.shape == theirs.shape == (64, 96, 3)
    assert np.abs(ours - theirs).max() <= TOLERANCE


@pytest.mark.parametrize("image_guidance_scale", [None, 1.0, 3.0])
@pytest.mark.parametrize("name", GUIDED_BY_PICTURE)
def test_guidance_by_the_picture(engine: Engine, models: Models, name: str, image_guidance_scale: float | None) -> None:
    """Given an image guidance scale, or none, when it edits, then it is the direct call with it, or with 1.5."""
    ours = painted(engine, edit(name, image_guidance_scale=image_guidance_scale, negative_prompt="a house"))

    scale = 1.5 if image_guidance_scale is None else image_guidance_scale
    theirs = direct(models, name, noise_picture(), image_guidance_scale=scale, negative_prompt="a house")
    assert np.abs(ours - theirs).max() <= TOLERANCE


def test_the_instruction_both_scales_and_the_picture_count(engine: Engine) -> None:
    base = painted(engine, edit("instruct"))
    changed = [
        call("instruct", op="edit", prompt="a green tree"),
        edit("instruct", guidance_scale=9.0),
        edit("instruct", image_guidance_scale=4.0),
        edit("instruct", noise_picture(seed=5)),
        edit("instruct", seed=8),
    ]

    assert all(np.abs(painted(engine, other) - base).max() > 0.001 for other in changed)


@pytest.mark.parametrize(("name", "multiple"), [("instruct", 8), ("sdxl-instruct", 8), ("kontext", 16), ("flux2", 16)])
def test_other_sizes_come_back_at_their_own_size(engine: Engine, models: Models, name: str, multiple: int) -> None:
    """Given sides that the model cannot have, when it edits, then border pixels go on and are cut off again."""
    picture = noise_picture(70, 91)
    across, down = -70 % multiple, -91 % multiple
    widened = Image.fromarray(np.pad(np.asarray(picture), ((0, down), (0, across), (0, 0)), mode="edge"))

    ours = painted(engine, edit(name, picture))

    assert ours.shape == (91, 70, 3)
    assert np.abs(ours - direct(models, name, widened)[:91, :70]).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "guidance_scale", "rows"),
    [
        ("instruct", 4.0, 3),
        ("instruct", 1.0, 1),
        ("sdxl-instruct", 4.0, 3),
        ("sdxl-instruct", 1.0, 1),
        ("kontext", 4.0, 1),
        # Guided by a second forward of one row.
        ("flux2", 4.0, 1),
    ],
)
def test_the_rows_are_those_that_a_forward_held(engine: Engine, name: str, guidance_scale: float, rows: int) -> None:
    assert engine.submit(edit(name, guidance_scale=guidance_scale, steps=2)).result(60).rows == rows


@pytest.mark.parametrize("scheduler", [None, "heun", "dpm2_a", "pndm", "lms"])
@pytest.mark.parametrize("name", GUIDED_BY_PICTURE)
def test_progress_is_told_once_for_each_step(
    engine: Engine, models: Models, name: str, scheduler: SchedulerName | None
) -> None:
    """Given a pipeline that tells in the new way or the old, when it edits, then progress ends at the total."""
    job = settled(name, models, Edit(prompt="make it winter", steps=4), variants=2)
    job = job.model_copy(update={"passes": tuple(p.model_copy(update={"scheduler": scheduler}) for p in job.passes)})
    progress = Progress()

    (first, _) = run(job, models, engine, progress).variants

    assert progress.totals[-1] == total_steps(job, {name: card(name, models)}) == 8
    assert sorted(set(progress.totals)) == list(range(9))
    (ran,) = first.runs
    assert (ran.op, ran.steps, ran.effective_steps, ran.start_step, ran.passthrough) == ("edit", 4, 4, 0, False)
    assert first.picture.size == (64, 64)


@pytest.mark.parametrize("name", MODELS)
def test_a_cancelled_edit_stops_at_its_step_and_changes_nothing_after_it(engine: Engine, name: str) -> None:
    before = painted(engine, edit(name))
    seen: list[int] = []

    def on_progress(phase: str, steps: int) -> None:
        seen.append(steps)
        if phase == "denoise" and steps == 2:
            given.cancelled.set()

    given = edit(name, on_progress=on_progress)
    with pytest.raises(JobCancelled, match="cancelled at step 2"):
        engine.submit(given).result(60)

    assert seen[-1] == 2
    assert np.array_equal(painted(engine, edit(name)), before)


@pytest.mark.parametrize("name", MODELS)
def test_an_edit_beside_one_of_another_size_paints_what_it_paints_alone(engine: Engine, name: str) -> None:
    urgent = edit(name, noise_picture(80, 64, seed=3), priority="interactive", seed=3, steps=2)
    alone = engine.submit(edit(name, guidance_scale=1.0)).result(60)
    urgent_alone = engine.submit(urgent).result(60)
    joining: list[Any] = []

    def on_progress(phase: str, steps: int) -> None:
        if phase == "denoise" and steps == 2 and not joining:
            joining.append(engine.submit(urgent))

    joined = engine.submit(edit(name, guidance_scale=1.0, on_progress=on_progress)).result(60)

    assert np.array_equal(joined.pixels, alone.pixels)
    assert np.array_equal(joining[0].result(60).pixels, urgent_alone.pixels)
    assert (joined.rows, joining[0].result(0).rows) == (alone.rows, urgent_alone.rows)


@pytest.mark.parametrize("negative_prompt", ["", "a house"])
@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("name", EDITORS)
def test_every_editors_call_takes_what_it_is_given(name: str, guidance_scale: float, negative_prompt: str) -> None:
    """Given each class that may be served, when its arguments are made, then its signature binds them all."""
    pipeline = getattr(diffusers, name)
    parameters = inspect.signature(pipeline.__call__).parameters
    asked = edit("m", guidance_scale=guidance_scale, negative_prompt=negative_prompt, image_guidance_scale=2.0)

    arguments, warnings = arguments_of(asked, parameters, 16, name)

    inspect.signature(pipeline.__call__).bind(None, **arguments, generator=None, output_type="np")
    assert guidance_scale in (arguments.get("guidance_scale"), arguments.get("true_cfg_scale"))
    assert (arguments.get("negative_prompt") == "a house") is bool(negative_prompt and not warnings)
    if "width" in parameters:
        assert (arguments["width"], arguments["height"]) == (64, 64)


@pytest.mark.parametrize("name", ["QwenImageEditPipeline", "QwenImageEditPlusPipeline", "QwenImageImg2ImgPipeline"])
def test_qwen_is_guided_without_a_negative_prompt_too(name: str) -> None:
    # Its pipelines leave guidance out, whatever the scale, unless they are given a negative prompt.
    parameters = inspect.signature(getattr(diffusers, name).__call__).parameters

    guided, _ = arguments_of(edit("m", guidance_scale=4.0), parameters, 16, name)
    unguided, _ = arguments_of(edit("m", guidance_scale=1.0), parameters, 16, name)

    assert (guided["true_cfg_scale"], guided["negative_prompt"]) == (4.0, " ")
    assert "negative_prompt" not in unguided


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("FluxKontextInpaintPipeline", "it wants mask_image, strength"),
        ("QwenImageEditInpaintPipeline", "it wants mask_image, strength"),
        ("LongCatImageEditPipeline", "it takes no callback_on_step_end"),
        ("OmniGenPipeline", "it takes no image"),
        ("JoyImageEditPlusPipeline", "it takes no image"),
        ("ChronoEditPipeline", "it wants num_frames"),
        # These paint at sizes of their own, or read the picture as a control.
        ("JoyImageEditPipeline", "it is none of StableDiffusionInstructPix2PixPipeline, "),
        ("Kandinsky5I2IPipeline", "it is none of "),
        ("StableDiffusionControlNetPipeline", "it is none of "),
        ("SanaImageToVideoPipeline", "it is none of "),
    ],
)
def test_what_follows_no_instruction_at_the_pictures_size_is_refused(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is no pipeline that Overpaint can serve for task 'edit': {says}"):
        named_class(name, "edit")


def test_a_model_for_repainting_is_no_editor(models: Models) -> None:
    registry = Registry(models={"m": ModelSpec(path=models.folder("sd"), task="edit")})

    with pytest.raises(ModelLoadFailed, match="for task 'edit': it wants strength"):
        PipelineLoader(registry, "cpu")("m")


def test_a_pipeline_that_paints_at_another_size_is_an_error_and_no_crop(models: Models) -> None:
    class Larger(diffusers.StableDiffusionInstructPix2PixPipeline):  # type: ignore[misc]
        def __call__(self, **given: Any) -> Any:
            return super().__call__(**given | {"image": given["image"].resize((128, 128))})

    Larger.__call__.__signature__ = inspect.signature(  # type: ignore[attr-defined]
        diffusers.StableDiffusionInstructPix2PixPipeline.__call__
    )
    pipeline = Larger(**models.direct("instruct").pipeline.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    info = ModelInfo(name="own", revision="local", digest="", pipeline="", scheduler="", dtype="")

    with pytest.raises(PipelineFailed, match=r"shape \(128, 128, 3\) for a picture of 64 x 64"):
        PipelineModel(pipeline, info).run(edit("own", steps=1), lambda _: None)


def test_a_repainting_model_is_not_asked_to_edit(models: Models) -> None:
    with pytest.raises(NotServed, match="model 'sd' serves img2img, inpaint, match_color"):
        settled("sd", models, Edit(prompt="make it winter"))
