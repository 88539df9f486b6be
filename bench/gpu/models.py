"""Models with random weights, made on the device and saved as folders that diffusers and the worker load."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from bench.engine.pipelines import quiet
from bench.gpu.plans import Config, Plan
from tests.support.tiny_models import PROMPT_TOKENS, clip_tokenizer

SEED = 1
SPARE = 1.3
"""Times the bytes of the weights that the disk must have free."""
_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_SCHEDULERS: Mapping[str, Config] = {"DDIMScheduler": {"steps_offset": 1, "clip_sample": False}}


def make(plan: Plan, folder: Path, device: str) -> Path:
    """Fill a folder with a pipeline of that plan, and return it; one that is there already is taken as it is.

    Weights are those that a new network has, from a fixed seed, in half precision on a GPU and in float32 on a CPU;
    but the last layers are scaled so that the UNet foretells noise of variance 1 and the VAE decodes to pictures of
    full contrast: otherwise a comparison of pictures would say nothing. Raises ValueError where a part has not the
    number of parameters of the published one.
    """
    if (folder / "model_index.json").exists():
        return folder
    quiet()
    begun = folder.with_name(f"{folder.name}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    names = ("tokenizer", "tokenizer_2")[: len(plan.texts)]
    tokenizers = {name: clip_tokenizer(begun, name) for name in names}
    with _new(device):
        parts = {
            "unet": diffusers.UNet2DConditionModel(**plan.unet),
            "vae": diffusers.AutoencoderKL(**plan.vae),
            **_texts(plan, tokenizers),
        }
    for name, part in parts.items():
        check_parameters(plan, name, part)
    _calibrate(plan, parts["unet"], parts["vae"])
    scheduler = getattr(diffusers, plan.scheduler)(**_SCHEDULE, **_SCHEDULERS.get(plan.scheduler, {}))
    absent: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = getattr(diffusers, plan.pipeline_class("Img2Img"))(
        **parts, **tokenizers, scheduler=scheduler, **(absent if len(plan.texts) == 1 else {})
    )
    pipeline.save_pretrained(begun)
    return begun.rename(folder)


def make_control(plan: Plan, folder: Path, device: str) -> Path:
    """The same of a ControlNet for it, whose last layers are not zero as those of a new one are."""
    if (folder / "config.json").exists():
        return folder
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**plan.unet)
    with _new(device):
        network = diffusers.ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    check_parameters(plan, "control", network)
    for weights in network.parameters():
        if weights.ndim > 1 and not weights.any():
            torch.nn.init.normal_(weights, std=1 / math.sqrt(weights[0].numel()))
    network.save_pretrained(folder)
    return folder


def check_parameters(plan: Plan, name: str, part: torch.nn.Module) -> None:
    """Raises ValueError where a part has not as many as the published one."""
    counted = sum(weights.numel() for weights in part.parameters())
    if counted != plan.parameters.get(name, counted):
        raise ValueError(
            f"{name} of {plan.title} has {counted:,} parameters, the published one {plan.parameters[name]:,}"
        )


def check_disk(plans: tuple[Plan, ...], folder: Path) -> None:
    """Raises OSError where the disk has no room for what those plans will take."""
    # Twice the parameters: bytes in half precision.
    wanted = int(SPARE * sum(2 * sum(plan.parameters.values()) for plan in plans))
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB free and the models take {wanted / 1e9:.1f} GB; "
            "name another folder with --models, or fewer models with --families"
        )


@contextmanager
def _new(device: str) -> Iterator[None]:
    """Networks that are made within the block are on the device, in the dtype that it computes fast in."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16 if device.startswith("cuda") else torch.float32)
    torch.manual_seed(SEED)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def _texts(plan: Plan, tokenizers: Mapping[str, Any]) -> dict[str, Any]:
    classes = (
        ("text_encoder", transformers.CLIPTextModel),
        ("text_encoder_2", transformers.CLIPTextModelWithProjection),
    )
    made = {}
    for (name, text_class), config, tokenizer in zip(classes, plan.texts, tokenizers.values(), strict=False):
        words = {"vocab_size": len(tokenizer), "max_position_embeddings": PROMPT_TOKENS}
        marks = {f"{mark}_token_id": getattr(tokenizer, f"{mark}_token_id") for mark in ("bos", "eos", "pad")}
        made[name] = text_class(transformers.CLIPTextConfig(**words | marks | dict(config)))
    return made


def _calibrate(plan: Plan, unet: Any, vae: Any) -> None:
    side = unet.config.sample_size // 2
    latents = torch.randn(2, 4, side, side, dtype=unet.dtype, device=unet.device)
    context = torch.randn(2, PROMPT_TOKENS, unet.config.cross_attention_dim).to(latents)
    added = {}
    if len(plan.texts) == 2:
        pooled = torch.randn(2, plan.texts[1]["projection_dim"])
        sizes = torch.tensor([plan.side, plan.side, 0, 0, plan.side, plan.side]).expand(2, 6)
        added = {"text_embeds": pooled.to(latents), "time_ids": sizes.to(latents)}
    with torch.no_grad():
        noise = unet(latents, 500, encoder_hidden_states=context, added_cond_kwargs=added).sample
        _scale(unet.conv_out, noise, 1.0)
        _scale(vae.decoder.conv_out, vae.decode(latents / vae.config.scaling_factor).sample, 0.5)


def _scale(layer: Any, made: torch.Tensor, wanted: float) -> None:
    """Let a last layer, which made that, have that standard deviation."""
    factor = wanted / float(made.float().std())
    layer.weight.mul_(factor)
    layer.bias.mul_(factor)
