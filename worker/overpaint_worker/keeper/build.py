"""A keeper from its settings."""

from __future__ import annotations

import os
import socket

from overpaint_common.dead import DeadLetters
from overpaint_common.finish import Finish
from overpaint_common.leases import Leases
from overpaint_common.ledger import Ledger
from overpaint_common.live import Live, connect
from overpaint_common.storage import GuardedStore
from overpaint_common.storage.probe import require_conditional_puts
from overpaint_common.tickets import Tickets
from overpaint_worker.keeper.backlog import Backlog
from overpaint_worker.keeper.deliveries import Deliveries
from overpaint_worker.keeper.endings import Endings
from overpaint_worker.keeper.keeper import Keeper, Parts
from overpaint_worker.keeper.leader import Leader
from overpaint_worker.keeper.raw import RawMessages
from overpaint_worker.keeper.rebuild import Rebuild
from overpaint_worker.keeper.sender import Sender
from overpaint_worker.settings import KeeperSettings


def build_keeper(settings: KeeperSettings) -> Keeper:
    """Wire the parts together; nothing is connected yet. Raises SettingsError."""
    redis = connect(settings.redis_url.get_secret_value())
    store = settings.open_store()
    outputs = GuardedStore(store, settings.access)
    ledger, live, tickets = Ledger(store, settings.ledger_root), Live(redis), Tickets(redis)
    leases = Leases(redis, seconds=settings.lease, worker=f"keeper {socket.gethostname()}-{os.getpid()}")
    dead = DeadLetters(store, settings.ledger_root)
    finish = Finish(ledger, dead, outputs, redis)
    deliveries = Deliveries(redis, ledger, Sender.of(settings)) if settings.webhooks else None
    rebuild = Rebuild(redis, ledger, tickets, lease=settings.lease)
    parts = Parts(
        check=lambda: require_conditional_puts(store, settings.ledger_root),
        leader=Leader(redis),
        leases=leases,
        backlog=Backlog(redis, tickets),
        endings=Endings(ledger, finish, live, leases),
        rebuild=rebuild,
        chores=(RawMessages(redis, dead).tick, *((deliveries.tick,) if deliveries else ())),
        recover=(deliveries.recover,) if deliveries else (),
        close=(rebuild.close, *((deliveries.close,) if deliveries else ())),
    )
    return Keeper(parts, lease=settings.lease)
