"""The parts of overpaint-mini and their sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from training.tokenizer import MAX_TOKENS, vocabulary_size

LATENT_CHANNELS: Final = 4
LATENT_FACTOR: Final = 4
"""Picture pixels for one latent, a side: three blocks halve twice."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The widths that decide what the model costs. The defaults are the shipped model's."""

    side: int = 64
    """Native pixels a side."""
    autoencoder: tuple[int, int, int] = (16, 24, 48)
    """Channels of the three blocks, from full resolution down; multiples of 8."""
    autoencoder_layers: int = 1
    unet: tuple[int, int, int] = (40, 64, 96)
    """Channels of the three blocks; multiples of 8."""
    text: int = 64
    """Hidden size of the text encoder and width of the cross-attention."""
    text_layers: int = 2

    @property
    def latent_side(self) -> int:
        return self.side // LATENT_FACTOR


TINY: Final = Sizes(side=32, autoencoder=(8, 8, 8), unet=(16, 16, 16), text=16, text_layers=1)
"""For tests: everything real, nothing good."""


def build_autoencoder(sizes: Sizes) -> AutoencoderKL:
    """Random weights; pictures B x 3 x side x side in -1 to 1, latents B x 4 x side/4 x side/4."""
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=sizes.autoencoder,
        layers_per_block=sizes.autoencoder_layers,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=sizes.side,
        scaling_factor=1.0,
        force_upcast=False,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        # Half of the outputs are log-variances: from -4, the noise starts smaller than the signal.
        autoencoder.quant_conv.bias[LATENT_CHANNELS:] = -4.0
        autoencoder.quant_conv.weight[LATENT_CHANNELS:] *= 0.1
    return autoencoder


def build_text_encoder(sizes: Sizes) -> CLIPTextModel:
    """Random weights; token ids B x 32 to B x 32 x text."""
    size = vocabulary_size()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size,
            hidden_size=sizes.text,
            intermediate_size=4 * sizes.text,
            projection_dim=sizes.text,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=size - 2,
            eos_token_id=size - 1,
            pad_token_id=size - 1,
        )
    )


def build_unet(sizes: Sizes) -> UNet2DConditionModel:
    """Random weights; predicts v for latents B x 4 x side/4 x side/4 at timesteps B, given B x 32 x text."""
    return UNet2DConditionModel(
        sample_size=sizes.latent_side,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=sizes.unet,
        layers_per_block=1,
        cross_attention_dim=sizes.text,
        # Despite its name, the count of heads (diffusers issue 2011).
        attention_head_dim=4,
        norm_num_groups=8,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, with v-prediction (Salimans and Ho 2022)."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )


def parameters_of(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
