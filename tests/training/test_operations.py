from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetImg2ImgPipeline, StableDiffusionUpscalePipeline
from PIL import Image
from safetensors.torch import load_file
from skimage.feature import canny
from skimage.transform import downscale_local_mean

from overpaint_worker.imaging.edges import edges as edges_of
from tests.training.fakes import Always
from training.batches import Batch, Batches, DrawnScenes, drawn_scenes, to_signed
from training.checkpoints import LossLog
from training.controlnet import ControlNetStage, EdgeBatches, export_controlnet
from training.diffusion import late_timesteps, noised_towards
from training.enlarged import FACTOR, CropBatches
from training.export import bytes_of
from training.models import TINY, Sizes, build_autoencoder, build_scheduler, build_text_encoder, build_unet
from training.operations import train_controlnet, train_upscaler
from training.recipe import Recipe, write_report
from training.scenes import VARIANTS, attributes_of, draw
from training.sheets import assemble
from training.stages import Stage
from training.tokenizer import write_tokenizer
from training.train import Plan, train
from training.upscaler import (
    SCALING_FACTOR,
    UpscalerSizes,
    UpscalerStage,
    build_low_res_scheduler,
    build_upscaling_scheduler,
    export_upscaler,
    scale_latents,
)
from training.words import STYLES

PLAN = Plan(steps=2, rate=1e-3, log_every=1, quiet=True)
BUDGET_BYTES = 6_000_000
"""Of the ControlNet and the upscaler together."""


@pytest.fixture(scope="module")
def operations(tiny_run: Recipe) -> Recipe:
    """The tiny model's run with a ControlNet and an upscaler, each trained for a few steps."""
    recipe = dataclasses.replace(
        tiny_run, controlnet=PLAN, upscaler_autoencoder=PLAN, upscaler=PLAN, controlnet_batch=4, upscaler_batch=4,
        upscaler_sizes=UpscalerSizes((16, 16)), enlarged_families=32,
    )  # fmt: skip
    train_controlnet(recipe)
    train_upscaler(recipe)
    return recipe


@pytest.mark.long
@pytest.mark.long
def test_the_exported_controlnet_changes_what_the_model_paints(operations: Recipe) -> None:
    controlnet = ControlNetModel.from_pretrained(operations.run / "controlnet")
    pipeline = StableDiffusionControlNetImg2ImgPipeline.from_pretrained(operations.model, controlnet=controlnet)
    pipeline.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    source = draw(attributes_of(1), TINY.side).picture

    with_edges, without = (
        pipeline(
            "a blue car", image=source, control_image=edges_of(source), strength=0.9, num_inference_steps=4,
            controlnet_conditioning_scale=scale, generator=torch.Generator().manual_seed(0), output_type="np",
        ).images[0]
        for scale in (1.0, 0.0)
    )  # fmt: skip

    assert with_edges.shape == (32, 32, 3)
    assert np.isfinite(with_edges).all()
    assert not np.array_equal(with_edges, without)


@pytest.mark.long
def test_the_exported_upscaler_returns_four_times_the_size(operations: Recipe) -> None:
    pipeline = StableDiffusionUpscalePipeline.from_pretrained(operations.run / "upscaler")
    pipeline.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    low = draw(attributes_of(1), 16).picture.crop((0, 0, 16, 12))

    result = pipeline("", image=low, num_inference_steps=3, output_type="np").images[0]

    assert result.shape == (48, 64, 3)
    assert np.isfinite(result).all()


