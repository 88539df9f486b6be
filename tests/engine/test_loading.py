"""What is loaded is what the registry names: safetensors, diffusers' own classes, an image-to-image pipeline."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from overpaint_common.errors import ModelLoadFailed, ModelUnreachable
from overpaint_worker.engine.loading import PipelineLoader, dtype_of, weight_digest
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.registry import ModelSpec, Registry
from tests.engine.conftest import Models
from tests.engine.direct import Direct, call

Copy = Callable[[str], Path]


@pytest.fixture
def copy(models: Models, tmp_path: Path) -> Copy:
    """A copy of a tiny model that the test may spoil."""
    return lambda name: Path(shutil.copytree(models.folder(name), tmp_path / "copy"))


def load(folder: Path, **entry: Any) -> PipelineModel:
    return PipelineLoader(Registry(models={"m": ModelSpec(path=folder, **entry)}), "cpu")("m")


def refusal(folder: Path, **entry: Any) -> str:
    with pytest.raises(ModelLoadFailed) as raised:
        load(folder, **entry)
    assert f"model 'm' does not load from {folder}" in str(raised.value)
    assert "check the registry entry and its files" in str(raised.value)
    return str(raised.value)


def edit_index(folder: Path, **changes: Any) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def painted(model: PipelineModel) -> Any:
    return model.run(call("m", steps=2, strength=1.0), lambda _: None)[0]


def test_what_the_record_says_of_a_model(models: Models) -> None:
    info = models.loaded("sdxl").info

    assert (info.name, info.revision, info.dtype) == ("sdxl", "local", "float32")
    assert (info.pipeline, info.scheduler) == ("StableDiffusionXLImg2ImgPipeline", "EulerDiscreteScheduler")


def test_a_named_pipeline_is_the_one_that_runs(models: Models) -> None:
    model = load(models.folder("sd"), pipeline="StableDiffusionPAGImg2ImgPipeline")

    assert model.info.pipeline == "StableDiffusionPAGImg2ImgPipeline"
    assert painted(model).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("StableDiffusionImg2ImagePipeline", "has no pipeline 'StableDiffusionImg2ImagePipeline'; check its spelling"),
        ("StableDiffusionPipeline", "can serve for task 'repaint': it takes no image, strength"),
        ("StableDiffusionInpaintPipeline", "it wants mask_image"),
        ("FluxKontextPipeline", "it takes no strength"),
        ("IFImg2ImgPipeline", "it takes no callback_on_step_end"),
        ("KandinskyV22Img2ImgPipeline", "it takes no prompt"),
    ],
)
def test_a_pipeline_that_does_not_fit_is_refused(models: Models, name: str, says: str) -> None:
    assert says in refusal(models.folder("sd"), pipeline=name)


def test_a_family_that_runs_other_steps_is_refused(models: Models) -> None:
    message = refusal(models.folder("sd3"), family="stable-diffusion")

    assert "StableDiffusion3Img2ImgPipeline runs 6 of 10 steps at strength 0.55" in message
    assert "set the family of the registry entry" in message


def test_a_model_without_image_to_image_is_refused(copy: Copy) -> None:
    folder = copy("sd")
    edit_index(folder, _class_name="DDPMPipeline")

    assert "AutoPipeline can't find a pipeline linked to DDPMPipeline" in refusal(folder)


def test_pickled_weights_are_refused_and_never_opened(copy: Copy, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    folder = copy("sd")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"weight": Trap()}, folder / "unet" / "diffusion_pytorch_model.bin")

    message = refusal(folder)

    assert "unet holds diffusion_pytorch_model.bin and no safetensors; convert it" in message
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_beside_safetensors_is_left_alone(copy: Copy, models: Models) -> None:
    folder = copy("sd")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not even a pickle")

    assert np.array_equal(painted(load(folder)), painted(models.loaded("sd")))


@pytest.mark.parametrize("broken", ["missing", "truncated"])
def test_broken_weights_are_refused(copy: Copy, broken: str) -> None:
    file = copy("sd") / "vae" / "diffusion_pytorch_model.safetensors"
    if broken == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000])

    assert "does not load" in refusal(file.parent.parent)


CODE = """
from pathlib import Path
(Path(__file__).parent / "sprung").touch()
import diffusers
class Own(diffusers.StableDiffusionImg2ImgPipeline): ...
class OwnUnet(diffusers.UNet2DConditionModel): ...
"""


def test_a_pipeline_with_code_of_its_own_is_refused(copy: Copy) -> None:
    folder = copy("sd")
    (folder / "own.py").write_text(CODE)
    edit_index(folder, _class_name=["own", "Own"])

    assert "names a pipeline of its own, ['own', 'Own']; no code from a model is ever run" in refusal(folder)
    assert not (folder / "sprung").exists()


def test_a_part_with_code_of_its_own_is_refused(copy: Copy) -> None:
    folder = copy("sd")
    (folder / "unet" / "own.py").write_text(CODE)
    edit_index(folder, unet=["own", "OwnUnet"])

    assert "unet is code of the model's own, own.py" in refusal(folder)
    assert not (folder / "unet" / "sprung").exists()


@pytest.mark.parametrize("part", [["antigravity", "fly"], ["subprocess", "Popen"], ["diffusers", "NoSuchUnet"]])
def test_a_part_from_elsewhere_is_refused(copy: Copy, part: list[str]) -> None:
    folder = copy("sd")
    edit_index(folder, unet=part)

    refusal(folder)


def test_code_that_nobody_named_is_not_run(copy: Copy) -> None:
    # diffusers looks for "None.py" where no custom pipeline is asked for.
    folder = copy("sd")
    for name in ("None.py", "pipeline.py", "unet/modeling.py"):
        (folder / name).write_text(CODE)
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModel": "own.Own"}}))

    # Refusing would do as well; running it would not.
    with suppress(ModelLoadFailed):
        load(folder)
    assert list(folder.rglob("sprung")) == []


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Says where the hub is; huggingface_hub reads HF_ENDPOINT and HF_HUB_CACHE at import, which is over."""

    def at(url: str) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    return at


