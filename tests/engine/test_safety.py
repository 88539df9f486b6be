"""A safety checker refuses a picture with an error of its own, and changes none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from overpaint_common.errors import ModelLoadFailed, UnsafePicture
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.registry import ModelSpec, Registry
from tests.engine.conftest import Models
from tests.engine.direct import Direct, call, noise_picture
from tests.support.tiny_models import tiny_checked

SEEDS = range(8)
PICTURE = noise_picture(48, 32)

Checked = Callable[[float], Path]


@pytest.fixture(scope="module")
def checked(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    """The tiny Stable Diffusion with a checker of a threshold."""
    root, made = tmp_path_factory.mktemp("checked"), dict[float, Path]()

    def of(threshold: float) -> Path:
        if threshold not in made:
            made[threshold] = tiny_checked(root / str(threshold), models.folder("sd"), threshold=threshold)
        return made[threshold]

    return of


def registry(folder: Path, **entry: Any) -> Registry:
    return Registry(models={"m": ModelSpec(path=folder, **{"safety": "fail"} | entry)})


def load(folder: Path, **entry: Any) -> PipelineModel:
    return PipelineLoader(registry(folder, **entry), "cpu")("m")


def paint(model: PipelineModel, seed: int = 7) -> NDArray[np.float32]:
    return model.run(call("m", PICTURE, strength=1.0, steps=2, seed=seed), lambda _: None).pixels


def refused(model: PipelineModel, seed: int) -> bool:
    try:
        paint(model, seed)
    except UnsafePicture:
        return True
    return False


def black(folder: Path, seed: int) -> bool:
    """Whether diffusers' own pipeline returns black for what our calls ask."""
    arguments = {"prompt": "a red cat", "strength": 1.0, "num_inference_steps": 2, "guidance_scale": 4.0}
    return bool(Direct("StableDiffusionImg2ImgPipeline", folder)(PICTURE, seed=seed, **arguments).max() == 0)


def test_a_refused_picture_is_an_error_and_no_black_picture(checked: Checked) -> None:
    """Given a checker that refuses everything, when a call is run, then it fails with what to do and is not retried."""
    engine = Engine(PipelineLoader(registry(checked(-1.0)), "cpu"))
    engine.start()
    try:
        with pytest.raises(UnsafePicture) as raised:
            engine.submit(call("m", PICTURE, steps=2, seed=12)).result(60)
    finally:
        engine.stop()

    assert (raised.value.code, raised.value.retryable) == ("unsafe_picture", False)
    assert "the safety checker of model 'm' refuses what was painted with seed 12" in str(raised.value)
    assert 'change prompt, seed or source, or have the operator set safety = "off"' in str(raised.value)


def test_an_accepted_picture_stays_as_it_is(models: Models, checked: Checked) -> None:
    """Given a checker that accepts everything, when a call is run, then no bit of its pixels is the checker's."""
    assert np.array_equal(paint(load(checked(1.5))), paint(models.loaded("sd")))


def test_it_refuses_what_diffusers_blackens(checked: Checked) -> None:
    """Given a threshold amid the cosines of several pictures, when each is painted, then those are refused of which
    diffusers' own pipeline with that checker makes black."""
    threshold = np.median([_cosine(checked(1.5), seed) for seed in SEEDS])
    folder = checked(float(threshold))
    model = load(folder)

    blackened = [black(folder, seed) for seed in SEEDS]

    assert [refused(model, seed) for seed in SEEDS] == blackened
    assert {True, False} == set(blackened)


def _cosine(folder: Path, seed: int) -> float:
    """Between what CLIP makes of the picture of a seed and the checker's first concept."""
    arguments = {"prompt": "a red cat", "strength": 1.0, "num_inference_steps": 2, "guidance_scale": 4.0}
    direct = Direct("StableDiffusionImg2ImgPipeline", folder)
    picture = direct.picture(PICTURE, seed=seed, **arguments)
    read = direct.pipeline.feature_extractor(picture, return_tensors="pt").pixel_values
    checker = direct.pipeline.safety_checker
    with torch.no_grad():
        embedding = checker.visual_projection(checker.vision_model(read)[1])
        return float(torch.cosine_similarity(embedding[0], checker.concept_embeds[0], dim=0))


def test_off_asks_no_checker(models: Models, checked: Checked) -> None:
    """Given a checker that refuses everything, when safety is off, then its model paints as one without."""
    assert np.array_equal(paint(load(checked(-1.0), safety="off")), paint(models.loaded("sd")))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelLoadFailed) as raised:
        load(folder)
    return str(raised.value)


def test_a_model_without_a_checker_does_not_load(models: Models) -> None:
    """Given a model that has no checker, when its entry says fail, then loading does, and says what to do."""
    message = refusal(models.folder("sd"))

    assert (
        f'safety = "fail" needs a StableDiffusionSafetyChecker in {models.folder("sd") / "safety_checker"}' in message
    )
    assert 'model_index.json names none; use a folder that has one, or set safety = "off"' in message


@pytest.mark.parametrize("lacks", ["safety_checker", "safety_checker/model.safetensors", "feature_extractor"])
def test_a_checker_with_parts_missing_does_not_load(checked: Checked, tmp_path: Path, lacks: str) -> None:
    """Given a model whose checker was not fetched in full, when it is loaded, then that fails."""
    folder = Path(shutil.copytree(checked(1.5), tmp_path / "copy"))
    missing = folder / lacks
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()

    assert f"model 'm' does not load from {folder}" in refusal(folder)


def test_a_pickled_checker_is_never_opened(checked: Checked, tmp_path: Path) -> None:
    """Given a checker as a pickle alone, when its model is loaded, then it is refused."""
    folder = Path(shutil.copytree(checked(1.5), tmp_path / "copy"))
    (folder / "safety_checker" / "model.safetensors").rename(folder / "safety_checker" / "pytorch_model.bin")

    assert "safety_checker holds pytorch_model.bin and no safetensors" in refusal(folder)
