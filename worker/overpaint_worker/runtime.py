"""Everything that one worker process holds, built from its settings."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from overpaint_common.acceptance import Acceptance
from overpaint_common.errors import BrokerUnavailable
from overpaint_common.fleet import ModelCard, WorkerCard
from overpaint_common.ledger import Ledger
from overpaint_common.live import Live, connect
from overpaint_common.seeds import new_attempt_id
from overpaint_common.storage import Access, GuardedStore
from overpaint_common.tickets import Tickets, client_app
from overpaint_worker.announcer import Announcer
from overpaint_worker.drain import Drain
from overpaint_worker.engine.calls import Loader
from overpaint_worker.engine.engine import Engine
from overpaint_worker.engine.registry import Registry
from overpaint_worker.in_hand import InHand
from overpaint_worker.operations import SERVED
from overpaint_worker.reporter import Reporter
from overpaint_worker.settings import WorkerSettings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Runtime:
    """The parts of a worker process, ready to serve jobs once started."""

    settings: WorkerSettings
    worker: WorkerCard
    cards: dict[str, ModelCard]
    access: Access
    objects: GuardedStore
    """Sources and pictures, held to the operator's allowlists."""
    ledger: Ledger
    live: Live
    tickets: Tickets
    acceptance: Acceptance
    engine: Engine
    reporter: Reporter
    announcer: Announcer
    software: dict[str, str]
    drain: Drain
    in_hand: InHand = field(default_factory=InHand)

    @property
    def draining(self) -> threading.Event:
        """Set once the process is to end: nothing new is begun."""
        return self.drain.begun

    def start(self) -> None:
        """Look for the ledger, load the model, then tell producers; raises StorageError, ModelLoadFailed."""
        self.ledger.check()
        try:
            self.live.ping()
        except BrokerUnavailable as error:
            log.warning("no jobs until Redis answers: %s", error)
        names = list(self.cards)
        self.engine.start(preload=names[0])
        self.drain.start()
        self.reporter.start()
        self.announcer.start()

    def stop(self) -> None:
        self.draining.set()
        self.announcer.stop()
        self.engine.stop()
        self.reporter.stop()
        self.tickets.close()
        self.live.close()


def build(
    settings: WorkerSettings,
    registry: Registry,
    loader: Loader,
    *,
    device: str,
    software: dict[str, str],
    on_engine_death: Callable[[str], None],
) -> Runtime:
    """Wire the parts together; nothing is connected or loaded yet. Raises SettingsError."""
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
    )
    ledger = Ledger(store, settings.ledger_root)
    live = Live(connect(redis_url))
    tickets = Tickets(client_app(redis_url))
    engine = Engine(loader, on_death=on_engine_death)
    return Runtime(
        settings=settings,
        worker=worker,
        cards=cards,
        access=access,
        objects=GuardedStore(store, access),
        ledger=ledger,
        live=live,
        tickets=tickets,
        acceptance=Acceptance(ledger, live, tickets),
        engine=engine,
        drain=Drain(engine, settings.grace),
        reporter=Reporter(live),
        announcer=Announcer(live, worker, list(cards.values())),
        software=software,
    )


def card(name: str, registry: Registry, settings: WorkerSettings) -> ModelCard:
    """What producers are told of one registry entry."""
    spec = registry[name]
    return ModelCard(
        name=name,
        operations=SERVED,
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
    )
