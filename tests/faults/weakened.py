"""Builds that break a promise on purpose, by which the suite shows that it would notice.

    unconditional_put       the record is put whether or not there is one
    ack_before_commit       the lease is ended and the ticket acknowledged before the record is put
    marker_before_webhook   the open marker is deleted before the webhook is handed over

A fleet without a keeper needs no weakening: OVERPAINT_KEEPER=false.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from overpaint_common.storage import S3Store


def weaken(names: Iterable[str]) -> None:
    """Patch this process; raises KeyError for a name that is none of the above."""
    for name in names:
        WEAKENINGS[name]()


def _unconditional_put() -> None:
    put = S3Store.put

    def unconditional(self: S3Store, *arguments: Any, if_absent: bool = False, **others: Any) -> Any:
        del if_absent
        return put(self, *arguments, **others)

    setattr(S3Store, "put", unconditional)


def _ack_before_commit() -> None:
    raise NotImplementedError


def _marker_before_webhook() -> None:
    raise NotImplementedError


WEAKENINGS: Mapping[str, Callable[[], None]] = {
    "unconditional_put": _unconditional_put,
    "ack_before_commit": _ack_before_commit,
    "marker_before_webhook": _marker_before_webhook,
}
