"""Stable Diffusion 1.x and 2.x: a UNet and CLIP."""

from __future__ import annotations

from overpaint_worker.engine.families.family import Family, Inputs

RESIDUALS = frozenset({"down_block_additional_residuals", "mid_block_additional_residual"})

UNET = Inputs(
    rows=frozenset({"sample", "encoder_hidden_states", "class_labels", "timestep_cond", "added_cond_kwargs"}),
    residuals=RESIDUALS,
)
CONTROLNET = Inputs(
    rows=frozenset({"sample", "encoder_hidden_states", "controlnet_cond", "added_cond_kwargs"}),
    scales=frozenset({"conditioning_scale"}),
)

FAMILY = Family(
    pipelines=(
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionControlNetImg2ImgPipeline",
        "StableDiffusionInstructPix2PixPipeline",
        "StableDiffusionUpscalePipeline",
    ),
    networks={"unet": UNET, "controlnet": CONTROLNET},
    encode_prompt=("encode_prompt", "_encode_prompt"),
)
