"""A producer without Redis, storage and workers, for the tests of whoever uses Overpaint.

Needs the extra `testing`: `pip install 'overpaint[testing]'`.
"""

from __future__ import annotations

try:
    import fakeredis  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "overpaint_producer.testing needs fakeredis, which is not installed; run: pip install 'overpaint[testing]'",
        name="fakeredis",
    ) from error

from overpaint_producer.testing.memory import (
    AsyncInMemoryProducer,
    Identified,
    InMemoryProducer,
    WebhookRequest,
    general_model,
)
from overpaint_producer.testing.standin import StandIn

__all__ = [
    "AsyncInMemoryProducer",
    "Identified",
    "InMemoryProducer",
    "StandIn",
    "WebhookRequest",
    "general_model",
]
