"""What containers are given is what the programs read: every variable is a setting, every value parses and fits."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from overpaint_common.references import Reference
from overpaint_common.settings import AccessSettings
from overpaint_worker.child import OVERTIME
from overpaint_worker.engine.registry import Registry
from overpaint_worker.keeper.sender import DEADLINE
from overpaint_worker.settings import KeeperSettings, WorkerSettings
from tests.infra.containers import EXAMPLE_ENV, KUSTOMIZATIONS, PLACES, Container, compose, example_env, named
from tests.infra.images import DOCKER

EVERY_PLACE = pytest.mark.parametrize("place", PLACES)
DEPLOYED = pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
READS: dict[str, type[AccessSettings]] = {"worker": WorkerSettings, "keeper": KeeperSettings}
"""What a program reads, by the command that starts it."""


def settings_of(container: Container, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> AccessSettings:
    """What the container's program makes of exactly its environment; raises SettingsError."""
    reads = next((READS[word] for word in container.argv if word in READS), AccessSettings)
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("OVERPAINT_", "AWS_"))]:
            patch.delenv(name)
        for name, value in container.local(folder, **changes).items():
            patch.setenv(name, value)
        return reads.load()


@EVERY_PLACE
def test_every_variable_is_a_setting(place: str) -> None:
    """Given the variables of ours that containers get, when the settings are read, then each is one of them."""
    known = {f"OVERPAINT_{name}".upper() for name in WorkerSettings.model_fields}
    for container in PLACES[place]().values():
        given = {name for name in container.environment if name.startswith("OVERPAINT_")}
        assert given
        assert given <= known | {"OVERPAINT_DEVICES"}, container.name


