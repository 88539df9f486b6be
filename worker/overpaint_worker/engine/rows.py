"""How many rows a denoiser's forwards hold, seen at the denoiser: pipelines that guide differ in how they batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


class Rows:
    """Looks at every forward of the denoiser that a pipeline holds, by call, also where calls run within calls."""

    def __init__(self, pipeline: Any) -> None:
        self._running: list[RowCount] = []
        denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
        if isinstance(denoiser, torch.nn.Module):
            denoiser.register_forward_pre_hook(self._see, with_kwargs=True)

    @contextmanager
    def counted(self) -> Iterator[RowCount]:
        """The forwards within the block, but for those of blocks within it."""
        count = RowCount()
        self._running.append(count)
        try:
            yield count
        finally:
            self._running.remove(count)

    def _see(self, _: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if self._running:
            latents = next(value for value in (*given, *named.values()) if isinstance(value, torch.Tensor | list))
            self._running[-1].largest = max(self._running[-1].largest, len(latents))


class RowCount:
    """Of one call."""

    def __init__(self) -> None:
        self.largest = 1
        """Rows of the largest forward so far."""
