"""Networks as a device computes them fastest: memory layout, compilation, fixed numbers of rows."""

from __future__ import annotations

import bisect
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils import _pytree as pytree

BUCKETS = (2, 4, 8, 16, 32)
"""Rows of compiled forwards; fewer are filled up."""
RECOMPILATIONS = 64
"""Shapes that one network may be compiled for; beyond so many, torch would run it as it is and say nothing."""

Compilation = Literal["off", "default", "graphs"]


@dataclass(frozen=True, slots=True)
class Acceleration:
    """What an operator chose; nothing of it by default, as is best on a CPU."""

    compilation: Compilation = "off"
    """default: torch.compile of whole networks; graphs: CUDA graphs besides (mode "reduce-overhead")."""
    channels_last: bool = False
    """Weights of convolutions in that memory layout."""
    buckets: tuple[int, ...] = BUCKETS
    """Rows that are compiled for, ascending."""


class Accelerated:
    """A network that is called with rows, compiled for those shapes that it was warmed up with.

    Other shapes run uncompiled: a compilation takes a minute or more, in which nobody else gets on.
    """

    def __init__(self, network: Any, acceleration: Acceleration) -> None:
        self._network = network
        self._acceleration = acceleration
        self._compiled: Any = None
        self._warm: set[Hashable] = set()
        if acceleration.channels_last:
            network.to(memory_format=torch.channels_last)
        if acceleration.compilation != "off":
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILATIONS)
            mode = "reduce-overhead" if acceleration.compilation == "graphs" else None
            self._compiled = torch.compile(network, mode=mode, dynamic=False)

    def bucket(self, shape: Hashable, rows: int) -> int:
        """The rows of a forward that holds so many of calls: more only where that makes a shape that is compiled."""
        buckets = self._acceleration.buckets
        place = bisect.bisect_left(buckets, rows)
        return buckets[place] if shape in self._warm and place < len(buckets) else rows

    def warm(self, shape: Hashable) -> tuple[int, ...]:
        """From now on calls of this shape run compiled; the numbers of rows to compile for, none where nothing is."""
        if self._compiled is None:
            return ()
        self._warm.add(shape)
        return self._acceleration.buckets

    def compute(self, shape: Hashable, rows: int, arguments: dict[str, Any]) -> Any:
        """What the network returns for tensors of `rows` rows."""
        if shape not in self._warm or rows not in self._acceleration.buckets:
            return self._network(**arguments)
        # Always laid out alike: networks are compiled for strides too.
        arguments = pytree.tree_map_only(torch.Tensor, torch.Tensor.contiguous, arguments)
        if self._acceleration.compilation != "graphs":
            return self._compiled(**arguments)
        torch.compiler.cudagraph_mark_step_begin()
        # The next replay of the graph overwrites what this one returns.
        return pytree.tree_map_only(torch.Tensor, torch.clone, self._compiled(**arguments))