@EVERY_PLACE
def test_every_program_takes_its_environment(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given each container's environment and files, when its program's settings are loaded, then they are valid."""
    for container in PLACES[place]().values():
        settings = settings_of(container, tmp_path, monkeypatch)
        assert settings.access.read
        assert settings.access.write


@EVERY_PLACE
def test_workers_and_keepers_agree(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given all containers of one place, when what has to be alike is compared, then it is, and one keeper is left."""
    containers = PLACES[place]()
    loaded = [settings_of(each, tmp_path, monkeypatch) for each in containers.values()]
    alike = {
        (each.redis_url.get_secret_value(), each.ledger, each.read, each.write, each.webhooks, each.s3_endpoint_url)
        for each in loaded
    }
    assert len(alike) == 1
    assert len({each.lease for each in loaded if isinstance(each, KeeperSettings)}) == 1
    assert not any(each.keeper for each in loaded if isinstance(each, WorkerSettings))
    assert "keeper" in containers["keeper"].argv


@EVERY_PLACE
def test_registries_are_read_and_pinned(place: str, tmp_path: Path) -> None:
    """Given the models files that are mounted, when the registry is read, then every model is fixed to a commit."""
    mounted = [text for each in PLACES[place]().values() for path, text in each.files.items() if path.endswith(".toml")]
    assert mounted
    for text in mounted:
        (tmp_path / "models.toml").write_text(text)
        assert all(spec.revision for spec in Registry.load(tmp_path / "models.toml").models.values())


def test_the_registry_of_compose_is_the_file_that_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the path that example.env offers for the registry, when a worker gets it, then it serves models.toml."""
    (offered,) = re.findall(r"(/\S+\.toml) serves", EXAMPLE_ENV.read_text())
    worker = PLACES["compose"]()["worker"]
    assert worker.files.keys() == {offered}
    settings = settings_of(worker, tmp_path, monkeypatch, OVERPAINT_REGISTRY=str(tmp_path / offered.lstrip("/")))
    assert isinstance(settings, WorkerSettings)
    assert settings.open_registry().models.keys() == {"sd15"}


def test_compose_names_its_own_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the addresses of Redis and storage, when they are looked up, then services with those ports are there."""
    services = compose()["services"]
    settings = settings_of(PLACES["compose"]()["keeper"], tmp_path, monkeypatch)
    redis, store = urlsplit(settings.redis_url.get_secret_value()), urlsplit(settings.s3_endpoint_url or "")
    assert redis.password == services["redis"]["command"][services["redis"]["command"].index("--requirepass") + 1]
    for address in (redis, store):
        assert address.hostname in services
        published = services[address.hostname]["ports"]
        assert any(port.endswith(f":{address.port}") for port in published)
    assert settings.s3_addressing_style == "path"


def test_compose_publishes_on_loopback_alone() -> None:
    """Given the ports that are published, when their addresses are read, then none is reached from outside."""
    ports = [port for service in compose()["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_keeps_its_secrets_out_of_the_file() -> None:
    """Given other values in the env file, when compose.yaml is filled in, then nothing of the example is left."""
    secrets = {name: value for name, value in example_env().items() if re.search("PASSWORD|SECRET", name)}
    filled = repr(compose({**example_env(), **{name: f"other{name}" for name in secrets}}))
    assert not [name for name, value in secrets.items() if value and value in (DOCKER / "compose.yaml").read_text()]
    assert all(f"other{name}" in filled for name in secrets)


def test_every_variable_of_the_env_file_is_used() -> None:
    """Given example.env, when compose.yaml is read, then it takes each variable, but for Compose's own."""
    used = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
    assert example_env().keys() - used == {"COMPOSE_PROFILES"}
    assert used <= example_env().keys()
    profiles = {profile for service in compose()["services"].values() for profile in service.get("profiles", ())}
    assert example_env()["COMPOSE_PROFILES"] in profiles


def test_every_volume_of_compose_is_declared_and_used() -> None:
    """Given the volumes that services mount, when the declared ones are read, then they are the same."""
    whole = compose()
    mounts = [mount.split(":")[0] for each in whole["services"].values() for mount in each.get("volumes", ())]
    assert {mount for mount in mounts if not mount.startswith(".")} == whole["volumes"].keys()


def test_compose_gives_workers_and_keepers_the_time_they_take_to_stop() -> None:
    """Given how long Compose waits before it kills, when the programs' limits are read, then it is more."""
    services = compose()["services"]
    for name in ("worker", "worker-cpu"):
        assert _seconds(services[name]["stop_grace_period"]) > _grace(services[name]["environment"]) + OVERTIME
    assert _seconds(services["keeper"]["stop_grace_period"]) > DEADLINE


@DEPLOYED
def test_pods_get_the_time_they_take_to_stop(folder: Path) -> None:
    """Given how long a pod may take to end, when that is compared with the programs' limits, then it is more."""
    worker, keeper = (_pod(folder, name) for name in ("overpaint-worker", "overpaint-keeper"))
    environment = {each["name"]: each["value"] for each in worker["containers"][0]["env"]}
    assert worker["terminationGracePeriodSeconds"] > _grace(environment) + OVERTIME
    assert keeper["terminationGracePeriodSeconds"] > DEADLINE


@DEPLOYED
def test_workers_get_the_time_they_take_to_load(folder: Path) -> None:
    """Given how long a pod may take to start, when that is compared with the loading limit, then a rollout waits."""
    deployment = named(folder, "Deployment", "overpaint-worker")["spec"]
    probe = deployment["template"]["spec"]["containers"][0]["startupProbe"]
    patience = probe["periodSeconds"] * probe["failureThreshold"]
    assert patience > WorkerSettings.model_fields["load_limit"].default
    assert deployment["progressDeadlineSeconds"] > patience


@DEPLOYED
def test_a_worker_pod_has_one_device_and_does_without_none(folder: Path) -> None:
    """Given a worker's pod, when its device is read, then it asks for one, names it, and so never falls to the CPU."""
    (container,) = _pod(folder, "overpaint-worker")["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": "OVERPAINT_DEVICES", "value": "0"} in container["env"]


@DEPLOYED
@pytest.mark.parametrize("name", ["overpaint-worker", "overpaint-keeper"])
def test_pods_meet_the_restricted_standard(folder: Path, name: str) -> None:
    """Given a pod, when its rights are read, then they are those of Kubernetes' restricted Pod Security Standard.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    """
    pod = _pod(folder, name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert rights["readOnlyRootFilesystem"] is True
        assert "privileged" not in rights
    allowed = {
        "configMap",
        "emptyDir",
        "persistentVolumeClaim",
        "ephemeral",
        "secret",
        "projected",
        "csi",
        "downwardAPI",
    }
    assert all(volume.keys() - {"name"} <= allowed for volume in pod["volumes"])


@DEPLOYED
@pytest.mark.parametrize("name", ["overpaint-worker", "overpaint-keeper"])
def test_what_is_written_in_a_pod_lies_on_a_volume(folder: Path, name: str) -> None:
    """Given the folders that the image writes to, when a pod's mounts are read, then each lies on one of them."""
    pod = _pod(folder, name)
    mounts = [mount["mountPath"] for container in pod["containers"] for mount in container["volumeMounts"]]
    written = ["/tmp", *(path for path in _written(name) if path.startswith("/"))]
    assert all(any(Path(path).is_relative_to(mount) for mount in mounts) for path in written)


def test_buckets_of_the_ledger_and_of_jobs_are_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given every place, when its buckets are read, then the ledger's is not one that jobs read or write."""
    for place, containers in PLACES.items():
        settings = settings_of(containers()["keeper"], tmp_path, monkeypatch)
        jobs = {Reference.parse(prefix).bucket for prefix in (*settings.read, *settings.write)}
        assert settings.ledger_root.bucket not in jobs, place


def _written(deployment: str) -> list[str]:
    """The folders that the environment of a Deployment's image names."""
    environment = PLACES["base"]()[deployment.removeprefix("overpaint-")].image.final.environment
    return [value for name, value in environment.items() if name in ("HOME", "HF_HOME", "OVERPAINT_COMPILE_CACHE")]


def _pod(folder: Path, name: str) -> dict[str, Any]:
    pod: dict[str, Any] = named(folder, "Deployment", name)["spec"]["template"]["spec"]
    return pod


def _grace(environment: dict[str, str]) -> float:
    return float(environment["OVERPAINT_GRACE"])


def _seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text.removesuffix("s"))
