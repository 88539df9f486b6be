"""The supervisor: what it starts again and after how long, and when it gives up. Its children are shell scripts."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from overpaint_worker.supervisor import Supervisor
from tests.support.stack import eventually


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    monkeypatch.setattr("overpaint_worker.supervisor.FIRST_BACKOFF", 0.1)
    monkeypatch.setattr("overpaint_worker.supervisor.LAST_BACKOFF", 0.4)
    caplog.set_level(logging.INFO, "overpaint_worker.supervisor")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Scene:
    """A folder for children to leave marks in, and the supervisor's log."""

    def __init__(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.folder = folder
        self._caplog = caplog

    def run(self, script: str, *devices: str, until: Callable[[], bool] = lambda: False) -> int:
        """Supervise `sh` on `script` until it ends by itself or `until` holds; returns the exit status."""
        return self.supervise(("/bin/sh", "-c", f"cd '{self.folder}'\n{script}"), *devices, until=until)

    def supervise(self, command: tuple[str, ...], *devices: str, until: Callable[[], bool]) -> int:
        supervisor = Supervisor(devices, grace=10, command=command)
        ended = threading.Event()

        def watch() -> None:
            try:
                eventually(lambda: until() or ended.is_set(), "the end of the scene", 20)
            finally:
                supervisor.stop()

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            return supervisor.run()
        finally:
            ended.set()
            watching.join()

    def started(self, device: str) -> list[float]:
        """When each of the device's children was started."""
        return self.logged(f"child started device={device} ")

    def logged(self, text: str) -> list[float]:
        """When the log said so."""
        return [record.created for record in list(self._caplog.records) if text in record.getMessage()]

    def marked(self, name: str) -> bool:
        return (self.folder / name).exists()


@pytest.fixture
def scene(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Scene:
    return Scene(tmp_path, caplog)


def test_a_device_that_cannot_start_leaves_the_others_alone(scene: Scene) -> None:
    """Given a child that ends with 78, when another device's child dies after that, then it is still replaced."""

    def replaced() -> bool:
        given_up = scene.logged("device given up device=bad")
        return bool(given_up) and scene.started("good")[-1] > given_up[0]

    script = "test $OVERPAINT_DEVICE = bad && sleep 0.3 && exit 78; exit 70"
    assert scene.run(script, "bad", "good", until=replaced) == 0
    assert len(scene.started("bad")) == 1


def test_the_supervisor_ends_when_no_device_is_left(scene: Scene) -> None:
    """Given children that all end with 78, when the last one has, then so does the supervisor."""
    assert scene.run("exit 78", "a", "b") == 78
    assert [len(scene.started(device)) for device in ("a", "b")] == [1, 1]
    assert len(scene.logged("device given up")) == 2


def test_a_device_that_once_worked_is_never_given_up(scene: Scene) -> None:
    """Given a child that ended otherwise, when later ones end with 78, then another one is started all the same."""
    script = "test -e second && touch third && exec sleep 60; test -e first && touch second && exit 78; touch first"
    assert scene.run(script, "a", until=lambda: scene.marked("third")) == 0
    assert len(scene.logged("child ended device=a status=78")) == 1
    assert scene.logged("device given up") == []


def test_a_child_that_cannot_be_started_is_tried_again(scene: Scene) -> None:
    """Given a command that is not there, when it appears later, then its child runs; until then the log says why."""
    program, ready = scene.folder / "child", scene.folder / "new"
    ready.write_text('#!/bin/sh\ntouch "${0%/*}/served"\nexec sleep 60\n')
    ready.chmod(0o755)

    def served() -> bool:
        if ready.exists() and len(scene.logged("child not started device=a: [Errno 2] No such file")) >= 2:
            ready.rename(program)
        return scene.marked("served")

    assert scene.supervise((str(program),), "a", until=served) == 0


def test_crashes_are_met_with_longer_and_longer_pauses(scene: Scene) -> None:
    """Given a child that ends at once, when it is replaced, then the pauses double up to a limit."""
    scene.run("exit 70", "a", until=lambda: len(scene.started("a")) >= 5)
    gaps = [after - before for before, after in pairwise(scene.started("a"))]
    assert all(gap >= pause for gap, pause in zip(gaps, (0.1, 0.2, 0.4, 0.4), strict=False)), gaps


def test_what_is_stopped_is_not_replaced(scene: Scene) -> None:
    """Given a child that serves, when the supervisor is stopped, then the child may end in its own time."""
    script = "trap 'sleep 0.3; touch drained; exit 0' TERM; touch serving; while :; do sleep 0.05; done"
    assert scene.run(script, "a", until=lambda: scene.marked("serving")) == 0
    assert scene.marked("drained")
    assert len(scene.started("a")) == 1
