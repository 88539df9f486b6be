"""The families of models whose calls share forwards: each a module here with a FAMILY."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from overpaint_worker.engine.families.family import Family


@cache
def families() -> Mapping[str, Family]:
    """All of them, by the pipeline classes that they run."""
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    return {name: module.FAMILY for module in modules if hasattr(module, "FAMILY") for name in module.FAMILY.pipelines}
