"""Group normalisation over a picture of which the device sees one tile at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

MOST_DRIFT = 4.0
"""Times that a variance may grow or shrink from round to round: a flat tile's tells little of the whole's."""
FLAT = 1e-6
"""A variance about as small says nothing."""


class SharedNorms:
    """Lets a network normalise all tiles alike, by the mean and variance of the whole picture.

    Each tile by its own would come out in colours and contrasts of its own, with a seam wherever two meet. What the
    whole has is known once every tile has been through, so each round foretells it from the round before: the tile that
    was most like the whole goes first, and the whole is taken to have moved as that one has. The first round has
    nothing to go by, and takes each tile's own. (Li et al. 2024, DistriFusion, correct each tile by its own move, which
    is a seam again where tiles differ much.)

    A round is every tile once, in the order of `order`; figures are [2, groups of all layers and rows], mean and
    variance.
    """

    def __init__(self, network: torch.nn.Module, shares: Sequence[float]) -> None:
        """`shares`: of the whole, for each tile; they add up to 1."""
        self._layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.GroupNorm)]
        self._shares = torch.tensor(shares)[:, None]
        self._found: dict[int, torch.Tensor] = {}
        """By tile, of this round so far; in host memory."""
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None
        """Of the whole and of the reference tile, as the last round found them."""
        self._reference = 0
        self._foretold: torch.Tensor | None = None
        """Of the whole, for the tiles after the reference; on the device."""

    @property
    def order(self) -> list[int]:
        """Of the tiles of the next round, by number."""
        return sorted(range(len(self._shares)), key=lambda number: number != self._reference)

    @contextmanager
    def tile(self, number: int, device: torch.device) -> Iterator[None]:
        """Within the block the network, called once, takes this tile. Nobody else may call it then."""
        norm = self._norm(device)
        for layer in self._layers:
            layer.forward = partial(norm, layer)
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward
        self._found[number] = _joined(norm.found).cpu()
        if self._last is not None and self._foretold is None:
            self._foretold = _joined(norm.used)
        if len(self._found) == len(self._shares):
            self._end_round()

    def _norm(self, device: torch.device) -> _Norm:
        if self._foretold is not None:
            return _Norm(self._foretold)
        if self._last is None:
            return _Norm()
        whole, reference = self._last
        return _Norm(whole.to(device), reference.to(device))

    def _end_round(self) -> None:
        every = torch.stack([self._found[number] for number in range(len(self._shares))])
        means, variances = every.unbind(1)
        mean = (self._shares * means).sum(0)
        variance = (self._shares * (variances + (means - mean) ** 2)).sum(0)
        unlike = (means - mean) ** 2 / (variance + FLAT) + ((variances + FLAT) / (variance + FLAT)).log() ** 2
        self._reference = int(unlike.sum(1).argmin())
        self._last = torch.stack([mean, variance]), every[self._reference]
        self._found, self._foretold = {}, None


class _Norm:
    """What the GroupNorm layers of a network do for the length of one forward."""

    def __init__(self, whole: torch.Tensor | None = None, reference: torch.Tensor | None = None) -> None:
        """Normalises by `whole`; with `reference`, by that moved as this tile has since it had those figures; without
        either, by the tile's own."""
        self._whole = whole
        self._reference = reference
        self._groups = 0
        self.found: list[torch.Tensor] = []
        """The tile's own figures, layer by layer."""
        self.used: list[torch.Tensor] = []

    def __call__(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        """What a layer makes of [rows, channels, ...]."""
        groups = x.reshape(len(x), layer.num_groups, -1).float()
        variance, mean = torch.var_mean(groups, dim=-1, correction=0)
        own = torch.stack([mean.flatten(), variance.flatten()])
        used = self._figures(own)
        self.found.append(own)
        self.used.append(used)
        self._groups += own.shape[1]
        mean, variance = used.reshape(2, *mean.shape, 1)
        normed = ((groups - mean) * torch.rsqrt(variance + layer.eps)).reshape(x.shape).to(x.dtype)
        if layer.weight is None:
            return normed
        per_channel = (1, -1, *(1,) * (x.ndim - 2))
        return normed * layer.weight.view(per_channel) + layer.bias.view(per_channel)

    def _figures(self, own: torch.Tensor) -> torch.Tensor:
        here = slice(self._groups, self._groups + own.shape[1])
        if self._whole is None:
            return own
        whole = self._whole[:, here]
        if self._reference is None:
            return whole
        before = self._reference[:, here]
        drift = ((own[1] + FLAT) / (before[1] + FLAT)).clamp(1 / MOST_DRIFT, MOST_DRIFT)
        return torch.stack([whole[0] + own[0] - before[0], whole[1] * drift])


def _joined(figures: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(figures), dim=1) if figures else torch.zeros(2, 0)
