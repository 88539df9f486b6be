"""Control networks of a model, and the depth that some of them read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

from overpaint_worker.engine import vetting
from overpaint_worker.engine.arguments import Arguments, padded
from overpaint_worker.engine.calls import ControlInput


@dataclass(frozen=True, slots=True)
class Depth:
    """A depth estimation model of transformers, with the image processor that was saved beside it."""

    model: Any
    processor: Any

    def of(self, picture: Image.Image) -> Image.Image:
        """The model's prediction for an RGB picture, stretched to 0..255; RGB, of the same size.

        Control networks were trained on inverse depth, white where it is near: that is what MiDaS, DPT and the relative
        models of Depth Anything predict. A picture of one depth throughout is black.
        """
        pixels = self.processor(images=picture, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            outputs = self.model(pixel_values=pixels.to(self.model.device, self.model.dtype))
            (found,) = self.processor.post_process_depth_estimation(outputs, [(picture.height, picture.width)])
        depth = found["predicted_depth"].float().cpu().numpy()
        depth -= depth.min()
        grey = depth * 255 / (depth.max() or 1)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


@dataclass(frozen=True, slots=True)
class ControlNetwork:
    """A loaded control network."""

    network: Any
    depth: Depth | None = None
    """For one that reads depth."""

    def picture(self, given: ControlInput, picture: Image.Image) -> Image.Image:
        """What the network reads: the picture given, or the depth of the call's `picture`; RGB, of its size."""
        if given.picture is not None:
            return given.picture
        if self.depth is None:
            raise ValueError(f"control {given.name!r} has no depth model to compute its picture with; give the picture")
        return self.depth.of(picture)


def load_network(folder: Path, dtype: torch.dtype, pipeline: Any) -> Any:
    """The ControlNet in `folder`, in diffusers' layout, for the model of `pipeline`.

    Raises ValueError where it is none, was made for another kind of model or is kept as a pickle, and what diffusers
    raises for broken files.
    """
    if getattr(pipeline, "unet", None) is None:
        raise ValueError(f"{type(pipeline).__name__} has no UNet for a control network to steer; leave controls out")
    vetting.check_part(folder)
    kind = diffusers.ControlNetModel.load_config(folder).get("_class_name")
    if kind != "ControlNetModel":
        raise ValueError(f"config.json is of a {kind}; name the folder of a ControlNetModel")
    network = diffusers.ControlNetModel.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True
    )
    for name in ("cross_attention_dim", "block_out_channels", "in_channels"):
        wanted, found = (getattr(part.config, name) for part in (pipeline.unet, network))
        if _listed(wanted) != _listed(found):
            raise ValueError(f"it is for another kind of model: its {name} is {found}, the model's {wanted}")
    return network


def load_depth(folder: Path, dtype: torch.dtype, device: str) -> Depth:
    """The depth estimation model in `folder`, in transformers' layout, on a device.

    Raises ValueError for pickles and foreign code, and what transformers raises for broken files.
    """
    vetting.check_part(folder)
    safely = {"local_files_only": True, "trust_remote_code": False}
    model = transformers.AutoModelForDepthEstimation.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, **safely
    )
    # By name, because the default one needs torchvision.
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", **safely)
    return Depth(model.to(device), processor)


def arguments_of(inputs: Sequence[ControlInput], pictures: Sequence[Image.Image], multiple: int) -> Arguments:
    """What a ControlNet pipeline takes besides, for one or more controls; pictures padded as the call's is."""
    given: dict[str, list[Any]] = {
        "control_image": [padded(picture, multiple) for picture in pictures],
        "controlnet_conditioning_scale": [each.scale for each in inputs],
        "control_guidance_start": [each.start for each in inputs],
        "control_guidance_end": [each.end for each in inputs],
    }
    return given if len(inputs) > 1 else {name: values[0] for name, values in given.items()}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
