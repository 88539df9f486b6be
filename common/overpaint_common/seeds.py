"""Ids and seeds: everything random is settled once, from the id, so that a retry repaints the same picture."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from overpaint_common.passes import MAX_SEED


def new_job_id() -> str:
    """A fresh random id: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def job_id_from_key(idempotency_key: str) -> str:
    """The id that belongs to an idempotency key: the same key always names the same job."""
    return hashlib.sha256(b"overpaint idempotency key\0" + idempotency_key.encode()).hexdigest()[:32]


def new_attempt_id() -> str:
    """Random rather than counted: a counter would start again after Redis is flushed and name old objects."""
    return secrets.token_hex(6)


def seed_of_job(job_id: str) -> int:
    """The base seed of a job that gave none; 32 bits, easy to read and to type."""
    return _hash_seed("job", job_id)


def seeds_of_passes(base: int, given: Sequence[int | None], variants: int) -> tuple[int, ...]:
    """The seed of each pass for variant 0; variant i adds i.

    The first pass without a seed of its own takes `base` itself, as a single diffusers call would; later ones are
    derived from `base` and their place, stepping past any seed that some variant of another pass uses, so that no two
    passes draw the same noise unless the caller asked for that.
    """
    taken = [seed for seed in given if seed is not None]
    seeds: list[int] = []
    for index, own in enumerate(given):
        seed, round_ = own, 0
        while seed is None:
            candidate = base if index == 0 and round_ == 0 else _hash_seed("pass", f"{base}/{index}/{round_}")
            if all(abs(candidate - other) >= variants for other in taken) and candidate <= MAX_SEED:
                seed = candidate
                taken.append(seed)
            round_ += 1
        seeds.append(seed)
    return tuple(seeds)


def _hash_seed(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(("overpaint seed", *parts)).encode()).digest()[:4])
