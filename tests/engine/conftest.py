from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from overpaint_worker.engine.calls import Loader
from overpaint_worker.engine.engine import Engine, PhaseLimits
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.registry import EMBEDDED, ModelSpec, Registry
from tests.engine.direct import Direct
from tests.engine.fakes import Deaths, GatedModel, Start, Story, engine_on
from tests.support import tiny_models


@pytest.fixture(scope="session", autouse=True)
def _light() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    # What the libraries made at import is never garbage; looking through it takes a second each time.
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


class Models:
    """One tiny model of each kind, built, loaded by our loader, and opened by diffusers itself, each at most once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder = cache(self._folder)
        self.direct = cache(self._direct)
        self.loaded = cache(self._loaded)
        self.registry = Registry(
            models={
                name: ModelSpec.model_validate(
                    {"path": root / name, "family": family, "task": "edit" if name in EDITORS else "repaint"}
                )
                for name, family in FAMILIES.items()
            }
        )

    def _folder(self, name: str) -> Path:
        if name == "mini":
            (self._root / name).symlink_to(EMBEDDED)
            return EMBEDDED
        return MAKERS[name](self._root / name)

    def _direct(self, name: str) -> Direct:
        return Direct(CLASSES[name], self.folder(name))

    def _loaded(self, name: str) -> PipelineModel:
        self.folder(name)
        model = PipelineLoader(self.registry, "cpu")(name)
        gc.freeze()
        return model


FAMILIES = {
    "mini": "stable-diffusion",
    "sd": "stable-diffusion",
    "pndm": "stable-diffusion",
    "heun": "stable-diffusion",
    "dpm": "stable-diffusion",
    "ancestral": "stable-diffusion",
    "sdxl": "stable-diffusion-xl",
    "sd3": "flow-matching",
    "flux": "flow-matching",
    "instruct": "stable-diffusion",
    "sdxl-instruct": "stable-diffusion-xl",
    "kontext": "flow-matching",
    "flux2": "flow-matching",
}
EDITORS = ("instruct", "sdxl-instruct", "kontext", "flux2")
CLASSES = {
    "mini": "StableDiffusionImg2ImgPipeline",
    "sd": "StableDiffusionImg2ImgPipeline",
    "pndm": "StableDiffusionImg2ImgPipeline",
    "heun": "StableDiffusionImg2ImgPipeline",
    "dpm": "StableDiffusionImg2ImgPipeline",
    "ancestral": "StableDiffusionImg2ImgPipeline",
    "sdxl": "StableDiffusionXLImg2ImgPipeline",
    "sd3": "StableDiffusion3Img2ImgPipeline",
    "flux": "FluxImg2ImgPipeline",
    "instruct": "StableDiffusionInstructPix2PixPipeline",
    "sdxl-instruct": "StableDiffusionXLInstructPix2PixPipeline",
    "kontext": "FluxKontextPipeline",
    "flux2": "Flux2KleinPipeline",
}
MAKERS: dict[str, Callable[[Path], Path]] = {
    "sd": tiny_models.tiny_stable_diffusion,
    "pndm": partial(tiny_models.tiny_stable_diffusion, scheduler="PNDMScheduler"),
    "heun": partial(tiny_models.tiny_stable_diffusion, scheduler="HeunDiscreteScheduler"),
    "dpm": partial(tiny_models.tiny_stable_diffusion, scheduler="DPMSolverMultistepScheduler"),
    "ancestral": partial(tiny_models.tiny_stable_diffusion, scheduler="EulerAncestralDiscreteScheduler"),
    "sdxl": tiny_models.tiny_sdxl,
    "sd3": tiny_models.tiny_sd3,
    "flux": tiny_models.tiny_flux,
    "instruct": tiny_models.tiny_instruct,
    "sdxl-instruct": tiny_models.tiny_sdxl_instruct,
    "kontext": tiny_models.tiny_kontext,
    "flux2": tiny_models.tiny_flux2,
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def engine(models: Models) -> Iterator[Engine]:
    """An engine over all of them, shared: calls do not depend on each other."""
    running = Engine(models.loaded)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def model() -> Iterator[GatedModel]:
    """Opened at the end, so that no thread waits on."""
    gated = GatedModel()
    yield gated
    gated.gate.set()


@pytest.fixture
def gated(model: GatedModel) -> Iterator[Engine]:
    """A running engine whose only model is `model`."""
    with engine_on(model) as running:
        yield running


@pytest.fixture
def story(gated: Engine) -> Story:
    return Story(gated)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The engine's clock, which moves when the test sets `now`."""
    clock = SimpleNamespace(now=time.monotonic())
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("overpaint_worker.engine.engine.time", clock)
    monkeypatch.setattr("overpaint_worker.engine.loop.time", clock)
    return clock


@pytest.fixture
def deaths() -> Deaths:
    return Deaths()


@pytest.fixture
def start(model: GatedModel, deaths: Deaths) -> Iterator[Start]:
    """Starts engines that tell `deaths`, and stops them at the end."""
    engines: list[Engine] = []

    def starting(loader: Loader = lambda _: model, **limits: float) -> Engine:
        engine = Engine(loader, limits=PhaseLimits(**limits), on_death=deaths)
        engine.start()
        engines.append(engine)
        return engine

    yield starting
    model.gate.set()
    for engine in engines:
        engine.stop()
