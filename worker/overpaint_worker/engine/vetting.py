"""What may be loaded: safetensors, diffusers' own code, and pipelines that do what their entry's task says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers

from overpaint_common.steps import StepsRule, effective_steps
from overpaint_worker.engine.registry import Task

NEEDED = frozenset({"prompt", "image", "num_inference_steps", "generator", "output_type"})
"""What every call gives a pipeline."""
OF_TASK: Mapping[Task, frozenset[str]] = {
    "repaint": frozenset({"strength"}),
    "inpaint": frozenset({"strength", "mask_image"}),
    "upscale": frozenset({"noise_level"}),
    "edit": frozenset(),
}
"""What the calls of a task give besides."""
OF_OTHER_TASKS = frozenset({"strength", "mask_image", "noise_level", "control_image", "video", "num_frames"})
"""A pipeline that takes one of these, and not for its task, does something else."""
EDITORS = (
    "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionXLInstructPix2PixPipeline",
    "FluxKontextPipeline",
    "Flux2Pipeline",
    "Flux2KleinPipeline",
    "QwenImageEditPipeline",
    "QwenImageEditPlusPipeline",
)
"""Those that follow an instruction about a picture and paint at its size; no parameter tells them from others, which
take a picture for an adapter or paint at sizes of their own."""
OFFERED = frozenset({"height", "width", "control_image", "guidance_scale"})
"""What a call gives to a pipeline that wants it."""

_EXAMPLES: Mapping[Task, str] = {
    "repaint": "StableDiffusionXLImg2ImgPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
    "upscale": "StableDiffusionUpscalePipeline",
    "edit": "StableDiffusionInstructPix2PixPipeline",
}
NOT_OF_PIPELINE = frozenset({"safety_checker"})
"""Vetted where it is loaded: by itself, if at all."""
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
        if not isinstance(part, list) or part[0] is None or name in NOT_OF_PIPELINE:
            continue
        if (folder / name / f"{part[0]}.py").exists():
            raise ValueError(f"{name} is code of the model's own, {part[0]}.py; no code from a model is ever run")
        check_part(folder / name)


def check_part(folder: Path) -> None:
    """Raises ValueError for a folder of one network that holds its weights as pickles alone."""
    files = {file.name for file in folder.glob("*.*")}
    pickles = sorted(file for file in files if file.endswith(PICKLES))
    if pickles and not any(file.endswith(".safetensors") for file in files):
        raise ValueError(
            f"{folder.name} holds {', '.join(pickles)} and no safetensors; convert it, since a pickle can run code: "
            "save_pretrained writes safetensors"
        )


def named_class(name: str, task: Task) -> Any:
    """The pipeline class of diffusers with that name; raises ValueError where there is none or it does not fit."""
    found = getattr(diffusers, name, None)
    if found is None:
        raise ValueError(f"diffusers {diffusers.__version__} has no pipeline {name!r}; check its spelling")
    check_class(found, task)
    return found


def check_class(pipeline_class: Any, task: Task) -> None:
    """Raises ValueError for a pipeline that cannot be called for `task`, or does not tell of its steps."""
    parameters = inspect.signature(pipeline_class.__call__).parameters
    wanted = NEEDED | OF_TASK[task]
    lacking = sorted(wanted - parameters.keys())
    # The old way is what the last few pipelines of these tasks have.
    tells = {"callback_on_step_end", "callback"} if task in ("upscale", "edit") else {"callback_on_step_end"}
    if not parameters.keys() & tells:
        lacking.append("callback_on_step_end")
    unmet = sorted(
        name
        for name, parameter in parameters.items()
        if name in OF_OTHER_TASKS - wanted
        or (
            name not in wanted | OFFERED
            and name != "self"
            and parameter.default is parameter.empty
            and parameter.kind is not parameter.VAR_KEYWORD
        )
    )
    stranger = task == "edit" and pipeline_class.__name__ not in EDITORS
    if lacking or unmet or stranger:
        why = f"is none of {', '.join(EDITORS)}"
        if lacking or unmet:
            why = f"takes no {', '.join(lacking)}" if lacking else f"wants {', '.join(unmet)}"
        raise ValueError(
            f"{pipeline_class.__name__} is no pipeline that Overpaint can serve for task {task!r}: it {why}; name "
            f"another one, such as {_EXAMPLES[task]}, leave pipeline out, or set the task"
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
