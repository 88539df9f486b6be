"""Stable Diffusion 3: a flow-matching transformer."""

from __future__ import annotations

from overpaint_worker.engine.families.family import Family, Inputs

FAMILY = Family(
    pipelines=("StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
    networks={
        "transformer": Inputs(rows=frozenset({"hidden_states", "encoder_hidden_states", "pooled_projections"})),
    },
)
