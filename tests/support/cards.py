"""What a worker would announce of a model."""

from __future__ import annotations

from typing import Any

from overpaint_common.fleet import ModelCard


def model_card(name: str, **fields: Any) -> ModelCard:
    """A card of a small model that serves img2img between two places on S3; `fields` replace its own."""
    own: dict[str, Any] = {
        "operations": ("img2img",),
        "family": "stable-diffusion",
        "steps_rule": "floor",
        "native_size": 64,
        "default_steps": 6,
        "default_guidance_scale": 4.0,
        "max_steps": 100,
        "max_size": 512,
        "revision": "local",
        "reads": ("s3://inbox/",),
        "writes": ("s3://outbox/",),
    }
    return ModelCard(name=name, **(own | fields))
