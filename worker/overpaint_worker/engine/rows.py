"""How many rows a denoiser's forwards hold, seen at the denoiser: pipelines that guide differ in how they batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


class RowCount:
    """Of one call that runs as a whole."""

    def __init__(self) -> None:
        self.largest = 1
        """Rows of the largest forward so far."""


class Rows:
    """Looks at every forward of the denoiser that a pipeline holds."""

    def __init__(self, pipeline: Any) -> None:
        self._count: RowCount | None = None
        denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
        if isinstance(denoiser, torch.nn.Module):
            denoiser.register_forward_pre_hook(self._see, with_kwargs=True)

    @contextmanager
    def counted(self, count: RowCount) -> Iterator[None]:
        """Add the forwards within the block to a count."""
        self._count = count
        try:
            yield
        finally:
            self._count = None

    def _see(self, _: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if self._count is not None:
            latents = next(value for value in (*given, *named.values()) if isinstance(value, torch.Tensor | list))
            self._count.largest = max(self._count.largest, len(latents))
