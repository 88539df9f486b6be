"""What `overpaint doctor` says of models whose files are not whole, without loading any."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from overpaint_common.findings import Finding
from overpaint_worker.checks.models import check_model, check_registry
from overpaint_worker.engine.registry import EMBEDDED, ControlSpec, FileSpec, ModelSpec, Registry

REVISION = "0123456789abcdef0123456789abcdef01234567"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the embedded model that the test may spoil."""
    return Path(shutil.copytree(EMBEDDED, tmp_path / "model"))


def look(spec: ModelSpec) -> list[Finding]:
    return list(check_model("m", spec))


def fault(folder: Path, **entry: Any) -> str:
    """What is found to be wrong with the model, where that is one thing."""
    (found,) = look(ModelSpec(path=folder, **entry))
    assert found.state == "fail"
    assert found.remedy
    return found.message


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def test_the_embedded_models_are_whole() -> None:
    found = [finding for name, spec in Registry.embedded().models.items() for finding in check_model(name, spec)]
    assert [finding.state for finding in found] == ["ok", "ok"]
    assert "control canny" in found[0].message


def test_a_truncated_file_is_named(model: Path) -> None:
    cut(model / UNET)
    assert f"{model / UNET} is not whole" in fault(model)


def test_a_part_that_is_missing_is_named(model: Path) -> None:
    shutil.rmtree(model / "vae")
    assert f"{model / 'vae'} is missing" in fault(model)


def test_a_part_kept_as_a_pickle_alone_is_refused(model: Path) -> None:
    (model / UNET).rename(model / "unet" / "diffusion_pytorch_model.bin")
    assert "only diffusion_pytorch_model.bin, which may run code" in fault(model)


def test_an_index_that_is_no_json_is_named(model: Path) -> None:
    (model / "model_index.json").write_text("{")
    assert "model_index.json cannot be read" in fault(model)


def test_a_pipeline_that_diffusers_does_not_have_is_named(model: Path) -> None:
    index = model / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "StableDiffusion9Pipeline"}))
    assert "no StableDiffusion9Pipeline, which model_index.json names" in fault(model)
    assert "no StableDiffusion8Pipeline" in fault(EMBEDDED, pipeline="StableDiffusion8Pipeline")


def test_a_shard_that_its_listing_names_and_is_not_there_is_named(model: Path) -> None:
    # Given a network in two shards, of which one is missing
    save_file({"a": np.zeros(4)}, model / "unet" / "part-00001-of-00002.safetensors")
    listing = {"weight_map": {"a": "part-00001-of-00002.safetensors", "b": "part-00002-of-00002.safetensors"}}
    (model / "unet" / "part.safetensors.index.json").write_text(json.dumps(listing))
    # When it looks, then that one is named
    assert f"{model / 'unet' / 'part-00002-of-00002.safetensors'} is missing" in fault(model)


def test_a_safety_checker_that_is_asked_for_has_to_be_there(model: Path) -> None:
    assert look(ModelSpec(path=model))[0].state == "ok"
    assert 'safety = "fail" needs' in fault(model, safety="fail")


def test_loras_words_and_controls_are_looked_at_too(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    save_file({"a": np.zeros(400)}, broken)
    cut(broken)
    spec = ModelSpec(
        path=model,
        loras={"oils": FileSpec(path=broken)},
        embeddings={"<map>": FileSpec(path=tmp_path, file="gone.safetensors")},
        controls={"canny": ControlSpec(path=tmp_path / "nowhere")},
    )
    told = [finding.message for finding in look(spec)]
    assert told[0].startswith("m, control canny: ")
    assert told[1].startswith(f"m, LoRA oils: {broken} is not whole")
    assert told[2].startswith("m, embedding <map>: ")
    assert len(told) == 3


class Hub:
    """A cache as the hub's client keeps it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def hold(self, repository: str, source: Path) -> Path:
        place = self.folder / f"models--{repository.replace('/', '--')}" / "snapshots" / REVISION
        return Path(shutil.copytree(source, place))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(tmp_path / "hub", monkeypatch)


def of_hub(**entry: Any) -> ModelSpec:
    return ModelSpec(repository="painters/mini", revision=REVISION, **entry)


def test_a_repository_that_the_cache_holds_is_well_and_one_that_it_does_not_is_to_be_downloaded(hub: Hub) -> None:
    (before,) = look(of_hub())
    assert (before.state, f"hf download painters/mini --revision {REVISION}" in before.remedy) == ("warn", True)
    hub.hold("painters/mini", EMBEDDED)
    assert [finding.state for finding in look(of_hub())] == ["ok"]


def test_a_download_that_broke_off_goes_on_but_a_broken_file_does_not_mend_itself(hub: Hub) -> None:
    place = hub.hold("painters/mini", EMBEDDED)
    shutil.rmtree(place / "vae")
    (found,) = look(of_hub())
    assert (found.state, f"{place / 'vae'} is missing" in found.message) == ("warn", True)
    shutil.copytree(EMBEDDED / "vae", place / "vae")
    cut(place / UNET)
    (found,) = look(of_hub())
    assert (found.state, "is not whole" in found.message) == ("fail", True)


def test_nothing_can_be_downloaded_where_the_operator_forbids_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    del hub
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (found,) = look(of_hub())
    assert (found.state, "HF_HUB_OFFLINE" in found.message) == ("fail", True)


def test_a_registry_that_is_wrong_is_told_as_a_worker_would_tell_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = tmp_path / "models.toml"
    registry.write_text('[models.one]\npath = "nowhere"\n')
    monkeypatch.setenv("OVERPAINT_REGISTRY", str(registry))
    (found,) = check_registry()
    assert (found.check, found.state) == ("models", "fail")
    assert str(tmp_path / "nowhere") in found.message


def test_before_a_download_the_room_for_it_is_told(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del hub
    registry = tmp_path / "models.toml"
    registry.write_text(f'[models.one]\nrepository = "painters/mini"\nrevision = "{REVISION}"\n')
    monkeypatch.setenv("OVERPAINT_REGISTRY", str(registry))
    model, disk = check_registry()
    assert (model.state, disk.check) == ("warn", "disk")
    assert str(tmp_path) in disk.message