@pytest.mark.long
def test_guidance_and_prompt_leave_the_upscalers_result_alone(operations: Recipe) -> None:
    pipeline = StableDiffusionUpscalePipeline.from_pretrained(operations.run / "upscaler")
    pipeline.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    low = draw(attributes_of(1), 16).picture

    one, other = (
        pipeline(
            prompt, image=low, num_inference_steps=3, guidance_scale=guidance, output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images[0]
        for prompt, guidance in (("", 1.0), ("a red car", 9.0))
    )  # fmt: skip

    assert np.allclose(one, other, atol=1e-3)


@pytest.mark.long
def test_both_are_exported_as_float16_safetensors_in_the_standard_places(operations: Recipe) -> None:
    upscaler = operations.run / "upscaler"
    weights = "diffusion_pytorch_model.safetensors"
    files = [operations.run / "controlnet" / weights, upscaler / "unet" / weights, upscaler / "vae" / weights]
    for file in [*files, upscaler / "text_encoder/model.safetensors"]:
        tensors = load_file(file).values()
        assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float16}
    assert json.loads((upscaler / "model_index.json").read_text())["_class_name"] == "StableDiffusionUpscalePipeline"
    assert json.loads((upscaler / "vae/config.json").read_text())["scaling_factor"] == 0.08333
    assert json.loads((upscaler / "unet/config.json").read_text())["in_channels"] == 7


@pytest.mark.long
def test_stages_that_are_done_are_exported_again_without_training(operations: Recipe) -> None:
    checkpoint = operations.run / "upscaler-training" / "latest.pt"
    written = checkpoint.stat().st_mtime_ns

    folder = train_upscaler(operations)

    assert checkpoint.stat().st_mtime_ns == written
    assert (folder / "model_index.json").is_file()


def test_the_shipped_sizes_keep_to_the_budget(tmp_path: Path) -> None:
    sizes = Sizes()
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    autoencoder = build_autoencoder(sizes)
    scale_latents(autoencoder)
    upscaler = UpscalerStage(UpscalerSizes(), autoencoder, tokenizer, 256, Always(Batch(torch.zeros(0), [])))
    export_upscaler(upscaler, upscaler.modules, tmp_path / "upscaler")
    export_controlnet(ControlNetModel.from_unet(build_unet(sizes), "rgb", (16, 32, 64)), tmp_path / "controlnet")

    assert bytes_of(tmp_path / "upscaler") + bytes_of(tmp_path / "controlnet") <= BUDGET_BYTES


def controlnet_stage(folder: Path, data: Batches) -> ControlNetStage:
    torch.manual_seed(0)
    modules = torch.nn.ModuleDict({"unet": build_unet(TINY), "text_encoder": build_text_encoder(TINY)})
    parts = {
        "vae": build_autoencoder(TINY),
        "tokenizer": write_tokenizer(folder / "tokenizer"),
        "scheduler": build_scheduler(),
    }
    return ControlNetStage(assemble(modules, parts), data, sheet_steps=3)


def upscaler_stage(folder: Path, data: Batches) -> UpscalerStage:
    torch.manual_seed(0)
    autoencoder = build_autoencoder(TINY)
    scale_latents(autoencoder)
    tokenizer = write_tokenizer(folder / "tokenizer")
    return UpscalerStage(UpscalerSizes((16, 16)), autoencoder, tokenizer, 64, data, sheet_steps=3)


def one_batch(kind: str) -> Batch:
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(8, 4, 8, 8, generator=rng)
    if kind == "upscaler":
        return Batch((torch.rand(8, 3, 32, 32, generator=rng) * 255).to(torch.uint8), [])
    edges = (torch.rand(8, 3, 32, 32, generator=rng) > 0.8).to(torch.uint8) * 255
    return Batch(latents, ["a red car"] * 8, latents, edges=edges)


def stage_of(kind: str, folder: Path) -> Stage:
    data = Always(one_batch(kind))
    return upscaler_stage(folder, data) if kind == "upscaler" else controlnet_stage(folder, data)


def losses(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in LossLog(folder / "losses.csv", ()).rows()]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["controlnet", "upscaler"])
def test_training_lowers_the_loss(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(kind, tmp_path)
    monkeypatch.setattr(stage, "measure", lambda *_: 0.0)

    train(stage, dataclasses.replace(PLAN, steps=40, rate=5e-3, checkpoint_every=1000), tmp_path)

    values = losses(tmp_path)
    assert sum(values[-10:]) < 0.95 * sum(values[:10])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["controlnet", "upscaler"])
