"""Three ways to paint jobs on one device: one after another, in batches of equal jobs, and with the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from bench.engine import pipelines
from bench.engine.jobs import Job
from bench.engine.pipelines import Pixels
from overpaint_worker.engine.calls import Call, Loader
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.statistics import CacheUse


@dataclass(frozen=True)
class Counters:
    """What a peer's device has done so far."""

    forwards: int = 0
    """Of the denoiser."""
    rows: int = 0
    """That they held of pictures."""
    padded: int = 0
    """That they held besides, to fill a shape."""
    busy: float = 0.0
    """Seconds at work."""

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.forwards + other.forwards,
            self.rows + other.rows,
            self.padded + other.padded,
            self.busy + other.busy,
        )

    def __sub__(self, before: Counters) -> Counters:
        return self + Counters(-before.forwards, -before.rows, -before.padded, -before.busy)


class Peer(Protocol):
    """Paints jobs, in whatever order and company it chooses."""

    name: str

    def start(self) -> None: ...

    def submit(self, jobs: Sequence[Job], /) -> list[Future[Pixels]]:
        """Hand over jobs that arrive at one moment, and return at once."""

    def counters(self) -> Counters: ...

    def stop(self) -> None: ...


@contextmanager
def running(peers: Sequence[Peer]) -> Iterator[None]:
    """All of them started; stopped at the end of the block."""
    with ExitStack() as stack:
        for peer in peers:
            peer.start()
            stack.callback(peer.stop)
        yield


Painter = Callable[[Sequence[Job]], list[Pixels]]
"""Paints jobs of one kind in one call."""

Waiting = list[tuple[Job, "Future[Pixels]"]]


def alike(waiting: Waiting, most: int) -> Waiting:
    """The oldest and the next ones of its kind, `most` in all."""
    return [item for item in waiting if item[0].kind == waiting[0][0].kind][:most]


class PipelinePeer:
    """A thread that calls a diffusers pipeline on what waits, whenever the pipeline is free."""

    def __init__(self, name: str, pipeline: Any, *, most: int, paint: Painter | None = None) -> None:
        """`most`: pictures a call; with 1 it is a plain loop. Peers may share a pipeline if they take turns.

        `paint` calls the pipeline, or others with the same denoiser; None for jobs that need nothing besides.
        """
        self.name = name
        self._pipeline = pipeline
        self._most = most
        self._paint = paint or partial(pipelines.paint_each if most == 1 else pipelines.paint_batch, pipeline)
        self._changed = threading.Condition()
        self._waiting: Waiting = []
        self._stopping = False
        self._counters = Counters()
        self._thread = threading.Thread(target=self._serve, name=f"peer {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, jobs: Sequence[Job], /) -> list[Future[Pixels]]:
        arrived: Waiting = [(job, Future()) for job in jobs]
        with self._changed:
            self._waiting += arrived
            self._changed.notify()
        return [future for _, future in arrived]

    def counters(self) -> Counters:
        return self._counters

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        while batch := self._next():
            try:
                with self._counted():
                    painted = self._paint([job for job, _ in batch])
            except Exception as error:
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), pixels in zip(batch, painted, strict=True):
                future.set_result(pixels)

    def _next(self) -> Waiting:
        """Empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if self._stopping:
                return []
            batch = alike(self._waiting, self._most)
            self._waiting = [item for item in self._waiting if item not in batch]
            return batch

    @contextmanager
    def _counted(self) -> Iterator[None]:
        forwards, rows, began = 0, 0, time.perf_counter()

        def see(_: Any, given: Sequence[Any], named: Mapping[str, Any]) -> None:
            nonlocal forwards, rows
            forwards += 1
            rows += len(next(value for value in (*given, *named.values()) if isinstance(value, torch.Tensor)))

        hook = pipelines.denoiser_of(self._pipeline).register_forward_pre_hook(see, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()
            self._counters += Counters(forwards, rows, 0, time.perf_counter() - began)


def call_of(job: Job, model: str) -> Call:
    """The engine's call for a job."""
    return Call(
        model=model,
        op="img2img",
        picture=job.picture,
        prompt=job.prompt,
        negative_prompt="",
        steps=job.steps,
        strength=job.strength,
        guidance_scale=job.guidance_scale,
        seed=job.seed,
    )


class EnginePeer:
    """The engine, with a bounded number of calls in flight, each waited for by a thread as in a worker."""

    def __init__(
        self,
        name: str,
        loader: Loader,
        model: str,
        *,
        in_flight: int,
        call_of: Callable[[Job, str], Call] = call_of,
    ) -> None:
        """`call_of` makes the engine's call for a job."""
        self.name = name
        self._model = model
        self._call_of = call_of
        self._engine = Engine(loader)
        self._slots = ThreadPoolExecutor(in_flight, thread_name_prefix=f"peer {name}")

    def start(self) -> None:
        self._engine.start(preload=self._model)

    def submit(self, jobs: Sequence[Job], /) -> list[Future[Pixels]]:
        return [self._slots.submit(self._paint, job) for job in jobs]

    def counters(self) -> Counters:
        told = self._engine.statistics()
        return Counters(told.forwards, told.rows, told.padded, told.busy)

    def caches(self) -> Mapping[str, CacheUse]:
        """What the engine's caches were good for so far, by name."""
        return self._engine.statistics().caches

    def stop(self) -> None:
        self._engine.stop()
        self._slots.shutdown(cancel_futures=True)

    def _paint(self, job: Job) -> Pixels:
        return self._engine.submit(self._call_of(job, self._model)).result().pixels
