"""What may be loaded: safetensors, diffusers' own code, and pipelines that repaint a picture from a prompt."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers

from overpaint_common.steps import StepsRule, effective_steps

PASSED = ("prompt", "image", "strength", "num_inference_steps", "guidance_scale")
"""What every call gives a pipeline."""
NEEDED = frozenset({*PASSED, "generator", "output_type", "callback_on_step_end"})
OTHER_TASKS = frozenset({"mask_image", "control_image", "video", "num_frames"})
"""A pipeline that takes one of these does something else than image-to-image."""

NEVER_LOADED = frozenset({"safety_checker"})
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def check_folder(folder: Path) -> None:
    """Raises ValueError for a folder that names code of its own or holds weights as pickles alone."""
    index = diffusers.DiffusionPipeline.load_config(folder)
    if not isinstance(index["_class_name"], str):
        raise ValueError(
            f"model_index.json names a pipeline of its own, {index['_class_name']}; no code from a model is ever run: "
            "use a model for one of diffusers' own pipelines"
        )
    for name, part in index.items():
        if not isinstance(part, list) or part[0] is None or name in NEVER_LOADED:
            continue
        if (folder / name / f"{part[0]}.py").exists():
            raise ValueError(f"{name} is code of the model's own, {part[0]}.py; no code from a model is ever run")
        files = {file.name for file in (folder / name).glob("*.*")}
        pickles = sorted(file for file in files if file.endswith(PICKLES))
        if pickles and not any(file.endswith(".safetensors") for file in files):
            raise ValueError(
                f"{name} holds {', '.join(pickles)} and no safetensors; convert it, since a pickle can run code: "
                "save_pretrained writes safetensors"
            )


def named_class(name: str) -> Any:
    """The pipeline class of diffusers with that name; raises ValueError where there is none or it does not fit."""
    found = getattr(diffusers, name, None)
    if found is None:
        raise ValueError(f"diffusers {diffusers.__version__} has no pipeline {name!r}; check its spelling")
    check_class(found)
    return found


def check_class(pipeline_class: Any) -> None:
    """Raises ValueError for a pipeline that is no image-to-image pipeline with strength and a callback."""
    parameters = inspect.signature(pipeline_class.__call__).parameters
    lacking = sorted(NEEDED - parameters.keys())
    unmet = sorted(
        name
        for name, parameter in parameters.items()
        if name in OTHER_TASKS
        or (
            name not in NEEDED
            and name != "self"
            and parameter.default is parameter.empty
            and parameter.kind is not parameter.VAR_KEYWORD
        )
    )
    if lacking or unmet:
        why = f"takes no {', '.join(lacking)}" if lacking else f"wants {', '.join(unmet)}"
        raise ValueError(
            f"{pipeline_class.__name__} is no image-to-image pipeline that Overpaint can serve: it {why}; name one "
            "such as StableDiffusionXLImg2ImgPipeline, or leave pipeline out"
        )


def check_steps_rule(pipeline_class: Any, rule: StepsRule, family: str) -> None:
    """Raises ValueError where the pipeline runs other steps than its registry entry's family makes producers expect."""
    if not hasattr(pipeline_class, "get_timesteps"):
        return
    steps, strength = 10, 0.55
    # In the place of a pipeline, because a real one's scheduler may hold no timesteps before its first call.
    stand_in = SimpleNamespace(scheduler=SimpleNamespace(timesteps=list(range(steps)), order=1))
    _, running = pipeline_class.get_timesteps(stand_in, steps, strength, "cpu")
    if running != effective_steps(rule, steps, strength):
        raise ValueError(
            f"{pipeline_class.__name__} runs {running} of {steps} steps at strength {strength}, which family "
            f"{family!r} does not; set the family of the registry entry to what the model is"
        )
