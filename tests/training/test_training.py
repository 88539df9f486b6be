from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.training.fakes import Always
from training.batches import Batch, DrawnScenes, PairBatches, SceneBatches, batches_from, drawn_scenes
from training.checkpoints import LossLog
from training.models import TINY, build_autoencoder, build_scheduler
from training.scenes import VARIANTS, draw, family_of
from training.stages import AutoencoderStage, DenoiserStage, fold_statistics, source_share, stratified_timesteps
from training.train import Plan, shape_of_rate, train
from training.words import COLOUR_WORDS, STYLE_WORDS

PLAN = Plan(steps=8, rate=1e-3, log_every=1, checkpoint_every=2, sheet_every=100, quiet=True)


class Killed(Exception):
    pass


class DiesAt(AutoencoderStage):
    """Ends without a word to the checkpoint in the middle of its sixth step, as a killed process does."""

    calls = 0

    def loss(self, batch: Batch, rng: torch.Generator, device: torch.device) -> dict[str, torch.Tensor]:
        self.calls += 1
        if self.calls == 6:
            raise Killed
        return super().loss(batch, rng, device)


def losses(folder: Path) -> list[tuple[str, str]]:
    return [(row["step"], row["loss"]) for row in LossLog(folder / "losses.csv", ()).rows()]


def test_a_killed_run_resumes_to_the_losses_and_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = train(AutoencoderStage(TINY, SceneBatches(1, 1, TINY.side)), PLAN, tmp_path / "whole")
    torch.manual_seed(0)
    with pytest.raises(Killed):
        train(DiesAt(TINY, SceneBatches(1, 1, TINY.side)), PLAN, tmp_path / "killed")
    assert len(losses(tmp_path / "killed")) == 5, "the fifth step ran, its checkpoint did not"

    torch.manual_seed(99)
    resumed = train(AutoencoderStage(TINY, SceneBatches(1, 1, TINY.side)), PLAN, tmp_path / "killed")

    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert [step for step, _ in losses(tmp_path / "whole")] == [str(step) for step in range(1, 9)]
    for one, other in zip(resumed.average.parameters(), whole.average.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_finished_stage_trains_no_further_unless_the_plan_is_longer(tmp_path: Path) -> None:
    short = dataclasses.replace(PLAN, steps=2)
    train(AutoencoderStage(TINY, SceneBatches(1, 1, TINY.side)), short, tmp_path)

    again = train(AutoencoderStage(TINY, SceneBatches(1, 1, TINY.side)), short, tmp_path)
    assert again.step == 2
    longer = train(AutoencoderStage(TINY, SceneBatches(1, 1, TINY.side)), PLAN, tmp_path)
    assert longer.step == PLAN.steps
    assert [step for step, _ in losses(tmp_path)] == [str(step) for step in range(1, PLAN.steps + 1)]


def test_a_spent_budget_of_minutes_stops_cleanly_with_a_checkpoint_and_a_sheet(tmp_path: Path) -> None:
    state = train(
        AutoencoderStage(TINY, SceneBatches(1, 1, TINY.side)),
        dataclasses.replace(PLAN, minutes=1e-6, steps=1000),
        tmp_path,
    )

    assert state.step == 1
    assert (tmp_path / "latest.pt").is_file()
    assert (tmp_path / "sheet-000001.png").is_file()


@pytest.mark.long
def test_batches_are_the_same_from_worker_processes_and_without() -> None:
    scenes = SceneBatches(3, 2, 32)

    here = list(batches_from(scenes, 5, 7, workers=0))
    there = list(batches_from(scenes, 5, 7, workers=1))

    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.pictures, other.pictures)
        assert one.captions == other.captions


def test_scenes_drawn_once_are_the_families_of_their_seeds_and_are_not_drawn_again(tmp_path: Path) -> None:
    file = tmp_path / "scenes.npy"

    scenes = drawn_scenes(file, seed=3, families=1, side=32, workers=0)
    written = file.stat().st_mtime_ns
    again = drawn_scenes(file, seed=3, families=1, side=32, workers=0)

    assert file.stat().st_mtime_ns == written
    assert again.seeds == scenes.seeds
    for variant, attributes in enumerate(family_of(scenes.seeds[5])):
        expected = np.asarray(draw(attributes, 32).picture).transpose(2, 0, 1)
        assert np.array_equal(scenes.variants[5, variant], expected)


