"""The stepped lane: a pipeline whose networks are computed together with those of other calls."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch.utils import _pytree as pytree

from overpaint_worker.engine.acceleration import Accelerated, Acceleration
from overpaint_worker.engine.adapters import Adapters
from overpaint_worker.engine.batches import Batcher, Wanted
from overpaint_worker.engine.caches import ByteCache
from overpaint_worker.engine.calls import Call
from overpaint_worker.engine.families import families
from overpaint_worker.engine.families.family import Family, Inputs
from overpaint_worker.engine.kernels import deterministic, relieved
from overpaint_worker.engine.memory import Memory
from overpaint_worker.engine.profile import Footprint, Room
from overpaint_worker.engine.routines import Turn, wait
from overpaint_worker.engine.showing import Showing
from overpaint_worker.engine.stand_ins import StandIn, VaeStandIn
from overpaint_worker.engine.statistics import CacheUse
from overpaint_worker.engine.transfers import pin

PROFILED = 2, 8
"""Rows of the two forwards that tell how much memory they take."""


class SteppedLane:
    """Prepares the pipelines of one model, so that its calls share forwards.

    What they call is computed on the device in turns: networks of the family for many calls at once, texts and
    pictures one at a time, since a cached value must not depend on who was beside it.
    """

    def __init__(
        self, name: str, adapters: Adapters, memory: Memory, *, cache_bytes: int, acceleration: Acceleration
    ) -> None:
        """`name` is the model's, `memory` that of its device."""
        self._name = name
        self._adapters = adapters
        self._memory = memory
        self._room = Room(memory)
        self._acceleration = acceleration
        self._networks: dict[int, _Network] = {}
        self._seen: dict[_Network, Wanted] | None = None
        """What each network is called with, while it is warmed up."""
        self._prompts: ByteCache[Any] = ByteCache(cache_bytes // 4, _bytes)
        self._posteriors: ByteCache[torch.Tensor] = ByteCache(cache_bytes - cache_bytes // 4, _bytes)

    def family_of(self, pipeline: Any) -> Family | None:
        """The family that a pipeline is of; None for those that run as a whole."""
        return families().get(type(pipeline).__name__)

    def prepare(self, pipeline: Any, family: Family, call: Call, showing: Showing) -> None:
        """Put stand-ins into a pipeline that is the call's own."""
        # Bound to another copy, so that the pipeline does not hold itself.
        plain, own = copy.copy(pipeline), vars(pipeline)
        for name, inputs in family.networks.items():
            network = own.get(name)
            if network is not None:
                own[name] = self._stand_in(name, network, inputs, call)
        own["vae"] = self._vae(pipeline.vae, call, showing)
        for name in family.encode_prompt:
            if hasattr(pipeline, name):
                own[name] = partial(self._encode_prompt, getattr(plain, name), call)
        device = pipeline._execution_device
        if device.type == "cuda":
            pin(pipeline, device)
        # At its end a pipeline would send away parts that others use.
        own["_all_hooks"], own["final_offload_hook"] = [], None

    def warm_up(self, run: Callable[[], object]) -> None:
        """Compute what `run`, a call at the model's native size, wants, with every number of rows that is compiled for.

        Learns on the way how many rows a forward may have.
        """
        self._seen = {}
        run()
        seen, self._seen = self._seen, None
        for network, wanted in seen.items():
            for rows in network.accelerated.warm(_shape([wanted], False)):
                self._computed(network, wanted, rows)
        for network, wanted in list(seen.items())[-1:]:
            few, many = (
                (rows * wanted.elements, self._memory.peak(partial(self._computed, network, wanted, rows)))
                for rows in PROFILED
            )
            if few[1] is not None and many[1] is not None:
                self._room.learn(Footprint.measured((few[0], few[1]), (many[0], many[1])))

    def _computed(self, network: _Network, wanted: Wanted, rows: int) -> None:
        one = replace(wanted, rows=1, tensors=_first_row(wanted.tensors), residuals=_first_row(wanted.residuals))
        with torch.inference_mode():
            self._adapters.use(())
            network.compute([one] * rows, _shape([wanted], False))

    def caches(self) -> Mapping[str, CacheUse]:
        return {"prompts": self._prompts.use, "posteriors": self._posteriors.use}

    def _stand_in(self, name: str, network: Any, inputs: Inputs, call: Call) -> StandIn:
        if isinstance(network, MultiControlNetModel):
            parts = SimpleNamespace(nets=[self._stand_in(name, each, inputs, call) for each in network.nets])
            return StandIn(network, partial(MultiControlNetModel.forward, parts))
        if id(network) not in self._networks:
            self._networks[id(network)] = _Network(network, inputs, self._acceleration)
        shared = self._networks[id(network)]

        def compute(wanted: Sequence[Wanted]) -> list[Any]:
            shape = _shape(wanted, call.reproducible)
            with self._within(call):
                # Several are not tried again together: the loop halves them.
                return relieved(lambda: shared.compute(wanted, shape), self._relieve, again=len(wanted) == 1)

        def forward(*given: Any, **named: Any) -> Any:
            wanted = shared.batcher.wanted(given, named)
            if self._seen is not None:
                # The denoiser comes last, after the control networks whose residuals it takes.
                self._seen.pop(shared, None)
                self._seen[shared] = wanted
            return wait(
                Turn(
                    group=(self._name, name, id(network), call.loras, call.reproducible, wanted.key),
                    compute=compute,
                    wanted=wanted,
                    rows=wanted.rows,
                    alone=call.reproducible,
                    most=self._room.most_rows(wanted.elements),
                    bucket=partial(shared.accelerated.bucket, _shape([wanted], call.reproducible)),
                )
            )

        return StandIn(network, forward)

    def _vae(self, vae: Any, call: Call, showing: Showing) -> VaeStandIn:
        def encode(dtype: torch.dtype, sample: torch.Tensor, return_dict: bool = True) -> Any:
            key = call.reproducible, dtype, tuple(sample.shape), _digest(sample)

            def encoded() -> Any:
                # Looked up when its turn comes: others that waited before may have wanted the same.
                moments = self._posteriors.get(key)
                if moments is not None:
                    return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments))
                made = _in_dtype(vae, dtype, lambda: vae.encode(sample))
                distribution = getattr(made, "latent_dist", None)
                if isinstance(distribution, DiagonalGaussianDistribution):
                    self._posteriors.put(key, distribution.parameters)
                return made

            made = encoded() if key in self._posteriors else self._one("vae", call, encoded)
            if isinstance(getattr(made, "latent_dist", None), DiagonalGaussianDistribution):
                showing.learn(made.latent_dist.mean)
            return made if return_dict else made.to_tuple()

        def decode(dtype: torch.dtype, *given: Any, **named: Any) -> Any:
            return self._one("vae", call, lambda: _in_dtype(vae, dtype, lambda: vae.decode(*given, **named)))

        return VaeStandIn(vae, encode, decode)

    def _encode_prompt(self, encode: Callable[..., Any], call: Call, *given: Any, **named: Any) -> Any:
        asked, structure = pytree.tree_flatten((given, named))
        key = call.reproducible, encode.__name__, call.loras, str(structure), *asked

        def encoded() -> Any:
            found = self._prompts.get(key)
            if found is None:
                found = encode(*given, **named)
                self._prompts.put(key, found)
            return found

        return encoded() if key in self._prompts else self._one("text", call, encoded)

    def _one(self, kind: str, call: Call, compute: Callable[[], Any]) -> Any:
        """What a part computes for one call alone."""

        def alone(wanted: Sequence[Callable[[], Any]]) -> list[Any]:
            with self._within(call):
                return [relieved(each, self._relieve) for each in wanted]

        return wait(Turn((self._name, kind), alone, compute, alone=True))

    @contextmanager
    def _within(self, call: Call) -> Iterator[None]:
        """What computing for a call, and for those that share its forward, takes on the engine's thread."""
        with torch.inference_mode(), deterministic(call.reproducible):
            self._adapters.use(call.loras)
            yield

    def _relieve(self) -> None:
        self._prompts.clear()
        self._posteriors.clear()


