"""What a pipeline is called with, for each operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from overpaint_common.result import WarningNote
from overpaint_worker.engine.calls import Call

Arguments = dict[str, Any]


def arguments_of(
    call: Call, parameters: Mapping[str, Any], multiple: int, pipeline_name: str
) -> tuple[Arguments, tuple[WarningNote, ...]]:
    """The keyword arguments of a call, and what had to be left out.

    `parameters` are those of the pipeline's `__call__`; pictures are padded to `multiple` at the right and bottom.
    """
    picture = padded(call.picture, multiple)
    given: Arguments = {
        "prompt": call.prompt,
        "image": picture,
        "num_inference_steps": call.steps,
        **_guidance(call, parameters),
    }
    if "strength" in parameters:
        given["strength"] = call.strength
    # Pipelines that take a size fall back to their native one instead of the picture's.
    sizes = {"width": picture.width, "height": picture.height}
    given |= {name: value for name, value in sizes.items() if name in parameters}
    if call.mask is not None:
        given["mask_image"] = padded(call.mask, multiple)
    if call.op == "upscale":
        given["noise_level"] = call.noise_level
    if "_auto_resize" in parameters:
        given["_auto_resize"] = False
    if "max_area" in parameters:
        given["max_area"] = picture.width * picture.height
    if not call.negative_prompt:
        # These are guided only where a negative prompt is given; a space is the empty one that they were trained with.
        return given | ({"negative_prompt": " "} if given.get("true_cfg_scale", 0) > 1 else {}), ()
    why_not = _no_negative_prompt(given, parameters, pipeline_name)
    if why_not is None:
        return {**given, "negative_prompt": call.negative_prompt}, ()
    return given, (WarningNote(code="negative_prompt_ignored", message=f"negative_prompt left out: {why_not}"),)


def padded(picture: Image.Image, multiple: int) -> Image.Image:
    """The picture with its border pixels going on at the right and bottom, up to multiples of `multiple`."""
    across, down = -picture.width % multiple, -picture.height % multiple
    if not across and not down:
        return picture
    pixels = np.asarray(picture)
    return Image.fromarray(np.pad(pixels, ((0, down), (0, across), (0, 0))[: pixels.ndim], mode="edge"))


def _guidance(call: Call, parameters: Mapping[str, Any]) -> Arguments:
    given: Arguments = {}
    # Where guidance_scale is None by default it is of distilled models, and true_cfg_scale is what everyone means.
    if "guidance_scale" in parameters and parameters["guidance_scale"].default is not None:
        given["guidance_scale"] = call.guidance_scale
    elif "true_cfg_scale" in parameters:
        given["true_cfg_scale"] = call.guidance_scale
    if "image_guidance_scale" in parameters and call.image_guidance_scale is not None:
        given["image_guidance_scale"] = call.image_guidance_scale
    return given


def _no_negative_prompt(given: Arguments, parameters: Mapping[str, Any], pipeline_name: str) -> str | None:
    """Why a negative prompt would change nothing, or None where it counts."""
    if "negative_prompt" not in parameters:
        return f"{pipeline_name} takes none"
    true_scale = parameters.get("true_cfg_scale")
    if true_scale is not None and "true_cfg_scale" not in given:
        return None if true_scale.default > 1 else f"{pipeline_name} is guided without one"
    scale = given.get("true_cfg_scale" if true_scale is not None else "guidance_scale", 0)
    return None if scale > 1 else f"guidance_scale {scale:g} runs without it; use more than 1"
