from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

import overpaint_common
import overpaint_worker
from overpaint_common.errors import InternalError, SettingsError
from overpaint_common.failpoints import arm, hit
from tests.support.stack import eventually


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    arm("")


def hits_that_raise(name: str, hits: int) -> list[int]:
    raised = []
    for number in range(1, hits + 1):
        try:
            hit(name)
        except InternalError:
            raised.append(number)
    return raised


def test_a_point_that_is_not_armed_costs_next_to_nothing() -> None:
    """Given nothing armed, when a point is hit a hundred thousand times, then one takes well below 200 ns."""
    best = float("inf")
    for _ in range(100):
        started = time.perf_counter()
        for _ in range(1000):
            hit("claimed")
        best = min(best, time.perf_counter() - started)

    assert best / 1000 < 200e-9


@pytest.mark.parametrize(
    ("spec", "expected"), [("raise", [1]), ("raise@3", [3]), ("raise@3+", [3, 4, 5]), ("raise@1+", [1, 2, 3, 4, 5])]
)
def test_a_point_acts_at_the_hits_that_its_spec_names(spec: str, expected: list[int]) -> None:
    """Given a point armed for some hits, when it is hit five times, then it acts at those and at no other."""
    arm(f"claimed={spec}")

    assert hits_that_raise("claimed", 5) == expected


def test_only_the_named_point_acts() -> None:
    """Given two points armed, when a third is hit, then nothing happens."""
    arm("claimed=raise;uploaded=raise")

    hit("recorded")

    with pytest.raises(InternalError):
        hit("uploaded")


def test_a_point_that_acts_once_spares_the_process_that_comes_after(tmp_path: Path) -> None:
    """Given a point that acts once, when a second process is armed the same, then only the first one is hit."""
    spec = f"claimed=raise@1+,once:{tmp_path / 'done'}"
    arm(spec)
    first = hits_that_raise("claimed", 3)

    arm(spec)
    second = hits_that_raise("claimed", 3)

    assert first == [1]
    assert second == []


@pytest.mark.parametrize(
    ("action", "status"), [("kill", -signal.SIGKILL), ("segv", -signal.SIGSEGV), ("exit:7", 7), ("raise", 1)]
)
def test_an_action_ends_the_process_as_its_name_says(action: str, status: int) -> None:
    """Given a process with an armed point, when it gets there, then it dies of what the spec says."""
    code = f"from overpaint_common.failpoints import arm, hit; arm('claimed={action}'); hit('claimed')"

    ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False, timeout=20)

    assert ended.returncode == status


def test_a_gate_tells_when_it_is_reached_and_holds_until_it_is_opened(tmp_path: Path) -> None:
    """Given a gate, when a thread reaches it, then that can be seen, and the thread goes on once it is opened."""
    gate = tmp_path / "gate"
    arm(f"claimed=gate:{gate}")
    thread = Thread(target=hit, args=("claimed",), daemon=True)

    thread.start()
    eventually((tmp_path / "gate.reached").exists, "gate reached", 5)
    held = thread.is_alive()
    gate.touch()
    thread.join(5)

    assert held
    assert not thread.is_alive()


def test_a_sleep_takes_its_time() -> None:
    """Given a point that sleeps, when it is hit, then that takes as long as asked."""
    arm("claimed=sleep:0.1")
    started = time.monotonic()

    hit("claimed")

    assert 0.1 <= time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("claimd=kill", "none of that name"),
        ("claimed", "says no action"),
        ("claimed=explode", "is no action"),
        ("claimed=sleep", "is no action"),
        ("claimed=kill:3", "is no action"),
        ("claimed=sleep:long", "is no number"),
        ("claimed=kill@0", "is no hit"),
        ("claimed=kill@x+", "is no hit"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_and_changes_nothing(spec: str, said: str) -> None:
    """Given an armed point, when another spec is wrong, then SettingsError says so and the point stays armed."""
    arm("uploaded=raise")

    with pytest.raises(SettingsError, match=said):
        arm(spec)

    with pytest.raises(InternalError):
        hit("uploaded")


def test_no_code_of_ours_arms_a_point() -> None:
    """Given all code that ships, when it is searched, then only the tests arm fail points."""
    packages = [Path(overpaint_common.__file__).parent, Path(overpaint_worker.__file__).parent]
    files = [file for package in packages for file in package.rglob("*.py") if file.name != "failpoints.py"]

    assert files
    assert not [file for file in files if re.search(r"\barm\b", file.read_text())]
