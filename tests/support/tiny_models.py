"""Real models of the smallest size: random weights from fixed seeds, saved in the diffusers folder layout.

Each function fills a folder and returns it. Untrained, but made of the same classes as the models people use.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from overpaint_worker.engine.registry import EMBEDDED

PROMPT_TOKENS = 77
"""What every tiny text encoder of the CLIP kind reads, start and end included."""

T5_TOKENS = 96
"""Fewer than the pipelines pad to, so that both limits can be met by short prompts."""


def tiny_stable_diffusion(folder: Path, *, scheduler: str = "DDIMScheduler") -> Path:
    """A Stable Diffusion 1.x of 60 thousand parameters; latents are an eighth of the picture's size."""
    torch.manual_seed(1)
    tokenizer = clip_tokenizer(folder)
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(
        vae=_vae(latent_channels=4),
        text_encoder=transformers.CLIPTextModel(_clip(tokenizer)),
        tokenizer=tokenizer,
        unet=_unet(cross_attention_dim=16),
        scheduler=_scheduler(scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _saved(pipeline, folder)


def tiny_sdxl(folder: Path, *, scheduler: str = "EulerDiscreteScheduler") -> Path:
    """An SDXL: two text encoders, the second one pooled, and size conditioning."""
    torch.manual_seed(2)
    tokenizer, tokenizer_2 = clip_tokenizer(folder, "tokenizer"), clip_tokenizer(folder, "tokenizer_2")
    # Six size numbers of 8 channels each, beside the pooled embedding.
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 16,
    }
    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=_vae(latent_channels=4, force_upcast=True),
        text_encoder=transformers.CLIPTextModel(_clip(tokenizer)),
        text_encoder_2=transformers.CLIPTextModelWithProjection(_clip(tokenizer_2)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=_unet(cross_attention_dim=32, **added),
        scheduler=_scheduler(scheduler),
    )
    return _saved(pipeline, folder)


def tiny_sd3(folder: Path) -> Path:
    """A Stable Diffusion 3 without its optional T5: a transformer over 2 x 2 patches of latents, flow matching."""
    torch.manual_seed(3)
    tokenizer, tokenizer_2 = clip_tokenizer(folder, "tokenizer"), clip_tokenizer(folder, "tokenizer_2")
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=32,
        out_channels=4,
        pos_embed_max_size=64,
    )
    pipeline = diffusers.StableDiffusion3Img2ImgPipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(latent_channels=4, shift_factor=0.06),
        text_encoder=transformers.CLIPTextModelWithProjection(_clip(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=transformers.CLIPTextModelWithProjection(_clip(tokenizer_2)),
        tokenizer_2=tokenizer_2,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    return _saved(pipeline, folder)


def tiny_flux(folder: Path) -> Path:
    """A guidance-distilled Flux: packed latents, a T5 for the prompt and CLIP for its pooled embedding."""
    torch.manual_seed(4)
    tokenizer = clip_tokenizer(folder)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    encoder = transformers.T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    pipeline = diffusers.FluxImg2ImgPipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae(latent_channels=4, shift_factor=0.06),
        text_encoder=transformers.CLIPTextModel(_clip(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=transformers.T5EncoderModel(encoder),
        tokenizer_2=_t5_tokenizer(),
    )
    return _saved(pipeline, folder)


def clip_tokenizer(folder: Path, name: str = "tokenizer") -> Any:
    """The tokenizer of overpaint-mini, which reads any text, with the 77 tokens of CLIP."""
    target = folder / name
    shutil.copytree(EMBEDDED / "tokenizer", target, dirs_exist_ok=True)
    config = target / "tokenizer_config.json"
    settings = json.loads(config.read_text()) | {"model_max_length": PROMPT_TOKENS, "max_length": PROMPT_TOKENS}
    config.write_text(json.dumps(settings))
    return transformers.CLIPTokenizer.from_pretrained(target, local_files_only=True)


def _t5_tokenizer() -> Any:
    letters = [(chr(code), -3.0) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters]
    return transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=T5_TOKENS)


def _vae(**options: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        **options,
    )


def _clip(tokenizer: Any) -> Any:
    return transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=PROMPT_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _unet(**options: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        **options,
    )


def _scheduler(name: str) -> Any:
    """With the settings that Stable Diffusion's own repositories give it."""
    settings: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    extra: dict[str, dict[str, Any]] = {
        "DDIMScheduler": {"steps_offset": 1, "clip_sample": False},
        "PNDMScheduler": {"steps_offset": 1, "skip_prk_steps": True},
    }
    return getattr(diffusers, name)(**settings, **extra.get(name, {}))


def _saved(pipeline: Any, folder: Path) -> Path:
    pipeline.save_pretrained(folder)
    return folder
