"""The registry file: what an operator may write, and what is said of what he may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from overpaint_common.errors import SettingsError, UnknownModel
from overpaint_worker.engine.registry import EMBEDDED, ModelSpec, Registry

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def load(folder: Path, text: str) -> Registry:
    file = folder / "models.toml"
    file.write_text(text, encoding="utf-8")
    return Registry.load(file)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder that looks like a model as far as the registry looks."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    return folder


def test_a_full_file(tmp_path: Path, weights: Path) -> None:
    registry = load(
        tmp_path,
        f"""
        [models.local]
        path = "weights"          # counts from the file's own folder
        native_size = 64
        steps = 20

        [models."sdxl-1.0"]
        repository = "stabilityai/stable-diffusion-xl-base-1.0"
        revision = "{COMMIT}"
        family = "stable-diffusion-xl"
        pipeline = "StableDiffusionXLImg2ImgPipeline"
        dtype = "float16"
        native_size = 1024
        guidance_scale = 5.0
        max_steps = 100
        max_size = 1536
        """,
    )

    assert registry["local"].path == weights
    assert registry["local"].steps_rule == "floor"
    assert registry["sdxl-1.0"].repository == "stabilityai/stable-diffusion-xl-base-1.0"
    assert registry["sdxl-1.0"].guidance_scale == 5.0


def test_a_relative_path_counts_from_the_file_and_not_from_where_the_worker_runs(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)

    registry = load(tmp_path / "etc", '[models.m]\npath = "../weights"')
    relative = Registry.load(Path("etc/models.toml"))
    monkeypatch.chdir(elsewhere)

    assert registry["m"].path is not None
    assert registry["m"].path.samefile(weights)
    assert relative["m"].path is not None
    assert relative["m"].path.samefile(weights)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[models.m]\npath = "weights"\nstepz = 3', ["models.m.stepz: unknown field", "check its spelling"]),
        ('[model.m]\npath = "weights"', ["model: unknown field", "models: required"]),
        ("", ["models: required"]),
        ("[models]", ["models: Dictionary should have at least 1 item"]),
        ("[models.m]", ["models.m", "exactly one of path and repository"]),
        (
            f'[models.m]\npath = "weights"\nrepository = "a/b"\nrevision = "{COMMIT}"',
            ["models.m", "exactly one of path and repository"],
        ),
        ('[models.m]\nrepository = "a/b"', ["repository 'a/b' needs a revision", "full 40-digit commit"]),
        ('[models.m]\nrepository = "a/b"\nrevision = "main"', ["models.m.revision", "'main'"]),
        ('[models.m]\nrepository = "https://hub/a/b"\nrevision = "main"', ["models.m.repository", "https://hub/a/b"]),
        ('[models.m]\npath = "nowhere"', ["nowhere holds no model_index.json", "diffusers layout"]),
        ('[models.m]\npath = "weights"\ndtype = "int8"', ["models.m.dtype", "bfloat16", "'int8'"]),
        ('[models.m]\npath = "weights"\nfamily = "sd"', ["models.m.family", "flow-matching", "'sd'"]),
        ('[models.m]\npath = "weights"\nnative_size = 500', ["models.m.native_size", "multiple of 8", "500"]),
        ('[models.m]\npath = "weights"\nsteps = 0', ["models.m.steps", "greater than or equal to 1", "0"]),
        ('[models.m]\npath = "weights"\nguidance_scale = nan', ["models.m.guidance_scale", "finite"]),
        ('[models.m]\npath = "weights"\npipeline = "os.system"', ["models.m.pipeline", "'os.system'"]),
        ('[models.M]\npath = "weights"', ["models.M", "pattern"]),
        ("models = 3", ["models", "3"]),
        ("[models.m", ["is not TOML"]),
    ],
)
def test_a_bad_file_is_explained(tmp_path: Path, weights: Path, text: str, says: list[str]) -> None:
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, text)

    assert weights.exists()
    assert "model registry" in str(raised.value)
    assert [part for part in says if part not in str(raised.value)] == []


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, f'[models.a]\npath = "{weights}"\nsteps = 0\nspeed = 1\n[models.b]\npath = "x"\ndtype = "half"')

    assert all(part in str(raised.value) for part in ("models.a.steps", "models.a.speed", "models.b.dtype"))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: No such file or directory; set OVERPAINT_REGISTRY to a TOML"):
        Registry.load(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="Is a directory"):
        Registry.load(tmp_path)
    (tmp_path / "latin.toml").write_bytes('[models.m]\npath = "é"'.encode("latin-1"))
    with pytest.raises(SettingsError, match="is not TOML"):
        Registry.load(tmp_path / "latin.toml")


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(UnknownModel, match="model 'sdxl' is not in this worker's registry, which has overpaint-mini"):
        Registry.embedded()["sdxl"]


def test_the_embedded_registry_names_a_folder_that_ships() -> None:
    spec = Registry.embedded()["overpaint-mini"]

    assert spec.path == EMBEDDED
    assert (EMBEDDED / "model_index.json").is_file()
    assert ModelSpec(path=EMBEDDED).steps_rule == "floor"
