"""What the images and services start, started: the same words and variables, as real processes beside Redis and S3."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from urllib.parse import urlsplit

import psutil
import pytest

from overpaint_worker.engine.registry import EMBEDDED
from tests.infra.conftest import Host
from tests.infra.containers import PLACES, compose, of_compose
from tests.support.programs import required
from tests.support.stack import eventually

EMBEDDED_MODEL = f'[models.overpaint-mini]\npath = "{EMBEDDED}"\nnative_size = 64\n'


def test_redis_is_what_doctor_asks_for(host: Host) -> None:
    """Given Redis under compose.yaml's command, when the tools service runs its own, then nothing of it fails."""
    done = host.run(of_compose()["tools"], "overpaint", *compose()["services"]["tools"]["command"], "--json")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout
    states = {finding["check"]: finding["state"] for finding in findings}
    for check in ("redis", "redis eviction", "redis persistence", "storage", "conditional put"):
        assert states[check] == "ok", findings


def test_the_health_check_of_redis_tells_whether_it_answers(host: Host) -> None:
    """Given compose.yaml's check, when it runs with the password and without, then only the first succeeds."""
    redis_cli = required("redis-cli")
    service = compose()["services"]["redis"]
    kind, program, *arguments = service["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "redis-cli")
    port = str(urlsplit(host.addresses["OVERPAINT_REDIS_URL"]).port)
    command = [redis_cli, "-p", port, *arguments]
    with_password = subprocess.run(command, env=service["environment"], capture_output=True, timeout=20)
    without = subprocess.run(command, env={}, capture_output=True, timeout=20)
    assert (with_password.returncode, without.returncode != 0) == (0, True)


def test_buckets_are_made_once_and_may_be_asked_for_again(host: Host) -> None:
    """Given the buckets of compose.yaml, made already, when the one-shot service runs again, then it says so."""
    done = host.run(of_compose()["buckets"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name}: there already" for name in ("overpaint-ledger", "photos", "pictures")]


@pytest.mark.parametrize("place", ["compose", pytest.param("base", marks=pytest.mark.long)])
def test_a_keeper_comes_up_leads_and_ends(place: str, host: Host) -> None:
    """Given a keeper's container, when it is started and told to stop, then its probe sees it lead, and it ends well.

    That the probe fails afterwards shows that it saw this keeper.
    """
    keeper = PLACES[place]()["keeper"]
    with host.running(keeper) as process:
        eventually(lambda: process.exit_code is not None or host.live.kept(), "a keeper leads")
        assert host.serves(keeper, "keeper")
        assert process.stop(20) == 0, process.tail()
    assert not host.serves(keeper, "keeper")


def test_a_probe_says_what_is_missing(host: Host) -> None:
    """Given no worker, and then no Redis, when a worker's probe runs, then it fails and says which it was."""
    worker = of_compose()["worker-cpu"]
    probe = ("overpaint", "ready", "worker")
    lonely = host.run(worker, *probe)
    assert (lonely.returncode, lonely.stdout) == (3, "")
    assert "no worker of" in lonely.stderr
    deaf = host.run(worker, *probe, OVERPAINT_REDIS_URL="redis://127.0.0.1:1/0")
    assert deaf.returncode == 3
    assert "Traceback" not in deaf.stderr


@pytest.mark.long
@pytest.mark.parametrize(("place", "name"), [("compose", "worker-cpu"), ("base", "worker")])
def test_a_worker_comes_up_and_ends(place: str, name: str, host: Host) -> None:
    """Given a worker's container, when it is started on the CPU and told to stop, then its probe sees it between.

    The embedded model takes the place of the one that the registry would fetch.
    """
    worker = PLACES[place]()[name]
    registry = host.folder / "embedded.toml"
    registry.write_text(EMBEDDED_MODEL)
    changes = {
        "OVERPAINT_REGISTRY": str(registry),
        "OVERPAINT_DEVICES": "cpu",
        "OVERPAINT_CPU_THREADS": "1",
    }
    with host.running(worker, **changes) as process:
        eventually(lambda: process.exit_code is not None or bool(host.live.workers()), "worker ready", 90)
        assert host.serves(worker, "worker"), process.tail()
        began = time.monotonic()
        assert process.stop(int(worker.given["OVERPAINT_GRACE"])) == 0, process.tail()
        assert time.monotonic() - began < 30
    assert not host.serves(worker, "worker")


@pytest.mark.long
def test_a_pod_without_its_device_ends_instead_of_painting_on_the_cpu(host: Host) -> None:
    """Given the pod's environment where there is no CUDA device, when it starts, then it ends with status 78."""
    worker = PLACES["base"]()["worker"]
    registry = host.folder / "embedded.toml"
    registry.write_text(EMBEDDED_MODEL)
    with host.running(worker, OVERPAINT_REGISTRY=str(registry), CUDA_VISIBLE_DEVICES="") as process:
        assert process.wait(60) == 78, process.tail()
        assert "finds no such CUDA device" in process.tail()


@pytest.mark.long
def test_a_keeper_that_is_process_one_ends_when_it_is_told_to(host: Host) -> None:
    """Given a keeper as its namespace's first process, which no signal ends by default, when SIGTERM comes, it ends."""
    unshare = shutil.which("unshare")
    namespace = [unshare or "", "--pid", "--fork", "--"]
    if unshare is None or subprocess.run([*namespace, "true"], capture_output=True, timeout=20).returncode:
        pytest.skip("no process namespace can be made here")
    keeper = of_compose()["keeper"]
    with host.running(keeper, before=namespace) as process:
        eventually(lambda: process.exit_code is not None or host.live.kept(), "a keeper leads")
        (first,) = psutil.Process(process.pid).children()
        first.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, process.tail()
