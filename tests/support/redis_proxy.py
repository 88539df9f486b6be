"""A recording TCP proxy on loopback that misbehaves on request, to stand in front of a Redis.

    with RedisProxy(redis.url) as proxy:
        rule = proxy.on(commands("EVALSHA", "overpaint:lease:"), drop_response(), times=1)
        ...                       # talk to proxy.url instead of the server
        assert rule.hits == 1

The newest rule that matches and is not used up decides what happens to a command; without one it passes untouched.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

from tests.support.resp import Command, Frames
from tests.support.rules import Rule, Rules

KEPT = 200_000
"""Newest commands that are remembered."""

_Result = TypeVar("_Result")
Predicate = Callable[[Command], bool]


class Fault:
    """What may happen to one command on its way; the base passes it on."""

    async def before(self) -> bool:
        """Called before the server sees the command; False cuts the connection instead."""
        return True

    async def after(self) -> bool:
        """Called when the server has answered; False cuts the connection instead of passing the answer on."""
        return True


class _Delay(Fault):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def after(self) -> bool:
        await asyncio.sleep(self._seconds)
        return True


class _Reset(Fault):
    async def before(self) -> bool:
        return False


class _DropResponse(Fault):
    async def after(self) -> bool:
        return False


def delay(seconds: float) -> Fault:
    """Latency: the server acts at once and its answer comes later."""
    return _Delay(seconds)


def reset() -> Fault:
    """The connection is cut before the server sees the command."""
    return _Reset()


def drop_response() -> Fault:
    """The server acts on the command, and the connection is cut before its answer arrives."""
    return _DropResponse()


def commands(name: str | None = None, key_part: str = "") -> Predicate:
    """Commands of that name (any by default) whose first key contains `key_part`."""
    wanted = name and name.upper()
    return lambda command: wanted in (None, command.name) and key_part in command.key


class RedisProxy:
    """See the top of this file. Safe to use from several threads; reachable from other processes."""

    def __init__(self, upstream: str) -> None:
        address = urlsplit(upstream)
        if address.scheme != "redis" or not address.hostname:
            raise ValueError(f"upstream {upstream!r}: only redis:// servers can be proxied")
        self._upstream = (address.hostname, address.port or 6379)
        self._database = address.path or "/0"
        self._lock = Lock()
        self._rules: Rules[Command, Fault] = Rules()
        self._recorded: deque[Command] = deque(maxlen=KEPT)
        self._numbers = 0
        self._connections: set[_Connection] = set()
        self._latency = 0.0
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = Thread(target=self._loop.run_forever, name="redis-proxy", daemon=True)
        self._thread.start()
        self._port = 0
        self._server = self._run(self._listen())

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}{self._database}"

    @property
    def recorded(self) -> list[Command]:
        """The newest KEPT commands in the order of their arrival."""
        with self._lock:
            return list(self._recorded)

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def on(self, matches: Predicate, fault: Fault, *, times: int | None = None) -> Rule[Command, Fault]:
        """Apply `fault` to matching commands, `times` of them or (None) all."""
        return self._rules.add(matches, fault, times)

    def clear(self) -> None:
        """Forget all rules and recorded commands."""
        self._rules.clear()
        with self._lock:
            self._recorded.clear()

    def cut(self, matches: Predicate | None = None) -> int:
        """Cut the connections whose last command matches, or all; returns how many there were."""

        async def cut() -> int:
            chosen = [c for c in self._connections if matches is None or (c.last is not None and matches(c.last))]
            for connection in chosen:
                connection.abort()
            return len(chosen)

        return self._run(cut())

    @contextmanager
    def down(self) -> Iterator[None]:
        """Inside, connections are refused and open ones are cut; afterwards the proxy serves the same port again."""
        self._run(self._close())
        try:
            yield
        finally:
            self._server = self._run(self._listen())

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Inside, connections stay open and new ones are accepted, but nothing passes; what was sent passes later."""
        self._loop.call_soon_threadsafe(self._flowing.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._flowing.set)

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Inside, whatever passes takes so long in each direction."""
        self._latency = seconds
        try:
            yield
        finally:
            self._latency = 0.0

    def __enter__(self) -> RedisProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def rule_for(self, command: Command) -> Fault | None:
        with self._lock:
            self._recorded.append(command)
        rule = self._rules.meet(command)
        return rule.fault if rule else None

    async def passage(self) -> None:
        """Returns when bytes may pass."""
        if self._latency:
            await asyncio.sleep(self._latency)
        await self._flowing.wait()

    def _run(self, work: Coroutine[None, None, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> asyncio.Server:
        self._refusing = False
        server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=256)
        self._port = server.sockets[0].getsockname()[1]
        return server

    async def _close(self) -> None:
        self._refusing = True  # A connection may have been accepted already without being served yet.
        self._server.close()
        served = [connection.task for connection in self._connections]
        for connection in self._connections:
            connection.abort()
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self._numbers += 1
        connection = _Connection(self, self._numbers, reader, writer)
        self._connections.add(connection)
        try:
            # Cancelled when the proxy goes down, which asyncio's own handler would report as an error.
            with suppress(OSError, EOFError, asyncio.CancelledError):
                await connection.serve(*self._upstream)
        finally:
            self._connections.discard(connection)
            connection.abort()


class _Connection:
    """One client and its connection to the server."""

    def __init__(
        self, proxy: RedisProxy, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy, self._number = proxy, number
        self._reader, self._writer = reader, writer
        self._server: asyncio.StreamWriter | None = None
        self._unanswered: deque[Fault | None] = deque()
        self.last: Command | None = None
        task = asyncio.current_task()
        assert task is not None
        self.task = task

    async def serve(self, host: str, port: int) -> None:
        """Until either side closes, or a fault cuts the connection."""
        await self._proxy.passage()
        answers, self._server = await asyncio.open_connection(host, port)
        pumps = [asyncio.create_task(self._requests(self._server)), asyncio.create_task(self._answers(answers))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    def abort(self) -> None:
        for writer in (self._writer, self._server):
            if writer is not None:
                writer.transport.abort()

    async def _requests(self, server: asyncio.StreamWriter) -> None:
        frames = Frames()
        while data := await self._reader.read(65536):
            await self._proxy.passage()
            for frame in frames.feed(data):
                self.last = Command.parse(frame, self._number)
                fault = self._proxy.rule_for(self.last)
                if (fault and not await fault.before()) or server.is_closing():
                    return
                self._unanswered.append(fault)
                server.write(frame)
            await server.drain()

    async def _answers(self, answers: asyncio.StreamReader) -> None:
        frames = Frames()
        while data := await answers.read(65536):
            await self._proxy.passage()
            for frame in frames.feed(data):
                pushed = frame.startswith(b">")
                fault = self._unanswered.popleft() if self._unanswered and not pushed else None
                if (fault and not await fault.after()) or self._writer.is_closing():
                    return
                self._writer.write(frame)
            await self._writer.drain()
