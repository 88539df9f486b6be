from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting
from PIL import Image
from safetensors.torch import load_file

from overpaint_worker.engine.registry import ModelSpec
from training.__main__ import SHARES, main, recipe_of
from training.export import bytes_of, export
from training.models import TINY, Sizes, build_autoencoder, build_scheduler, build_text_encoder, build_unet
from training.scenes import attributes_of, draw
from training.tokenizer import write_tokenizer

BUDGET_BYTES = 12_000_000
BUDGET_SECONDS = 2.0
"""Of CPU time for 24 guided steps, encoding and decoding included."""


def test_every_stage_leaves_its_log_and_its_sheet(trained: Path) -> None:
    for stage in ("autoencoder", "denoiser"):
        assert (trained.parent / stage / "losses.csv").read_text().count("\n") == 3
        assert (trained.parent / stage / "sheet-000002.png").is_file()


def test_the_exported_folder_loads_and_repaints(trained: Path) -> None:
    pipeline = AutoPipelineForImage2Image.from_pretrained(trained)
    pipeline.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    source = draw(attributes_of(1), TINY.side).picture

    result = pipeline("a blue car", image=source, strength=0.6, num_inference_steps=5, output_type="np").images[0]

    assert result.shape == (32, 32, 3)
    assert np.isfinite(result).all()
    ModelSpec(path=trained)


def test_the_exported_folder_inpaints(trained: Path) -> None:
    pipeline = AutoPipelineForInpainting.from_pretrained(trained)
    pipeline.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    scene = draw(attributes_of(1), 32)

    result = pipeline(
        "a blue car", image=scene.picture, mask_image=Image.fromarray(scene.mask.astype(np.uint8) * 255),
        height=32, width=32, num_inference_steps=3,
    ).images[0]  # fmt: skip

    assert result.size == (32, 32)


def test_the_exported_weights_are_float16_safetensors_in_the_standard_places(trained: Path) -> None:
    index = json.loads((trained / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionImg2ImgPipeline"
    for part in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        weights = load_file(trained / f"{part}.safetensors")
        assert {weight.dtype for weight in weights.values() if weight.is_floating_point()} == {torch.float16}
    assert json.loads((trained / "vae/config.json").read_text())["scaling_factor"] == 1.0
    assert json.loads((trained / "scheduler/scheduler_config.json").read_text())["prediction_type"] == "v_prediction"


def test_the_shipped_configuration_keeps_to_its_size_and_its_cpu_time(tmp_path: Path) -> None:
    sizes = Sizes()
    modules = torch.nn.ModuleDict({"unet": build_unet(sizes), "text_encoder": build_text_encoder(sizes)})
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    parts = {"vae": build_autoencoder(sizes), "tokenizer": tokenizer, "scheduler": build_scheduler()}
    export(modules, parts, tmp_path / "model")
    pipeline = AutoPipelineForImage2Image.from_pretrained(tmp_path / "model")
    pipeline.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    source = draw(attributes_of(1), sizes.side).picture
    pipeline("warm", image=source, strength=1.0, num_inference_steps=1)

    began = time.process_time()
    pipeline("a blue car", image=source, strength=1.0, num_inference_steps=24, guidance_scale=4.0)
    seconds = time.process_time() - began

    assert bytes_of(tmp_path / "model") <= BUDGET_BYTES
    assert seconds < BUDGET_SECONDS


def test_the_command_says_which_stage_is_missing(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["denoiser", "--run", str(tmp_path), "--devices", "cpu"])

    assert done.exit_code != 0
    assert "run the stage `autoencoder` first" in done.output


def test_the_sheet_command_draws_every_shape_in_every_style(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["sheet", str(tmp_path / "sheet.png"), "--side", "32"])

    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (660, 396)


def test_the_minutes_are_shared_out_among_the_stages_of_a_command(tmp_path: Path) -> None:
    whole = recipe_of((*SHARES, "classifier"), tmp_path, 0, 200, "cpu", 0, None)
    alone = recipe_of(("denoiser",), tmp_path, 0, 200, "cpu", 0, None)
    both = recipe_of(("upscaler_autoencoder", "upscaler"), tmp_path, 0, 200, "cpu", 0, None)

    given = [whole.autoencoder, whole.denoiser, whole.controlnet, whole.upscaler_autoencoder, whole.upscaler]
    assert sum(plan.minutes or 0 for plan in given) == pytest.approx(200)
    assert whole.classifier.minutes is None
    assert alone.denoiser.minutes == 200
    assert [both.upscaler_autoencoder.minutes, both.upscaler.minutes] == pytest.approx([50, 150])
