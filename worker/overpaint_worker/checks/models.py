"""The registry's models: where each part of them is, and whether its files are whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from overpaint_common.configuration import Reading
from overpaint_common.errors import SettingsError
from overpaint_common.findings import Finding, amount, fail, from_errors, ok, warn
from overpaint_common.room import check_room, existing
from overpaint_worker.checks.weights import Fault, bytes_of, file_faults, folder_faults, is_public, part_faults
from overpaint_worker.engine.registry import FileSpec, ModelSpec, Registry, Weights
from overpaint_worker.settings import WorkerSettings

CHECK = "model files"

DOWNLOAD = 20 * 2**30
"""Bytes: SDXL takes 7 GB and Flux 34; whoever downloads more than one of them needs to look closer."""


def check_registry() -> Iterator[Finding]:
    """Every model of the registry that these settings name."""
    try:
        registry, compiled = _settings()
    except SettingsError as error:
        yield from from_errors("models", error)
        return
    downloads = False
    for name, spec in registry.models.items():
        for finding in check_model(name, spec):
            downloads = downloads or finding.state == "warn"
            yield finding
    if downloads:
        from huggingface_hub import constants

        folder = existing(Path(constants.HF_HUB_CACHE))
        if folder is not None:
            yield check_room("models from the hub", folder, DOWNLOAD, "point HF_HOME to a larger disk")
    if compiled is not None:
        yield _writable(compiled)


def check_model(name: str, spec: ModelSpec) -> Iterator[Finding]:
    """One finding for each thing that is wrong with a model, or one that says what it is made of."""
    if spec.pipeline is not None and not is_public(spec.pipeline):
        yield fail(CHECK, f"{name}: the installed diffusers has no {spec.pipeline}", "correct pipeline in the registry")
        return
    places, clean = list(_places(spec)), True
    for what, part, place in places:
        faults = [Fault("is not in the hub's cache yet", missing=True)] if place is None else _faults(part, place)
        for finding in _findings(f"{name}{what and f', {what}'}", part, faults):
            clean = False
            yield finding
    if clean:
        parts = [what for what, _, _ in places if what]
        size = amount(sum(bytes_of(place) for _, _, place in places if place is not None))
        yield ok(CHECK, f"{name}: {size} of weights in {places[0][2]}{''.join(f', {part}' for part in parts)}")


def _places(spec: ModelSpec) -> Iterator[tuple[str, Weights, Path | None]]:
    """What a model is made of: what to call it, its entry, and where it is; None where it is to be downloaded."""
    yield "", spec, _place(spec, "model_index.json")
    for name, control in spec.controls.items():
        yield f"control {name}", control, _place(control, "config.json")
        if control.depth is not None:
            yield f"depth model of {name}", control.depth, _place(control.depth, "config.json")
    for name, lora in spec.loras.items():
        yield f"LoRA {name}", lora, _place(lora, lora.file or "")
    for word, learnt in spec.embeddings.items():
        yield f"embedding {word}", learnt, _place(learnt, learnt.file or "")


def _place(spec: Weights, holds: str) -> Path | None:
    """The folder of `spec`, or its file for a FileSpec."""
    if spec.path is not None:
        return spec.path / holds if isinstance(spec, FileSpec) and holds else spec.path
    from huggingface_hub import try_to_load_from_cache

    if not holds:  # A file is to be named, and the loader says so.
        return None
    found = try_to_load_from_cache(str(spec.repository), holds, revision=spec.revision)
    if not isinstance(found, str):
        return None
    return Path(found) if isinstance(spec, FileSpec) else Path(found).parent


def _faults(spec: Weights, place: Path) -> Iterable[Fault]:
    if isinstance(spec, ModelSpec):
        return folder_faults(place, safety=spec.safety == "fail")
    return file_faults(place) if isinstance(spec, FileSpec) else part_faults(place)


def _findings(name: str, spec: Weights, faults: Iterable[Fault]) -> Iterator[Finding]:
    for fault in faults:
        message = f"{name}: {fault.message}"
        if spec.repository is None:
            yield fail(CHECK, message, "copy the model anew, or correct its entry in the registry")
            continue
        fetch = f"hf download {spec.repository} --revision {spec.revision}"
        if not fault.missing:
            yield fail(CHECK, message, f"delete it there and fetch it again: {fetch}")
        elif os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            yield fail(CHECK, f"{message}, and HF_HUB_OFFLINE forbids the download", f"fetch it beforehand: {fetch}")
        else:
            yield warn(CHECK, f"{message}; it is fetched when a job first needs it", f"fetch it beforehand: {fetch}")


def _settings() -> tuple[Registry, Path | None]:
    """The registry and the folder of compiled kernels. Models can be looked at where a worker could not start."""
    try:
        settings = WorkerSettings.load()
    except SettingsError:
        file = Reading.of(WorkerSettings).value("registry")
        return Registry.load(Path(file)) if file else Registry.embedded(), None
    return settings.open_registry(), settings.compile_cache


def _writable(folder: Path) -> Finding:
    check, there = "compile cache", existing(folder)
    if (folder.exists() and not folder.is_dir()) or there is None or not os.access(there, os.W_OK | os.X_OK):
        return fail(check, f"{folder} cannot be written", "correct OVERPAINT_COMPILE_CACHE")
    return ok(check, f"{folder} can be written")
