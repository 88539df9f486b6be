"""Flux: a flow-matching transformer whose guidance is an input."""

from __future__ import annotations

from overpaint_worker.engine.families.family import Family, Inputs

FAMILY = Family(
    pipelines=("FluxImg2ImgPipeline", "FluxInpaintPipeline"),
    networks={
        "transformer": Inputs(
            rows=frozenset({"hidden_states", "encoder_hidden_states", "pooled_projections", "guidance"}),
            common=frozenset({"txt_ids", "img_ids"}),
        ),
    },
)
