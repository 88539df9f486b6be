"""Whether the files of a model are there and whole; no weights are read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

PICKLES = (".bin", ".pt", ".pth", ".ckpt")

NO_WEIGHTS = ("scheduler", "tokenizer", "feature_extractor", "image_processor", "processor")
"""Words in the names of parts that are made of configuration alone, such as tokenizer_2 and low_res_scheduler."""


class Fault(NamedTuple):
    """One thing that is wrong with a model's files."""

    message: str
    missing: bool = False
    """Whether a file is not there, so that a download would bring it."""


def folder_faults(folder: Path, *, safety: bool) -> Iterator[Fault]:
    """What is wrong with a model's folder in the diffusers layout; with `safety`, its checker is needed too."""
    file = folder / "model_index.json"
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        yield Fault(f"{file} is missing", missing=True)
        return
    except (OSError, ValueError) as error:
        yield Fault(f"{file} cannot be read: {error}")
        return
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        yield Fault(f"{file} names no pipeline class of diffusers")
        return
    if not is_public(index["_class_name"]):
        yield Fault(f"the installed diffusers has no {index['_class_name']}, which model_index.json names")
    for name, part in index.items():
        if name == "safety_checker" and not safety:
            continue
        if isinstance(part, list) and part and part[0] is not None:
            yield from part_faults(folder / name, weights=not any(kind in name for kind in NO_WEIGHTS))
    if safety and not (folder / "safety_checker").is_dir():
        yield Fault(f'safety = "fail" needs {folder / "safety_checker"}, which is missing', missing=True)


def part_faults(folder: Path, *, weights: bool = True) -> Iterator[Fault]:
    """What is wrong with the folder of one network, or of a part that has no weights."""
    if not folder.is_dir():
        yield Fault(f"{folder} is missing", missing=True)
        return
    if not weights:
        return
    if not (folder / "config.json").is_file():
        yield Fault(f"{folder / 'config.json'} is missing", missing=True)
    files = sorted(folder.glob("*.safetensors"))
    for listing in sorted(folder.glob("*.safetensors.index*.json")):
        yield from _shard_faults(listing)
    if not files:
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
        found = f", only {', '.join(pickles)}, which may run code" if pickles else ""
        yield Fault(f"{folder} holds no safetensors{found}")
    for file in files:
        yield from file_faults(file)


def file_faults(file: Path) -> Iterator[Fault]:
    """What is wrong with one safetensors file: its header has to account for its every byte."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        yield Fault(f"{file} is missing", missing=True)
        return
    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        yield Fault(f"{file} is not whole: {error}")


def is_public(name: str) -> bool:
    """Whether diffusers offers a class of that name, read from its own list: importing it takes seconds."""
    spec = find_spec("diffusers")
    return spec is not None and spec.origin is not None and f'"{name}"' in Path(spec.origin).read_text(encoding="utf-8")


def bytes_of(place: Path) -> int:
    """Of the safetensors in a folder, or of one file."""
    files = place.rglob("*.safetensors") if place.is_dir() else [place]
    return sum(file.stat().st_size for file in files if file.is_file())


def _shard_faults(listing: Path) -> Iterator[Fault]:
    try:
        document: Any = json.loads(listing.read_text(encoding="utf-8"))
        shards = sorted(set(document["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield Fault(f"{listing} cannot be read: {type(error).__name__}: {error}")
        return
    for shard in shards:
        if not (listing.parent / shard).is_file():
            yield Fault(f"{listing.parent / shard} is missing, which {listing.name} names", missing=True)
