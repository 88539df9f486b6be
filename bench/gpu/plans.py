"""Which models are made, at their real size or tiny, and with which jobs and shapes they are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from overpaint_worker.engine.registry import Family

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """One model; configurations as diffusers and transformers take them."""

    name: str
    title: str
    family: Family
    prefix: str
    """Of its pipelines' class names."""
    side: int
    """Pixels of a square picture."""
    unet: Config
    vae: Config
    texts: tuple[Config, ...]
    """Of its CLIP text encoders; the second one pools."""
    scheduler: str
    at_once: int
    """Pictures that a peer has on the device at most."""
    rounds: int
    """Times as many jobs as that for each peer, if there is time."""
    buckets: tuple[int, ...]
    """Rows that the engine compiles for."""
    sizes: tuple[tuple[int, int], ...]
    """Width and height of pictures, where they are to differ."""
    weight: float
    """Of its share of the time."""
    parameters: Mapping[str, int] = field(default_factory=dict)
    """What the parts of the published model have, by name; nothing where there is none."""

    @property
    def size(self) -> tuple[int, int]:
        return self.side, self.side

    def pipeline_class(self, kind: Literal["Img2Img", "Inpaint", "ControlNetImg2Img"]) -> str:
        return f"{self.prefix}{kind}Pipeline"


_XL = {"addition_embed_type": "text_time", "use_linear_projection": True}
_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
}
_CLIP_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
}
_BIG_G = {
    "vocab_size": 49408,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
}
_TINY_CLIP = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "projection_dim": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_TINY_VAE = {**_VAE, "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4}
_TINY_UNET = {
    "sample_size": 4,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}

REAL = (
    Plan(
        name="sd15",
        title="Stable Diffusion 1.5",
        family="stable-diffusion",
        prefix="StableDiffusion",
        side=512,
        unet={
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        vae={**_VAE, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512},
        texts=(_CLIP_L,),
        scheduler="DDIMScheduler",
        at_once=16,
        rounds=4,
        buckets=(16, 32),
        sizes=((512, 512), (512, 768), (768, 768)),
        weight=1.0,
        parameters={"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480, "control": 361_279_120},
    ),
    Plan(
        name="sdxl",
        title="SDXL",
        family="stable-diffusion-xl",
        prefix="StableDiffusionXL",
        side=1024,
        unet={
            **_XL,
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 2,
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        vae={
            **_VAE,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "sample_size": 1024,
            "scaling_factor": 0.13025,
            "force_upcast": True,
        },
        texts=(_CLIP_L, _BIG_G),
        scheduler="EulerDiscreteScheduler",
        at_once=8,
        rounds=4,
        buckets=(16,),
        sizes=((1024, 1024), (896, 1152), (768, 1344)),
        weight=2.0,
        parameters={
            "unet": 2_567_463_684,
            "vae": 83_653_863,
            "text_encoder": 123_060_480,
            "text_encoder_2": 694_659_840,
            "control": 1_251_014_160,
        },
    ),
)

TINY = (
    Plan(
        name="sd15",
        title="a tiny Stable Diffusion",
        family="stable-diffusion",
        prefix="StableDiffusion",
        side=32,
        unet={**_TINY_UNET, "cross_attention_dim": 16},
        vae=_TINY_VAE,
        texts=(_TINY_CLIP,),
        scheduler="DDIMScheduler",
        at_once=4,
        rounds=1,
        buckets=(8,),
        sizes=((32, 32), (32, 48), (48, 48)),
        weight=1.0,
    ),
    Plan(
        name="sdxl",
        title="a tiny SDXL",
        family="stable-diffusion-xl",
        prefix="StableDiffusionXL",
        side=32,
        # Six size numbers of 8 channels each, beside the pooled embedding.
        unet={
            **_TINY_UNET,
            **_XL,
            "cross_attention_dim": 32,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 16,
        },
        vae={**_TINY_VAE, "force_upcast": True},
        texts=(_TINY_CLIP, _TINY_CLIP),
        scheduler="EulerDiscreteScheduler",
        at_once=4,
        rounds=1,
        buckets=(8,),
        sizes=((32, 32), (32, 48), (48, 48)),
        weight=1.0,
    ),
)

PLANS: Mapping[str, tuple[Plan, ...]] = {"real": REAL, "tiny": TINY}
