"""Control networks steer as in diffusers' own pipelines with the same networks and control pictures."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from skimage.feature import canny

from overpaint_common.errors import ModelLoadFailed, NotServed
from overpaint_common.fleet import ControlCard, settle
from overpaint_common.job import Job, Output
from overpaint_common.passes import Control, Img2Img
from overpaint_worker.engine.calls import ControlInput
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.registry import EMBEDDED, MODELS, ControlSpec, FileSpec, ModelSpec, Registry, Weights
from overpaint_worker.imaging.edges import edges
from overpaint_worker.imaging.fit import fit
from overpaint_worker.operations.passes import run_passes
from overpaint_worker.operations.tracker import Tracker
from overpaint_worker.operations.work import Inputs
from tests.engine.conftest import FAMILIES, Models
from tests.engine.direct import Direct, call, noise_picture
from tests.support.cards import model_card
from tests.support.tiny_models import tiny_control, tiny_depth, tiny_lora
from training.captions import full_caption
from training.report import recoloured
from training.scenes import attributes_of, draw, split_seeds

TOLERANCE = 1e-4
CONTROLLED = {"sd": "StableDiffusionControlNetImg2ImgPipeline", "sdxl": "StableDiffusionXLControlNetImg2ImgPipeline"}
SEEDS = {"first": 21, "second": 22}
Pixels = NDArray[np.float32]


class Networks:
    """Two control networks for each model, of which one also reads depth."""

    def __init__(self, models: Models, root: Path) -> None:
        self._models, self._root = models, root
        self.folder = cache(self._folder)
        self.loaded = cache(self._loaded)
        self.depth = tiny_depth(root / "depth")

    def _folder(self, name: str, control: str) -> Path:
        return tiny_control(self._root / name / control, self._models.folder(name), seed=SEEDS[control])

    def _loaded(self, name: str) -> PipelineModel:
        controls = {
            "first": ControlSpec(path=self.folder(name, "first")),
            "second": ControlSpec(path=self.folder(name, "second"), reads="depth", depth=Weights(path=self.depth)),
        }
        return load(self._models.folder(name), family=FAMILIES[name], controls=controls)

    def direct(self, name: str, *controls: str) -> Direct:
        """diffusers' own pipeline with these networks."""
        networks = [diffusers.ControlNetModel.from_pretrained(self.folder(name, control)) for control in controls]
        opened = Direct.__new__(Direct)
        opened.pipeline = getattr(diffusers, CONTROLLED[name]).from_pretrained(
            self._models.folder(name), controlnet=networks if len(networks) > 1 else networks[0]
        )
        opened.pipeline.set_progress_bar_config(disable=True)
        return opened


