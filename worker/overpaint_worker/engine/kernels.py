"""How torch computes on the engine's thread: deterministic kernels, and another try where memory ran out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

_Result = TypeVar("_Result")


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within the block use deterministic kernels alone, or whatever is fastest."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if before != (wanted, before[1] and not wanted):
        torch.use_deterministic_algorithms(wanted)
        torch.backends.cudnn.benchmark = before[1] and not wanted
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def relieved(compute: Callable[[], _Result], relieve: Callable[[], None], *, again: bool = True) -> _Result:
    """What `compute` returns; where the device runs out of memory, `relieve` it, and try once more if `again`.

    Raises torch.OutOfMemoryError if that does not help.
    """
    try:
        return compute()
    except torch.OutOfMemoryError as error:
        message = str(error)
    # Not before here, since the traceback holds tensors.
    relieve()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if again:
        return compute()
    raise torch.OutOfMemoryError(message)
