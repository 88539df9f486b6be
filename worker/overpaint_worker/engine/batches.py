"""One forward of a network for several calls of it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

# What diffusers' and transformers' own outputs are registered with.
from torch.utils import _pytree as pytree

from overpaint_worker.engine.families.family import Inputs

Tensors = list[torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """One call of a network, taken apart."""

    key: Hashable
    """Equal for calls that fit into one forward."""
    rows: int
    elements: int
    """Of each row of the network's first argument."""
    tensors: Mapping[str, Tensors]
    """[rows, ...] each, by the argument, in the order of its structure."""
    residuals: Mapping[str, Tensors]
    """The same, of the arguments that a call may lack."""
    structures: Mapping[str, Any]
    """Of all these arguments."""
    scale: float
    """What the call's rows are multiplied by in the end."""
    others: Mapping[str, Any]
    """What is alike in all calls of the key."""


class Batcher:
    """Puts together what several calls give to a network, and takes apart what it returns."""

    def __init__(self, network: Any, inputs: Inputs) -> None:
        """Raises ValueError for inputs that the network's `forward` does not take."""
        self._inputs = inputs
        self._signature = inspect.signature(network.forward)
        unknown = inputs.names - self._signature.parameters.keys()
        if unknown:
            raise ValueError(f"{type(network).__name__} takes no {', '.join(sorted(unknown))}; correct its family")

    def wanted(self, given: tuple[Any, ...], named: Mapping[str, Any]) -> Wanted:
        """A call with such arguments. Raises TypeError where `forward` does not take them."""
        bound = self._signature.bind(*given, **named).arguments
        # Pipelines differ in which of the defaults they pass on.
        arguments = {name: value for name, value in bound.items() if value is not self._default(name)}
        arguments |= arguments.pop("kwargs", {})
        inputs, structures = self._inputs, {}

        def taken(names: frozenset[str]) -> dict[str, Tensors]:
            found = {}
            for name in [name for name in arguments if name in names and arguments[name] is not None]:
                found[name], structures[name] = pytree.tree_flatten(arguments.pop(name))
            return found

        tensors, residuals = taken(inputs.rows), taken(inputs.residuals)
        first = next(iter(tensors.values()))[0]
        rows = len(first)
        timestep = torch.as_tensor(arguments.pop(inputs.timestep), device=first.device)
        if not timestep.is_floating_point():
            # Schedulers differ in it, and networks make it one first of all.
            timestep = timestep.float()
        tensors[inputs.timestep] = [timestep.reshape(-1).expand(rows)]
        structures[inputs.timestep] = pytree.tree_structure(timestep)
        scale = math.prod(arguments.pop(name) for name in inputs.scales & arguments.keys())
        others = {name: value for name, value in arguments.items() if name not in inputs.residuals}
        key = (
            tuple(
                (name, str(structures[name]), tuple(map(_shape, leaves))) for name, leaves in sorted(tensors.items())
            ),
            tuple((name, _identity(value, name in inputs.common)) for name, value in sorted(others.items())),
        )
        return Wanted(key, rows, first[0].numel(), tensors, residuals, structures, scale, others)

    def compute(self, network: Callable[[dict[str, Any]], Any], wanted: Sequence[Wanted], rows: int) -> list[Any]:
        """Call the network once for all of `wanted`, filled up to `rows`; what each gets of it."""
        first = wanted[0]
        more = rows - sum(each.rows for each in wanted)
        arguments = {
            name: _joined([each.tensors[name] for each in wanted], first.structures[name], more)
            for name in first.tensors
        }
        for name in {name: None for each in wanted for name in each.residuals}:
            like = next(each for each in wanted if name in each.residuals)
            leaves = [each.residuals.get(name) or _zeros(like.residuals[name], each.rows) for each in wanted]
            arguments[name] = _joined(leaves, like.structures[name], more)
        made = network({**arguments, **first.others})
        parts: list[Any] = []
        taken = 0
        for each in wanted:
            mine = slice(taken, taken := taken + each.rows)
            parts.append(pytree.tree_map(partial(_part, mine, each.scale), made))
        return parts

    def _default(self, name: str) -> Any:
        return self._signature.parameters[name].default


def _joined(calls: Sequence[Tensors], structure: Any, more: int) -> Any:
    """The leaves of several calls, one after another, and `more` times the last row."""
    joined = []
    for leaves in zip(*calls, strict=True):
        filling = [leaves[-1][-1:].expand(more, *leaves[-1].shape[1:])] if more else []
        whole = [*leaves, *filling]
        joined.append(torch.cat(whole) if len(whole) > 1 else whole[0])
    return pytree.tree_unflatten(joined, structure)


def _part(rows: slice, scale: float, leaf: torch.Tensor) -> torch.Tensor:
    # By a number, as networks do it: in half precision a tensor of it would be rounded first.
    return leaf[rows] if scale == 1 else leaf[rows] * scale


def _zeros(like: Tensors, rows: int) -> Tensors:
    return [leaf.new_zeros(rows, *leaf.shape[1:]) for leaf in like]


def _shape(leaf: torch.Tensor) -> Hashable:
    return tuple(leaf.shape[1:]), leaf.dtype


def _identity(value: Any, common: bool) -> Hashable:
    """What two calls must have alike to share this argument."""
    leaves, structure = pytree.tree_flatten(value)
    return str(structure), tuple(
        ((tuple(leaf.shape), leaf.dtype) if common else id(leaf)) if isinstance(leaf, torch.Tensor) else leaf
        for leaf in leaves
    )