def from_hub() -> ModelLoadFailed:
    entry = ModelSpec(repository="nobody/nothing", revision="0" * 40)
    with pytest.raises(ModelLoadFailed) as raised:
        PipelineLoader(Registry(models={"m": entry}), "cpu")("m")
    return raised.value


def test_a_hub_that_is_out_of_reach_is_told_apart(hub: Callable[[str], None]) -> None:
    # Given a port that is taken and where nobody listens.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        hub(f"http://127.0.0.1:{taken.getsockname()[1]}")

        error = from_hub()

    assert type(error) is ModelUnreachable
    assert error.retryable
    assert "model 'm' cannot be fetched from nobody/nothing: ConnectError" in str(error)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (503, ModelUnreachable),
        (429, ModelUnreachable),
        (404, ModelLoadFailed),
        (401, ModelLoadFailed),
        (403, ModelLoadFailed),
    ],
)
def test_what_the_hub_answers_decides_whether_to_try_again(
    hub: Callable[[str], None], status: int, expected: type[ModelLoadFailed]
) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        hub(f"http://127.0.0.1:{server.server_port}")
        try:
            error = from_hub()
        finally:
            server.shutdown()

    assert type(error) is expected
    assert "nobody/nothing" in str(error)


def test_a_hub_that_nobody_may_ask_is_the_operators_choice(
    hub: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub("http://127.0.0.1:1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    assert type(from_hub()) is ModelLoadFailed


def test_a_safety_checker_is_never_loaded(models: Models, tmp_path: Path) -> None:
    # Given a model whose checker finds fault with every picture.
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.CLIPConfig(
        text_config=tower, vision_config=tower | {"image_size": 8, "patch_size": 8}, projection_dim=8
    )
    checker = StableDiffusionSafetyChecker(config)
    torch.nn.init.constant_(checker.concept_embeds_weights, -10.0)
    torch.nn.init.ones_(checker.concept_embeds)
    size = {"height": 8, "width": 8}
    pipeline = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(models.folder("sd"))
    extractor = transformers.CLIPImageProcessorPil(size=size, crop_size=size)
    parts = pipeline.components | {"safety_checker": checker, "feature_extractor": extractor}
    strict = diffusers.StableDiffusionImg2ImgPipeline(**parts)
    strict.save_pretrained(tmp_path)
    arguments = {"prompt": "a red cat", "strength": 1.0, "num_inference_steps": 2, "guidance_scale": 4.0}
    black = Direct("StableDiffusionImg2ImgPipeline", tmp_path)(call("m").picture, seed=7, **arguments)
    assert black.max() == 0

    # When its weights are gone too.
    (tmp_path / "safety_checker" / "model.safetensors").unlink()

    assert np.array_equal(painted(load(tmp_path)), painted(models.loaded("sd")))


@pytest.mark.parametrize(
    ("dtype", "family", "device", "expected"),
    [
        ("auto", "stable-diffusion", "cpu", torch.float32),
        ("auto", "flow-matching", "cpu", torch.float32),
        ("auto", "stable-diffusion-xl", "cuda", torch.float16),
        ("auto", "flow-matching", "cuda", torch.bfloat16),
        ("bfloat16", "stable-diffusion", "cpu", torch.bfloat16),
        ("float32", "stable-diffusion", "cuda", torch.float32),
    ],
)
def test_the_dtype(dtype: str, family: str, device: str, expected: torch.dtype, tmp_path: Path) -> None:
    spec = ModelSpec.model_validate({"path": tmp_path, "dtype": dtype, "family": family})

    assert dtype_of(spec, device) is expected


def test_a_dtype_is_what_the_weights_have_then(models: Models) -> None:
    model = load(models.folder("sd"), dtype="bfloat16")

    assert model.info.dtype == "bfloat16"
    difference = np.abs(painted(model) - painted(models.loaded("sd"))).max()
    assert 0 < difference < 0.2


def test_the_digest_is_sha256_over_names_and_contents(models: Models) -> None:
    folder = models.folder("sdxl")
    lines = []
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".safetensors"):
                file = os.path.join(parent, name)  # noqa: PTH118
                with open(file, "rb") as stream:  # noqa: PTH123
                    content = hashlib.sha256(stream.read()).hexdigest()
                lines.append(f"{os.path.relpath(file, folder)}\0{content}\n")

    expected = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()

    assert len(lines) == 4
    assert weight_digest(folder) == expected == models.loaded("sdxl").info.digest


def test_the_digest_changes_with_one_weight_and_not_with_a_readme(copy: Copy) -> None:
    folder = copy("sd")
    before = weight_digest(folder)
    (folder / "README.md").write_text("about")
    assert weight_digest(folder) == before

    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = safetensors.torch.load_file(file)
    weights["decoder.conv_out.bias"][0] += 1e-3
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    after = weight_digest(folder)
    assert after != before

    file.rename(file.with_name("other.safetensors"))
    assert weight_digest(folder) not in (before, after)
