"""Where peers paint: in this process, or in one of their own, where they compile while others do something else."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

from bench.engine.contest import Arrival, Run, run
from bench.engine.jobs import WARM_UP
from bench.engine.peers import EnginePeer, Painter, Peer, PipelinePeer, call_of
from bench.engine.pipelines import Pixels, compile_in_place
from bench.gpu import sizes
from bench.gpu.device import gauged
from bench.gpu.subjects import Subject
from overpaint_worker.engine.acceleration import Acceleration, Compilation
from overpaint_worker.engine.loading import Tuning

PEERS = {
    "a": "(a) loop",
    "a'": "(a') loop, compiled",
    "b": "(b) batches",
    "c": "(c) engine",
    "c'": "(c') engine, compiled",
    "c''": "(c'') engine, graphs",
}
LOOPS = ("a", "a'")
COMPILED = ("a'", "c'", "c''")
GRACE = 5.0
"""Seconds that a process has for its end."""
_COMPILATIONS: dict[str, Compilation] = {"c": "off", "c'": "default", "c''": "graphs"}


@dataclass(frozen=True)
class Outcome:
    """What a peer made of some arrivals."""

    run: Run
    pictures: list[Pixels]
    peak: int | None
    """Bytes beyond what it holds at rest."""
    used: float | None
    """Share of the time in which the device ran a kernel."""


class BoothLost(Exception):
    """A peer that does not answer, or that failed."""


class Booth(Protocol):
    """A peer that was opened."""

    key: str
    name: str

    def run(self, arrivals: Sequence[Arrival], patience: float) -> Outcome:
        """Raises BoothLost, also where it takes longer than `patience` seconds and can be stopped."""

    def close(self) -> None: ...


def open_peer(subject: Subject, key: str, *, pipeline: Any = None) -> Peer:
    """One of PEERS, not started yet; those that are not compiled may share the subject's `pipeline`."""
    plan, name = subject.plan, PEERS[key]
    if key.startswith("c"):
        tuned = Acceleration(_COMPILATIONS[key], channels_last=key != "c", buckets=plan.buckets)
        loader = subject.loader(subject.dtype, Tuning(tuned, warm_up=True))
        asked = sizes.call_of if subject.control is not None else call_of
        return EnginePeer(name, loader, plan.name, in_flight=plan.at_once, call_of=asked)
    pipeline = pipeline or subject.direct(subject.dtype)
    # Of many large pictures at once a VAE would run out of memory.
    pipeline.vae.enable_slicing()
    paint: Painter | None = None
    if subject.control is not None:
        paint = partial(sizes.paint, pipeline, subject.controlled(pipeline))
    if key in COMPILED:
        compile_in_place(pipeline)
    return PipelinePeer(name, pipeline, most=1 if key in LOOPS else plan.at_once, paint=paint)


class LocalBooth:
    """In this process."""

    def __init__(self, subject: Subject, key: str, *, pipeline: Any = None) -> None:
        """Opens and starts the peer, and warms it up."""
        self.key, self.name = key, PEERS[key]
        self._device = subject.device
        self._peer = open_peer(subject, key, pipeline=pipeline)
        self._peer.start()
        _warm_up(self._peer, subject)

    def run(self, arrivals: Sequence[Arrival], patience: float) -> Outcome:  # noqa: ARG002
        return _outcome(self._peer, arrivals, self._device)

    def close(self) -> None:
        self._peer.stop()


class RemoteBooth:
    """In a process of its own, which can be ended at any time."""

    def __init__(self, subject: Subject, key: str) -> None:
        """Starts the process, and does not wait for it."""
        self.key, self.name = key, PEERS[key]
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, subject, key), name=f"{subject.plan.name} {key}")
        self._process.start()
        theirs.close()
        self._seconds: float | None = None

    def ready(self, patience: float) -> float:
        """Wait until it has warmed up; the seconds that loading and warming up took it. Raises BoothLost."""
        if self._seconds is None:
            self._seconds = float(self._answer(patience))
        return self._seconds

    def run(self, arrivals: Sequence[Arrival], patience: float) -> Outcome:
        self._connection.send(list(arrivals))
        outcome = self._answer(patience)
        assert isinstance(outcome, Outcome)
        return outcome

    def close(self) -> None:
        self._connection.close()
        if self._seconds is not None:
            # It has seen that.
            self._process.join(GRACE)
        self._process.kill()
        self._process.join()

    def _answer(self, patience: float) -> Any:
        if not self._connection.poll(max(0.0, patience)):
            raise BoothLost(f"no answer within {patience:.0f} s")
        try:
            answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise BoothLost(f"its process ended with exit code {self._process.exitcode}") from None
        if isinstance(answer, BoothLost):
            raise answer
        return answer


def _serve(connection: Connection, subject: Subject, key: str) -> None:
    # Whoever interrupts the bench interrupts its first process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        began = time.perf_counter()
        peer = open_peer(subject, key)
        peer.start()
        _warm_up(peer, subject)
        connection.send(time.perf_counter() - began)
        while True:
            connection.send(_outcome(peer, connection.recv(), subject.device))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        connection.send(BoothLost(f"{type(error).__name__}: {error}"[:500]))


def _warm_up(peer: Peer, subject: Subject) -> None:
    """With and without guidance, of the size that it is compiled for."""
    run(peer, [(0.0, job) for job in WARM_UP.jobs(4, seed=0, size=subject.plan.size)])


def _outcome(peer: Peer, arrivals: Sequence[Arrival], device: str) -> Outcome:
    with gauged(device) as gauge:
        measured, pictures = run(peer, arrivals)
    return Outcome(measured, pictures, gauge.peak, gauge.used)
