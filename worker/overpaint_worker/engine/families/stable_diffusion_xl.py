"""Stable Diffusion XL: a UNet that is told sizes and pooled embeddings besides, and two text encoders."""

from __future__ import annotations

from overpaint_worker.engine.families.family import Family
from overpaint_worker.engine.families.stable_diffusion import CONTROLNET, UNET

FAMILY = Family(
    pipelines=(
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionXLControlNetImg2ImgPipeline",
        "StableDiffusionXLInstructPix2PixPipeline",
    ),
    networks={"unet": UNET, "controlnet": CONTROLNET},
)
