"""Shows a call's latents while it is under way."""

from __future__ import annotations

import logging
from typing import Any

import torch

from overpaint_worker.engine.calls import Call
from overpaint_worker.engine.previews import LatentPreview

log = logging.getLogger(__name__)

EVERY = 5
"""Steps from one preview to the next."""


class Showing:
    """The previews of one call that wants them; whatever goes wrong, the call does not learn of it."""

    def __init__(self, call: Call, config: Any) -> None:
        """`config` of the VAE."""
        self._call = call
        self._config = config
        self._preview: LatentPreview | None = None
        self._steps = 0

    def learn(self, mean: torch.Tensor) -> None:
        """Fit the preview to the VAE's posterior mean of the call's picture, [1, channels, height, width]."""
        if self._call.on_preview is None or self._preview is not None:
            return
        try:
            self._preview = LatentPreview.fit(self._scaled(mean), self._call.picture)
        except Exception:
            log.warning("no preview of this call", exc_info=True)

    def step(self, latents: Any) -> None:
        """Show the latents after another call of the denoiser, if it is time; packed ones cannot be shown."""
        self._steps += 1
        if self._call.on_preview is None or self._preview is None or self._steps % EVERY:
            return
        if not isinstance(latents, torch.Tensor) or latents.ndim != 4:
            return
        try:
            self._call.on_preview(self._preview.of(latents))
        except Exception:
            log.warning("preview not shown", exc_info=True)

    def _scaled(self, mean: torch.Tensor) -> torch.Tensor:
        shift = getattr(self._config, "shift_factor", None) or 0.0
        return (mean - shift) * self._config.scaling_factor