def test_a_pair_is_of_one_family_and_its_caption_names_what_the_two_differ_in() -> None:
    marks = np.arange(6 * VARIANTS, dtype=np.float16).reshape(6, VARIANTS, 1, 1, 1)
    seeds = list(range(100, 106))
    pairs = PairBatches(0, 64, DrawnScenes(seeds, marks))

    batch = pairs[7]

    assert batch.sources is not None
    for target, source, text in zip(batch.pictures.flatten(), batch.sources.flatten(), batch.captions, strict=True):
        family, column = divmod(int(target), VARIANTS)
        assert int(source) // VARIANTS == family
        shown, before = family_of(seeds[family])[column], family_of(seeds[family])[int(source) % VARIANTS]
        assert shown.colour == before.colour or any(word in text for word in COLOUR_WORDS[shown.colour])
        assert shown.style == before.style or any(word in text for word in STYLE_WORDS[shown.style])


def test_the_sources_share_is_whole_in_strong_noise_and_fades_with_the_noise() -> None:
    shares = source_share(build_scheduler(), torch.arange(1000))

    assert (shares[700:] == 1).all()
    assert (shares.diff() >= 0).all()
    assert shares[0] < 0.02


def test_without_noise_to_learn_the_target_of_a_pair_is_the_picture_and_not_its_source(
    tiny_denoiser: DenoiserStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a model that answers with the exact v towards the pictures is 0, whatever the sources are."""
    pictures, sources = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)
    signal = tiny_denoiser.scheduler.alphas_cumprod

    def oracle(noised: torch.Tensor, timesteps: torch.Tensor, _: torch.Tensor) -> SimpleNamespace:
        a, b = (root.sqrt()[:, None, None, None] for root in (signal[timesteps], 1 - signal[timesteps]))
        return SimpleNamespace(sample=a * (noised - a * pictures) / b - b * pictures)

    monkeypatch.setattr(tiny_denoiser.modules["unet"], "forward", oracle)

    losses = tiny_denoiser.loss(
        Batch(pictures, ["a red car"] * 4, sources), torch.Generator().manual_seed(0), torch.device("cpu")
    )

    assert float(losses["loss"]) < 1e-8


def test_folding_leaves_pictures_alone_and_gives_latents_mean_0_and_deviation_1() -> None:
    torch.manual_seed(0)
    autoencoder = build_autoencoder(TINY).eval()
    pictures = torch.rand(8, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = autoencoder.decode(autoencoder.encode(pictures).latent_dist.mean).sample
        std = (
            autoencoder.encode(pictures).latent_dist.std
            / autoencoder.encode(pictures).latent_dist.mean.std((0, 2, 3))[:, None, None]
        )

        fold_statistics(autoencoder, pictures)

        posterior = autoencoder.encode(pictures).latent_dist
        after = autoencoder.decode(posterior.mean).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(posterior.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(posterior.mean.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(posterior.std, std, rtol=1e-3)


def test_stratified_timesteps_take_one_from_each_slice() -> None:
    steps = stratified_timesteps(10, 1000, torch.Generator().manual_seed(0))

    assert sorted((steps // 100).tolist()) == list(range(10))
    assert steps.tolist() != sorted(steps.tolist())


def test_the_rate_warms_up_to_its_peak_and_falls_to_almost_nothing() -> None:
    rates = [shape_of_rate(share / 100) for share in range(101)]

    assert rates[0] < 0.05
    assert max(rates) == pytest.approx(1.0)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == pytest.approx(0.02)


@pytest.mark.long
def test_the_autoencoder_learns_one_batch_by_heart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stage = AutoencoderStage(TINY, SceneBatches(1, 1, TINY.side))
    stage.data = Always(stage.data[0])

    train(stage, dataclasses.replace(PLAN, steps=40, rate=1e-2, checkpoint_every=1000), tmp_path)

    values = [float(loss) for _, loss in losses(tmp_path)]
    assert values[-1] < 0.7 * values[0]


@pytest.mark.long
def test_the_denoiser_learns_one_batch_by_heart(
    tmp_path: Path, tiny_denoiser: DenoiserStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_denoiser.data = Always(tiny_denoiser.data[0])
    monkeypatch.setattr(tiny_denoiser, "measure", lambda *_: 0.0)

    train(tiny_denoiser, dataclasses.replace(PLAN, steps=30, rate=5e-3, checkpoint_every=1000), tmp_path)

    values = [float(loss) for _, loss in losses(tmp_path)]
    assert sum(values[-10:]) < 0.85 * sum(values[:10])
