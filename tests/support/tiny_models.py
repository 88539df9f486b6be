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
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file

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


def tiny_inpainting(folder: Path, *, xl: bool = False) -> Path:
    """A Stable Diffusion 1.x, or an SDXL, whose UNet sees the mask and what is left of the picture: 9 channels."""
    folder = tiny_sdxl(folder) if xl else tiny_stable_diffusion(folder)
    torch.manual_seed(9)
    config = diffusers.UNet2DConditionModel.load_config(folder / "unet")
    diffusers.UNet2DConditionModel.from_config(config, in_channels=9).save_pretrained(folder / "unet")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("Img2ImgPipeline", "InpaintPipeline"))
    return folder


def tiny_instruct(folder: Path) -> Path:
    """An InstructPix2Pix: a Stable Diffusion whose UNet sees the picture's latents beside the noisy ones."""
    torch.manual_seed(11)
    tokenizer = clip_tokenizer(folder)
    pipeline = diffusers.StableDiffusionInstructPix2PixPipeline(
        vae=_vae(latent_channels=4),
        text_encoder=transformers.CLIPTextModel(_clip(tokenizer)),
        tokenizer=tokenizer,
        unet=_unet(cross_attention_dim=16, in_channels=8, out_channels=4),
        scheduler=_scheduler("EulerAncestralDiscreteScheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _saved(pipeline, folder)


def tiny_sdxl_instruct(folder: Path) -> Path:
    """An InstructPix2Pix on SDXL."""
    parts = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(tiny_sdxl(folder)).components
    torch.manual_seed(12)
    parts["unet"] = diffusers.UNet2DConditionModel.from_config(parts["unet"].config, in_channels=8)
    for part in ("image_encoder", "feature_extractor"):
        parts.pop(part, None)
    return _saved(diffusers.StableDiffusionXLInstructPix2PixPipeline(**parts), folder)


def tiny_kontext(folder: Path) -> Path:
    """A Flux Kontext: the picture's latents follow the noisy ones in the transformer's sequence."""
    parts = diffusers.FluxImg2ImgPipeline.from_pretrained(tiny_flux(folder)).components
    return _saved(diffusers.FluxKontextPipeline(**parts), folder)


def tiny_flux2(folder: Path) -> Path:
    """A Flux 2 of the Klein kind: a Qwen 3 whose hidden layers 9, 18 and 27 are the prompt, guided in two forwards."""
    torch.manual_seed(13)
    characters = [*"abcdefghijklmnopqrstuvwxyz", "Ġ", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    vocabulary = {character: number for number, character in enumerate(characters)}
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=64)
    tokenizer.chat_template = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
    encoder = transformers.Qwen3Config(
        vocab_size=len(characters),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=27,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
    )
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    )
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 8,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    pipeline = diffusers.Flux2KleinPipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=transformers.Qwen3ForCausalLM(encoder),
        tokenizer=tokenizer,
        is_distilled=False,
    )
    return _saved(pipeline, folder)


def tiny_control(folder: Path, model: Path, *, seed: int = 21) -> Path:
    """A ControlNet for the model in a folder; one that changes what is painted, as an untrained one does not."""
    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel.from_pretrained(model / "unet")
    network = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 16, 16, 16))
    for weights in network.parameters():
        if not weights.any():
            torch.nn.init.normal_(weights, std=0.3)
    for name, weights in network.controlnet_cond_embedding.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.kaiming_normal_(weights)
    network.save_pretrained(folder)
    return folder


def tiny_depth(folder: Path) -> Path:
    """A DPT that estimates depth at 32 x 32 pixels."""
    torch.manual_seed(22)
    config = transformers.DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    model = transformers.DPTForDepthEstimation(config)
    # Its last activation would make 0 of most of what random weights predict.
    torch.nn.init.constant_(model.head.head[-2].bias, 1.0)
    model.save_pretrained(folder)
    transformers.DPTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def tiny_lora(file: Path, model: Path, *, seed: int, kohya: bool = False) -> Path:
    """A LoRA of rank 2 for the UNet and the text encoders of a model: keys as diffusers writes them, or as kohya does,
    with an alpha of 1."""
    rng = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for part in ("unet", "text_encoder", "text_encoder_2"):
        if not (model / part).exists():
            continue
        (saved,) = (model / part).glob("*.safetensors")
        for name, weight in load_file(saved).items():
            if not name.endswith((".to_q.weight", ".to_v.weight", ".q_proj.weight", ".out_proj.weight")):
                continue
            down = torch.randn(2, weight.shape[1], generator=rng) / 4
            up = torch.randn(weight.shape[0], 2, generator=rng) / 4
            layer = name.removesuffix(".weight")
            if not kohya:
                weights |= {f"{part}.{layer}.lora_A.weight": down, f"{part}.{layer}.lora_B.weight": up}
                continue
            flat = {"unet": "lora_unet_", "text_encoder": "lora_te_"}[part] + layer.replace(".", "_")
            weights |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up, f"{flat}.alpha": torch.ones(())}
    save_file(weights, file)
    return file


def tiny_checked(folder: Path, model: Path, *, threshold: float) -> Path:
    """The Stable Diffusion of a folder with a safety checker that refuses what is more like one random direction of its
    embedding than `threshold`, a cosine."""
    torch.manual_seed(23)
    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.CLIPConfig(
        text_config=tower, vision_config=tower | {"image_size": 16, "patch_size": 4}, projection_dim=8
    )
    checker = StableDiffusionSafetyChecker(config)
    torch.nn.init.normal_(checker.concept_embeds)
    torch.nn.init.constant_(checker.concept_embeds_weights, 2.0)
    torch.nn.init.constant_(checker.special_care_embeds_weights, 2.0)
    checker.concept_embeds_weights.data[0] = threshold
    extractor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16})
    parts = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(model).components
    parts |= {"safety_checker": checker, "feature_extractor": extractor}
    return _saved(diffusers.StableDiffusionImg2ImgPipeline(**parts), folder)
