"""What diffusers offers is known without importing it, for `overpaint doctor`."""

from __future__ import annotations

import diffusers
import pytest

from overpaint_worker.checks.weights import is_public


@pytest.mark.parametrize("name", ["StableDiffusionXLImg2ImgPipeline", "FluxKontextPipeline", "NoSuchPipeline"])
def test_a_class_is_known_by_name_exactly_where_diffusers_has_it(name: str) -> None:
    """Given the name of a class, when it is looked up in diffusers' own list, then the answer is the module's own."""
    assert is_public(name) == (name in dir(diffusers))
