"""Who is alive, whether all agree, and whether each model has a worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from overpaint_common.errors import BrokerUnavailable
from overpaint_common.findings import Finding, fail, ok, warn
from overpaint_common.fleet import ModelCard, WorkerCard
from overpaint_common.live import Live, connect
from overpaint_producer.cli.checks.redis import PATIENCE
from overpaint_producer.cli.checks.versions import DISTRIBUTION, installed_version


def check_fleet(url: str, ledger: str) -> Iterator[Finding]:
    """Which workers are alive, which models they serve, whether they agree, and whether each model has a worker."""
    live = Live(connect(url, patience=PATIENCE))
    try:
        models, workers, kept = live.models(), live.workers(), live.kept()
    except BrokerUnavailable:
        yield fail("fleet", "unknown while Redis does not answer", "see what is said of redis")
        return
    finally:
        live.close()
    for worker in workers:
        yield _worker(worker, ledger)
    yield from _allowlists(workers)
    yield from disagreements(workers, installed_version(DISTRIBUTION))
    if not workers:
        remedy = "start one: overpaint worker (jobs submitted meanwhile wait for it)"
        yield warn("worker", "none is alive", remedy)
    yield _keeper(kept)
    served = {name for worker in workers for name in worker.models}
    for name, card in sorted(models.items()):
        yield _model(card, idle=bool(workers) and name not in served)


def _keeper(kept: bool) -> Finding:
    if kept:
        return ok("keeper", "one leads")
    remedy = "start a worker, or `overpaint keeper`: nobody looks after dead workers, retries and deadlines"
    return warn("keeper", "none leads", remedy)


def _worker(worker: WorkerCard, ledger: str) -> Finding:
    message = f"{worker.name}: {', '.join(worker.models)} on {worker.device}, {worker.slots} slots"
    if worker.ledger in (None, ledger):
        return ok("worker", message)
    remedy = f"set OVERPAINT_LEDGER to one root everywhere; here it is {ledger}"
    return fail("worker", f"{message}; it keeps its ledger at {worker.ledger}", remedy)


def _model(card: ModelCard, *, idle: bool) -> Finding:
    message = f"{card.name}: {', '.join(card.operations)}, {card.family}, {card.native_size} pixels"
    if idle:
        return warn(
            "model", f"{message}; no living worker serves it", "start a worker with it, or jobs for it will wait"
        )
    return ok("model", message)


def _allowlists(workers: list[WorkerCard]) -> Iterator[Finding]:
    for name in sorted({name for worker in workers for name in worker.models}):
        places = {(worker.reads, worker.writes) for worker in workers if name in worker.models}
        if len(places) > 1:
            yield fail(
                "allowlists",
                f"the workers of {name} may not all read and write the same places",
                "set OVERPAINT_READ and OVERPAINT_WRITE alike for all of them: a job fails where its worker may not "
                "read or write what another may",
            )


def disagreements(workers: Sequence[WorkerCard], ours: str | None) -> Iterator[Finding]:
    """Packages of which the workers of one model have several versions, and where Overpaint is not `ours` everywhere.

    The same seed may then give another picture on the next worker.
    """
    for model in sorted({name for worker in workers for name in worker.models}):
        found: dict[str, dict[str, list[str]]] = {}
        for worker in workers:
            for package, installed in worker.versions.items() if model in worker.models else ():
                found.setdefault(package, {}).setdefault(installed, []).append(worker.name)
        for package, by_version in sorted(found.items()):
            if len(by_version) > 1:
                several = ", ".join(f"{installed} on {names[0]}" for installed, names in sorted(by_version.items()))
                yield warn(
                    "fleet versions",
                    f"the workers of {model} have several versions of {package}: {several}",
                    "run one image everywhere: a seed repaints the same picture only on the same software",
                )
    others = sorted({worker.versions.get(DISTRIBUTION, ours or "") for worker in workers} - {ours, ""})
    if ours and others:
        yield warn(
            "fleet versions",
            f"{DISTRIBUTION} is {ours} here and {', '.join(others)} on workers",
            "install one version everywhere; of a new one, the workers first",
        )