@pytest.fixture(scope="module")
def networks(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return Networks(models, tmp_path_factory.mktemp("controls"))


def load(folder: Path, **entry: Any) -> PipelineModel:
    return PipelineLoader(Registry(models={"m": ModelSpec(path=folder, **entry)}), "cpu")("m")


def paint(model: PipelineModel, picture: Image.Image, *controls: ControlInput, **asked: Any) -> Pixels:
    return model.run(call("m", picture, controls=controls, **asked), lambda _: None).pixels


def asked_of(direct: Direct, picture: Image.Image, **changes: Any) -> Pixels:
    arguments = {"prompt": "a red cat", "strength": 0.6, "num_inference_steps": 5, "guidance_scale": 4.0}
    # Theirs is 0.8 without being asked.
    size = {"width": picture.width, "height": picture.height, "controlnet_conditioning_scale": 1.0}
    return direct(picture, seed=7, **size | arguments | changes)


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_one_control_with_a_given_picture(networks: Networks, name: str) -> None:
    """Given a control picture and a scale, when a call names a network, then it paints what diffusers paints."""
    picture, shown = noise_picture(48, 32), noise_picture(48, 32, seed=5)

    ours = paint(networks.loaded(name), picture, ControlInput("first", shown, scale=0.8))

    direct = networks.direct(name, "first")
    theirs = asked_of(direct, picture, control_image=shown, controlnet_conditioning_scale=0.8)
    assert np.abs(ours - theirs).max() <= TOLERANCE
    assert np.abs(ours - paint(networks.loaded(name), picture)).max() > 0.01
    other = ControlInput("first", noise_picture(48, 32, seed=6), scale=0.8)
    assert np.abs(ours - paint(networks.loaded(name), picture, other)).max() > 0.01


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_two_controls_each_with_its_own_scale_start_and_end(networks: Networks, name: str) -> None:
    """Given two networks that act over other parts of the steps, when a call names both, then each acts in its part."""
    picture, one, two = (noise_picture(32, 48, seed=seed) for seed in (0, 5, 6))
    first, second = ControlInput("first", one, 0.8, 0.0, 0.5), ControlInput("second", two, 0.3, 0.4, 1.0)

    ours = paint(networks.loaded(name), picture, second, first, strength=1.0)

    theirs = asked_of(
        networks.direct(name, "second", "first"),
        picture,
        strength=1.0,
        control_image=[two, one],
        controlnet_conditioning_scale=[0.3, 0.8],
        control_guidance_start=[0.4, 0.0],
        control_guidance_end=[1.0, 0.5],
    )
    assert np.abs(ours - theirs).max() <= TOLERANCE
    everywhere = paint(
        networks.loaded(name), picture, ControlInput("second", two, 0.3), ControlInput("first", one, 0.8), strength=1.0
    )
    assert np.abs(ours - everywhere).max() > 0.01


def test_without_controls_the_model_paints_as_it_does_alone(models: Models, networks: Networks) -> None:
    """Given a model with control networks, when a call names none, then no bit is theirs."""
    picture = noise_picture(32, 32)

    assert np.array_equal(paint(networks.loaded("sd"), picture), paint(models.loaded("sd"), picture))


def test_sizes_between_the_multiples_are_painted_on_a_larger_picture(networks: Networks) -> None:
    """Given a picture of 44 x 37, when it is painted with a control, then both go on at their borders up to 48 x 40."""
    picture, shown = noise_picture(44, 37), noise_picture(44, 37, seed=5)

    ours = paint(networks.loaded("sd"), picture, ControlInput("first", shown))

    def widened(small: Image.Image) -> Image.Image:
        return Image.fromarray(np.pad(np.asarray(small), ((0, 3), (0, 4), (0, 0)), mode="edge"))

    theirs = asked_of(networks.direct("sd", "first"), widened(picture), control_image=widened(shown))
    assert ours.shape == (37, 44, 3)
    assert np.abs(ours - theirs[:37, :44]).max() <= TOLERANCE


def test_depth_is_estimated_from_the_picture(networks: Networks) -> None:
    """Given no picture for a network that reads depth, when a call names it, then it reads what the depth model sees,
    from black at its least to white at its greatest."""
    picture = noise_picture(48, 32)
    model = transformers.DPTForDepthEstimation.from_pretrained(networks.depth)
    # By hand: 32 x 32 pixels, of mean and deviation 0.5, and back to the picture's size.
    small = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float32)
    with torch.no_grad():
        seen = model(torch.from_numpy(small / 255 * 2 - 1).permute(2, 0, 1)[None]).predicted_depth
        depth = torch.nn.functional.interpolate(seen[:, None], (32, 48), mode="bicubic", align_corners=False)[0, 0]
    stretched = (depth - depth.min()) / (depth.max() - depth.min()) * 255
    grey = Image.fromarray(stretched.numpy().astype(np.uint8)).convert("RGB")

    ours = paint(networks.loaded("sd"), picture, ControlInput("second", None))

    assert np.asarray(grey).std() > 10
    theirs = asked_of(networks.direct("sd", "second"), picture, control_image=grey)
    assert np.abs(ours - theirs).max() <= TOLERANCE
    white = ControlInput("second", Image.new("RGB", picture.size, "white"))
    assert np.abs(ours - paint(networks.loaded("sd"), picture, white)).max() > 0.01


def test_a_lora_acts_with_a_control(models: Models, networks: Networks, tmp_path: Path) -> None:
    """Given a model with both, when a call names both, then both act, as in diffusers' own pipeline."""
    file = tiny_lora(tmp_path / "lora.safetensors", models.folder("sd"), seed=51)
    controls = {"first": ControlSpec(path=networks.folder("sd", "first"))}
    model = load(models.folder("sd"), controls=controls, loras={"a": FileSpec(path=file)})
    picture, shown = noise_picture(32, 32), noise_picture(32, 32, seed=5)

    ours = paint(model, picture, ControlInput("first", shown), loras=(("a", 0.7),))

    direct = networks.direct("sd", "first")
    direct.pipeline.load_lora_weights(tmp_path, weight_name=file.name, adapter_name="a")
    direct.pipeline.set_adapters(["a"], [0.7])
    assert np.abs(ours - asked_of(direct, picture, control_image=shown)).max() <= TOLERANCE
    without = paint(model, picture, ControlInput("first", shown))
    assert np.abs(without - paint(networks.loaded("sd"), picture, ControlInput("first", shown))).max() == 0


