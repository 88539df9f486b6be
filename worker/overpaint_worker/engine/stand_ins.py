"""What stands in a pipeline for its networks, so that others compute together with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch


class StandIn:
    """Looks like a network in every respect, and calls something else."""

    def __init__(self, network: Any, call: Callable[..., Any]) -> None:
        self._network = network
        self._call = call

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._call(*given, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Pipelines tell by it what they were given."""
        return type(self._network)

    def to(self, *_: Any, **__: Any) -> StandIn:
        """The network stays where it is."""
        return self


class VaeStandIn(StandIn):
    """The same of a VAE. It is asked to change its dtype, and what calls share must not."""

    def __init__(self, vae: Any, encode: Callable[..., Any], decode: Callable[..., Any]) -> None:
        """`encode` and `decode` take the dtype to compute in, and what the VAE's methods take."""
        super().__init__(vae, vae.__call__)
        self._encode = encode
        self._decode = decode
        self.dtype = vae.dtype

    def encode(self, *given: Any, **named: Any) -> Any:
        return self._encode(self.dtype, *given, **named)

    def decode(self, *given: Any, **named: Any) -> Any:
        return self._decode(self.dtype, *given, **named)

    def to(self, *given: Any, **named: Any) -> VaeStandIn:
        wanted = [value for value in (*given, *named.values()) if isinstance(value, torch.dtype)]
        self.dtype = wanted[0] if wanted else self.dtype
        return self

    @property
    def post_quant_conv(self) -> VaeStandIn:
        """Pipelines look at its parameters for the dtype that the VAE has by now."""
        return self

    def parameters(self) -> Iterator[torch.Tensor]:
        yield torch.empty(0, dtype=self.dtype)