def test_an_interrupted_run_goes_on_to_the_losses_of_an_uninterrupted_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = dataclasses.replace(PLAN, steps=6, checkpoint_every=3)
    whole = stage_of(kind, tmp_path)
    monkeypatch.setattr(whole, "measure", lambda *_: 0.0)
    train(whole, plan, tmp_path / "whole")
    interrupted = stage_of(kind, tmp_path)
    loss, calls = interrupted.loss, iter(range(100))

    def interrupting(*args: Any) -> dict[str, torch.Tensor]:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return loss(*args)

    monkeypatch.setattr(interrupted, "loss", interrupting)
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, plan, tmp_path / "parts")

    again = stage_of(kind, tmp_path)
    monkeypatch.setattr(again, "measure", lambda *_: 0.0)
    train(again, plan, tmp_path / "parts")

    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 6


def test_the_frozen_model_is_no_part_of_what_the_controlnet_stage_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = controlnet_stage(tmp_path, Always(one_batch("controlnet")))
    before = [parameter.clone() for parameter in stage.pipeline.unet.parameters()]
    monkeypatch.setattr(stage, "measure", lambda *_: 0.0)

    train(stage, PLAN, tmp_path)

    for one, other in zip(before, stage.pipeline.unet.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_untrained_controlnet_leaves_the_loss_as_it_is_without(tmp_path: Path) -> None:
    """Its last convolutions start at 0 (Zhang et al. 2023)."""
    stage = controlnet_stage(tmp_path, Always(one_batch("controlnet")))

    ratio = stage.measure(stage.modules, torch.device("cpu"), tmp_path / "sheet.png")

    assert ratio == pytest.approx(1.0, abs=1e-5)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (4 * 66, 6 * 66)


def test_edges_are_white_on_black_where_canny_finds_them() -> None:
    picture = draw(attributes_of(4).evolve(style="flat"), 64).picture

    edges = np.asarray(edges_of(picture))

    expected = canny(np.asarray(picture.convert("L")) / 255)
    assert np.array_equal(edges, np.repeat(expected[..., None], 3, axis=-1) * 255)
    assert 0.01 < expected.mean() < 0.3


def test_edges_of_a_batch_come_from_the_source_of_the_very_pair() -> None:
    """Every family's pictures hold one vertical step at a column of its own, its latents the column's number."""
    columns = np.arange(4, 28)
    pictures = np.where(np.arange(32) < columns[:, None], 0, 255).astype(np.uint8)
    pictures = np.broadcast_to(pictures[:, None, None, None, :], (24, VARIANTS, 3, 32, 32))
    latents = np.broadcast_to(columns[:, None, None, None, None], (24, VARIANTS, 1, 1, 1)).astype(np.float16)
    seeds = list(range(24))

    batch = EdgeBatches(0, 16, DrawnScenes(seeds, pictures), DrawnScenes(seeds, latents))[3]

    assert batch.edges is not None
    for edges, column in zip(batch.edges, batch.pictures.flatten(), strict=True):
        assert abs(float(edges[0, 16].float().argmax()) - float(column)) <= 1


def test_the_upscaler_learns_the_crops_own_latents_with_the_crop_made_small_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a UNet that answers with the exact v towards the crop, as encoded by itself, is 0."""
    stage = upscaler_stage(tmp_path, CropBatches(0, 4, 32, drawn_scenes(tmp_path / "scenes.npy", 0, 2, 64, 0)))
    pictures = stage.data[3].pictures
    with torch.no_grad():
        latents = stage.autoencoder.encode(to_signed(pictures)).latent_dist.mean * SCALING_FACTOR
    small = downscale_local_mean(pictures.numpy(), (1, 1, FACTOR, FACTOR))
    seen = []

    def oracle(
        given: torch.Tensor, timesteps: torch.Tensor, _: torch.Tensor, class_labels: torch.Tensor
    ) -> SimpleNamespace:
        seen.append((given[:, 4:], class_labels))
        signal = stage.scheduler.alphas_cumprod[timesteps][:, None, None, None]
        return SimpleNamespace(sample=(signal.sqrt() * given[:, :4] - latents) / (1 - signal).sqrt())

    monkeypatch.setattr(stage.modules["unet"], "forward", oracle)
    losses = stage.loss(stage.data[3], torch.Generator().manual_seed(0), torch.device("cpu"))

    assert float(losses["loss"]) < 1e-8
    ((low, levels),) = seen
    noise = (1 - stage.low_res_scheduler.alphas_cumprod[levels]).sqrt()[:, None, None, None]
    assert (abs(low - (torch.from_numpy(small) / 127.5 - 1)) < 5 * noise + 0.01).all()


def test_scaled_latents_have_the_deviation_that_the_pipeline_undoes() -> None:
    torch.manual_seed(0)
    autoencoder = build_autoencoder(TINY).eval()
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = autoencoder.encode(pictures).latent_dist
        decoded = autoencoder.decode(before.mean).sample

        scale_latents(autoencoder)

        after = autoencoder.encode(pictures).latent_dist
        assert torch.allclose(after.mean * SCALING_FACTOR, before.mean, rtol=1e-4, atol=1e-5)
        assert torch.allclose(after.std * SCALING_FACTOR, before.std, rtol=1e-4)
        assert torch.allclose(autoencoder.decode(after.mean).sample, decoded, atol=1e-4)
    assert autoencoder.config.scaling_factor == SCALING_FACTOR


def test_the_v_that_is_wanted_leads_the_library_back_to_the_latents() -> None:
    scheduler = build_scheduler()
    rng = torch.Generator().manual_seed(0)
    latents, start, noise = torch.randn(3, 5, 4, 8, 8, generator=rng)
    timesteps = torch.tensor([3, 200, 500, 800, 999])

    noised, wanted, weights = noised_towards(latents, start, noise, scheduler, timesteps)

    assert torch.allclose(noised, scheduler.add_noise(start, noise, timesteps), atol=1e-5)
    scheduler.set_timesteps(1000)
    for index, timestep in enumerate(timesteps):
        step = scheduler.step(wanted[index : index + 1], timestep, noised[index : index + 1])
        assert torch.allclose(step.pred_original_sample, latents[index : index + 1], atol=1e-3)
    assert ((weights > 0) & (weights <= 1)).all()


def test_late_timesteps_come_in_proportion_to_the_noise() -> None:
    steps = late_timesteps(4_000, 1000, torch.Generator().manual_seed(0))

    shares = torch.histc(steps.float(), 4, 0, 1000) / 4_000
    assert torch.allclose(shares, torch.tensor([1, 3, 5, 7]) / 16, atol=0.01)


def test_the_small_pictures_noise_is_slight_at_the_usual_level() -> None:
    signal = build_low_res_scheduler().alphas_cumprod

    assert (1 - signal[20]).sqrt() == pytest.approx(0.017, abs=0.001)
    assert (1 - signal[350]).sqrt() == pytest.approx(0.21, abs=0.02)


def test_the_upscaler_samples_from_noise_alone() -> None:
    scheduler = build_upscaling_scheduler()
    scheduler.set_timesteps(24)

    assert scheduler.timesteps[0] == 999
    assert scheduler.alphas_cumprod[999] == 0


@pytest.mark.long
@pytest.mark.long
def test_the_report_measures_every_figure(operations: Recipe) -> None:
    """Given a tiny model with both, when it is measured, then all is there, and its failures are told."""
    report = write_report(operations, 6)

    folder = operations.run / "report"
    figures = json.loads((folder / "report.json").read_text())
    assert [figure["what"] for figure in figures] == [finding.what for finding in report.findings]
    assert {f"of these {style}" for style in STYLES} <= {figure["what"] for figure in figures}
    told = {finding.what for finding in report.findings}
    assert {"shape kept at strength 0.9, with edges", "upscaled, median PSNR to the truth, dB"} <= told
    assert (folder / "report.md").read_text() == report.table()
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 6 * 2 * TINY.side
    outside = next(finding for finding in report.findings if finding.what == "outside of the mask left alone")
    assert outside.value == 1
    assert not all(finding.reached for finding in report.findings if finding.goal is not None)