class _Network:
    """One that calls share."""

    def __init__(self, network: Any, inputs: Inputs, acceleration: Acceleration) -> None:
        self.batcher = Batcher(network, inputs)
        self.accelerated = Accelerated(network, acceleration)

    def compute(self, wanted: Sequence[Wanted], shape: Hashable) -> list[Any]:
        rows = self.accelerated.bucket(shape, sum(each.rows for each in wanted))
        return self.batcher.compute(partial(self.accelerated.compute, shape, rows), wanted, rows)


def _shape(wanted: Sequence[Wanted], reproducible: bool) -> Hashable:
    """What a network is compiled for, beside the number of rows; never for deterministic kernels, which stay as is."""
    return wanted[0].key, any(each.residuals for each in wanted), reproducible


def _first_row(tensors: Mapping[str, Sequence[torch.Tensor]]) -> dict[str, list[torch.Tensor]]:
    return {name: [leaf[:1] for leaf in leaves] for name, leaves in tensors.items()}


def _in_dtype(vae: Any, dtype: torch.dtype, compute: Callable[[], Any]) -> Any:
    """What a VAE computes in the dtype that a pipeline moved its stand-in to: some overflow in float16."""
    own = vae.dtype
    if dtype == own:
        return compute()
    vae.to(dtype=dtype)
    try:
        return compute()
    finally:
        vae.to(dtype=own)


def _digest(tensor: torch.Tensor) -> bytes:
    return hashlib.blake2b(tensor.cpu().contiguous().view(torch.uint8).numpy().data, digest_size=20).digest()


def _bytes(value: Any) -> int:
    return sum(leaf.nbytes for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))