Spoil = Callable[[Path], None]


def _pickled(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")


def _other_class(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_class_name": "UNet2DConditionModel"}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_pickled, "holds diffusion_pytorch_model.bin and no safetensors; convert it"),
        (_other_class, "config.json is of a UNet2DConditionModel; name the folder of a ControlNetModel"),
    ],
    ids=["pickle", "class"],
)
def test_a_network_that_may_not_be_loaded(
    models: Models, networks: Networks, tmp_path: Path, spoil: Spoil, says: str
) -> None:
    """Given a pickle, or another network, when an entry names it as a control, then the error names the control."""
    folder = Path(shutil.copytree(networks.folder("sd", "first"), tmp_path / "copy"))
    spoil(folder)

    message = refusal(models.folder("sd"), controls={"edges": ControlSpec(path=folder)})

    assert f"its control 'edges' from {folder}" in message
    assert says in message


def test_a_network_of_another_model_is_refused(models: Models, networks: Networks) -> None:
    """Given the network of an SDXL, when a Stable Diffusion names it, then loading fails, and not the first job."""
    controls = {"edges": ControlSpec(path=networks.folder("sdxl", "first"))}

    assert "its cross_attention_dim is 32, the model's 16" in refusal(models.folder("sd"), controls=controls)
    message = refusal(models.folder("sd3"), family="flow-matching", controls=controls)
    assert "StableDiffusion3Img2ImgPipeline has no UNet for a control network to steer" in message


