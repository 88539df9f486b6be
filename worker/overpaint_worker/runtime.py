"""Everything that one worker process holds, built from its settings."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from overpaint_common.acceptance import Acceptance
from overpaint_common.dead import DeadLetters
from overpaint_common.errors import BrokerUnavailable
from overpaint_common.finish import Finish
from overpaint_common.fleet import ControlCard, ModelCard, WorkerCard
from overpaint_common.leases import Leases
from overpaint_common.ledger import Ledger
from overpaint_common.live import Live, connect
from overpaint_common.seeds import new_attempt_id
from overpaint_common.storage import Access, GuardedStore, ObjectStore
from overpaint_common.storage.probe import require_conditional_puts
from overpaint_common.tickets import Tickets
from overpaint_worker.announcer import Announcer
from overpaint_worker.consumption import Consumption
from overpaint_worker.drain import Drain
from overpaint_worker.engine.calls import Loader
from overpaint_worker.engine.engine import Engine, PhaseLimits
from overpaint_worker.engine.registry import Registry
from overpaint_worker.engine.residents import Budget
from overpaint_worker.engine.statistics import Statistics
from overpaint_worker.holding import Holdings
from overpaint_worker.reporter import Reporter
from overpaint_worker.settings import WorkerSettings
from overpaint_worker.shares import Shares

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Runtime:
    """The parts of a worker process, ready to serve jobs once started."""

    settings: WorkerSettings
    worker: WorkerCard
    cards: dict[str, ModelCard]
    access: Access
    store: ObjectStore
    """Whatever the settings reach: for the ledger alone."""
    objects: GuardedStore
    """Sources and pictures, held to the operator's allowlists."""
    ledger: Ledger
    finish: Finish
    live: Live
    tickets: Tickets
    leases: Leases
    holdings: Holdings
    acceptance: Acceptance
    engine: Engine
    reporter: Reporter
    announcer: Announcer
    software: dict[str, str]
    drain: Drain
    consumption: Consumption

    @property
    def draining(self) -> threading.Event:
        """Set once the process is to end: nothing new is begun."""
        return self.drain.begun

    def start(self) -> None:
        """Try the ledger, load the model, then tell producers; raises SettingsError, StorageError, ModelLoadFailed."""
        require_conditional_puts(self.store, self.settings.ledger_root)
        try:
            self.live.ping()
        except BrokerUnavailable as error:
            log.warning("no jobs until Redis answers: %s", error)
        names = list(self.cards)
        self.engine.start(preload=names[0])
        self.drain.start()
        self.holdings.start()
        self.reporter.start()
        self.announcer.start()

    def stop(self) -> None:
        self.draining.set()
        self.announcer.stop()
        self.engine.stop()
        self._tell(self.engine.statistics())
        self.holdings.stop()
        self.reporter.stop()
        self.live.close()

    def _tell(self, statistics: Statistics) -> None:
        caches = " ".join(
            f"{name}={use.hits}/{use.hits + use.misses}" for name, use in sorted(statistics.caches.items())
        )
        log.info(
            "engine busy=%.1f idle=%.1f forwards=%d rows=%d padded=%d %s",
            *(statistics.busy, statistics.idle, statistics.forwards, statistics.rows, statistics.padded, caches),
        )


def build(
    settings: WorkerSettings,
    registry: Registry,
    loader: Loader,
    budget: Budget | None,
    *,
    device: str,
    software: dict[str, str],
    on_engine_death: Callable[[str], None],
) -> Runtime:
    """Wire the parts together; nothing is connected or loaded yet. Raises SettingsError.

    `budget` is of the models that may be loaded at once, None for one at a time.
    """
    redis_url = settings.redis_url.get_secret_value()
    access = settings.access
    store = settings.open_store()
    cards = {name: card(name, registry, settings) for name in sorted(registry.models)}
    worker = WorkerCard(
        name=f"{socket.gethostname()}-{os.getpid()}-{new_attempt_id()[:4]}",
        device=device,
        models=tuple(cards),
        slots=settings.slots,
        pid=os.getpid(),
        started_at=datetime.now(UTC),
        reads=settings.read,
        writes=settings.write,
        ledger=settings.ledger,
        versions=software,
    )
    objects = GuardedStore(store, access)
    ledger = Ledger(store, settings.ledger_root)
    redis = connect(redis_url)
    live, tickets = Live(redis), Tickets(redis)
    leases = Leases(redis, seconds=settings.lease, worker=worker.name)
    holdings = Holdings(leases, seconds=settings.lease)
    limits = PhaseLimits(load=settings.load_limit, step=settings.step_limit)
    engine = Engine(loader, limits=limits, budget=budget, on_death=on_engine_death)
    drain = Drain(engine, holdings, settings.grace)
    consumption = Consumption(
        cards, Shares(settings.slots), leaving=drain.begun, submissions=settings.accept_submissions
    )
    return Runtime(
        settings=settings,
        worker=worker,
        cards=cards,
        access=access,
        store=store,
        objects=objects,
        ledger=ledger,
        finish=Finish(ledger, DeadLetters(store, settings.ledger_root), objects, redis),
        live=live,
        tickets=tickets,
        leases=leases,
        holdings=holdings,
        acceptance=Acceptance(ledger, redis),
        engine=engine,
        drain=drain,
        consumption=consumption,
        reporter=Reporter(live),
        announcer=Announcer(live, worker, list(cards.values())),
        software=software,
    )


def card(name: str, registry: Registry, settings: WorkerSettings) -> ModelCard:
    """What producers are told of one registry entry."""
    spec = registry[name]
    return ModelCard(
        name=name,
        operations=spec.operations,
        schedulers=spec.schedulers,
        controls=tuple(ControlCard(name=each, reads=control.reads) for each, control in spec.controls.items()),
        loras=tuple(spec.loras),
        embeddings=tuple(spec.embeddings),
        family=spec.family,
        steps_rule=spec.steps_rule,
        native_size=spec.native_size,
        default_steps=spec.steps,
        default_guidance_scale=spec.guidance_scale,
        max_steps=spec.max_steps,
        max_size=spec.max_size,
        revision=spec.revision or "local",
        reads=settings.read,
        writes=settings.write,
        ledger=settings.ledger,
        webhooks=settings.webhooks,
    )