def test_a_pickled_depth_model_is_refused(models: Models, networks: Networks, tmp_path: Path) -> None:
    """Given a depth model as a pickle alone, when an entry names it, then the model does not load."""
    folder = Path(shutil.copytree(networks.depth, tmp_path / "depth"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    spec = ControlSpec(path=networks.folder("sd", "first"), reads="depth", depth=Weights(path=folder))

    message = refusal(models.folder("sd"), controls={"far": spec})

    assert f"its depth model of control 'far' from {folder}" in message
    assert "depth holds pytorch_model.bin and no safetensors" in message


def refusal(folder: Path, **entry: Any) -> str:
    with pytest.raises(ModelLoadFailed) as raised:
        load(folder, **entry)
    return str(raised.value)


def test_the_digest_covers_them(models: Models, networks: Networks) -> None:
    """Given models with other networks beside the same weights, when they are loaded, then their digests differ."""
    digests = {
        load(models.folder("sd"), controls={"edges": ControlSpec(path=networks.folder("sd", control))}).info.digest
        for control in SEEDS
    }

    assert len({*digests, models.loaded("sd").info.digest, networks.loaded("sd").info.digest}) == 4


CARD = model_card(
    "overpaint-mini", controls=(ControlCard(name="canny", reads="edges"), ControlCard(name="pose", reads="picture"))
)


@pytest.fixture(scope="module")
def mini() -> Any:
    """An engine on the registry that ships with the worker."""
    engine = Engine(PipelineLoader(Registry.embedded(), "cpu"))
    engine.start()
    yield engine
    engine.stop()


def run(engine: Engine, source: Image.Image, *controls: Control, **fields: Any) -> Image.Image:
    """What a job of one img2img pass makes; `others` are the pictures that it names."""
    others = fields.pop("others", {})
    asked = {"prompt": "a red cat", "strength": 0.9, "seed": 7} | fields
    step = Img2Img(controls=controls, **asked)
    job = Job(source="s3://inbox/a.png", model=CARD.name, passes=(step,), output=Output(prefix="s3://outbox/"))
    cards = {CARD.name: CARD}
    fitted = fit(source, size=64, method="keep")
    inputs = Inputs(fitted.picture, fitted.placement, others)
    (variant,) = run_passes(
        settle(job, cards), inputs, cards, engine, Tracker(lambda *_: None, threading.Event())
    ).variants
    return variant.picture


@cache
def shipped() -> Any:
    """diffusers' own pipeline with the network that ships."""
    network = diffusers.ControlNetModel.from_pretrained(MODELS / "overpaint-mini-canny", dtype=torch.float32)
    pipeline = diffusers.StableDiffusionControlNetImg2ImgPipeline.from_pretrained(
        EMBEDDED, controlnet=network, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def by_diffusers(source: Image.Image, **arguments: Any) -> Image.Image:
    settings = {"prompt": "a red cat", "strength": 0.9, "num_inference_steps": 6, "guidance_scale": 4.0}
    settings |= {"controlnet_conditioning_scale": 1.0}
    generator = torch.Generator().manual_seed(7)
    made: Image.Image = shipped()(image=source, generator=generator, **settings | arguments).images[0]
    return made


def test_edges_are_found_in_the_picture_of_the_pass(mini: Engine) -> None:
    """Given the network that ships, when a pass names it with thresholds, then it reads what Canny finds with them in
    the picture that the pass takes, enlarged where the pass enlarges."""
    source = draw(attributes_of(3), 64).picture

    ours = run(mini, source, Control(name="canny", scale=0.9, low=0.02, high=0.05), enlarge=1.25)

    large = source.resize((80, 80), Image.Resampling.LANCZOS)
    found = canny(np.asarray(large.convert("L")) / 255, sigma=1, low_threshold=0.02, high_threshold=0.05)
    theirs = by_diffusers(large, control_image=Image.fromarray(found).convert("RGB"), controlnet_conditioning_scale=0.9)
    assert ours.size == (80, 80)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_a_given_picture_is_read_as_it_is(mini: Engine) -> None:
    """Given a job's own control picture of another size, when a pass names it, then it is laid over the source."""
    source, drawn = draw(attributes_of(3), 64).picture, noise_picture(128, 128, seed=5)
    control = Control(name="canny", image="s3://inbox/drawn.png", start=0.1, end=0.6)

    ours = run(mini, source, control, others={"s3://inbox/drawn.png": drawn})

    theirs = by_diffusers(
        source,
        control_image=drawn.resize((64, 64), Image.Resampling.LANCZOS),
        control_guidance_start=0.1,
        control_guidance_end=0.6,
    )
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_what_no_worker_can_compute_has_to_be_given(mini: Engine) -> None:
    """Given a network that reads a picture, when a pass names it without one, then the job is refused."""
    with pytest.raises(NotServed, match="control 'pose' reads a picture that no worker can compute; give image"):
        run(mini, noise_picture(), Control(name="pose"))


def drawn(picture: Image.Image) -> NDArray[np.bool_]:
    """The clear edges alone: repainting leaves a texture of faint ones everywhere."""
    white: NDArray[np.bool_] = np.asarray(edges(picture, low=0.2, high=0.4).convert("L")) > 0
    return white


def agreement(picture: Image.Image, source: Image.Image) -> float:
    """The share of the edges of both that lies within a pixel of the other's (as Dice 1945), 0..1."""
    ours, theirs = drawn(picture), drawn(source)
    near = (ours & _thick(theirs)).sum() + (theirs & _thick(ours)).sum()
    return float(near / (ours.sum() + theirs.sum()))


def _thick(lines: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(lines, 1)
    height, width = lines.shape
    near: NDArray[np.bool_] = np.any(
        [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0
    )
    return near


@pytest.mark.long
def test_edges_hold_the_structure(mini: Engine) -> None:
    """Given scenes that the model never saw, when each is repainted in another colour at strength 0.9 with several
    seeds, then with its edges the result's edges agree with the source's clearly more than without."""
    scenes = [
        attributes_of(seed).evolve(style="flat") for seed in split_seeds("held-out", np.random.default_rng(11), 16)
    ]
    sources = {shown: draw(shown, 64).picture for shown in scenes}
    # Where object and ground are as bright there is nothing to hold.
    clear = [shown for shown, source in sources.items() if drawn(source).sum() >= 64][:8]
    held: list[float] = []
    free: list[float] = []
    for shown, seed in itertools.product(clear, (1, 2)):
        asked = {"prompt": full_caption(recoloured(shown)), "seed": seed, "steps": 16}
        for made, controls in ((held, [Control(name="canny")]), (free, [])):
            made.append(agreement(run(mini, sources[shown], *controls, **asked), sources[shown]))

    assert len(clear) == 8
    ratio = np.mean(held) / np.mean(free)
    assert ratio > 1.2, f"{np.mean(held):.3f} with edges, {np.mean(free):.3f} without: {ratio:.2f}"
    assert np.mean(np.array(held) > np.array(free)) > 0.75
