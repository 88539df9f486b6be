"""Judges a run from outside: by what lies in the store and in Redis, never through the system's own code.

Of the system it knows only the layout of keys, in the store and in Redis.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import RedisError

from overpaint_common import wire
from tests.faults.recording import RecordingProxy

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READERS = 4
EVERY = 0.25
"""Seconds between two looks."""

QUIET = 0.5
"""Seconds without a write before anything counts as settled: somebody might still be at work unseen."""

ENDS = ("succeeded", "failed", "cancelled", "expired")
PICTURE = re.compile(r"(?P<job>[^/]+)/(?P<variant>\d+)-(?P<attempt>[0-9a-f]+)\.(png|jpeg|webp)")
UNUSED_KEYS = (
    *(wire.LEASES_KEY, wire.DELAYED_KEY, wire.ENDED_KEY, wire.WEBHOOKS_KEY, wire.RAW_KEY, wire.DEADLINES_KEY),
)
UNUSED_PREFIXES = (wire.lease_key(""), wire.queued_key(""), wire.solo_key(""))


@dataclass(frozen=True, slots=True)
class Violation:
    """One promise that was broken."""

    kind: str
    subject: str
    """A job's id, or a key."""
    detail: str
    final: bool = False
    """Whether waiting longer cannot help."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the oracle found."""

    accepted: int
    ends: Mapping[str, int]
    """Jobs by how they ended."""
    violations: tuple[Violation, ...]
    seconds: float
    """Until everything held, or until the bound."""
    computed_twice: int
    """Attempts that stored a picture of a job whose record names another attempt."""
    stale_tickets: int
    """Messages that kombu keeps for workers that died, or that could not acknowledge them: jobs that have ended."""
    records: Mapping[str, Mapping[str, Any]] = field(repr=False)
    """By job."""

    @property
    def ok(self) -> bool:
        return not self.violations

    def kinds(self) -> set[str]:
        return {violation.kind for violation in self.violations}

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items())) or "none ended"
        lines = [f"{self.accepted} jobs accepted: {ends}; settled after {self.seconds:.1f} s"]
        lines += [f"  {violation}" for violation in self.violations[:40]]
        if len(self.violations) > 40:
            lines.append(f"  ... and {len(self.violations) - 40} more")
        return "\n".join(lines)

    def require(self) -> Verdict:
        """Itself, or AssertionError with the list of what is wrong."""
        assert self.ok, str(self)
        return self


class Oracle:
    """Watches one bucket, with `ledger/` and `out/` in it, and one Redis; both are asked directly.

    The proxy is what all of the system's requests to the store pass through.
    """

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        redis: Redis,
        proxy: RecordingProxy,
        told: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`redis` decodes its answers; `told` gives the jobs whose webhook has arrived."""
        self._client = client
        self._bucket = bucket
        self._redis: Any = redis
        self._proxy = proxy
        self._told = told
        self._read: dict[tuple[str, str], bytes] = {}

    def judge(self, accepted: Collection[str], *, within: float) -> Verdict:
        """Wait up to `within` seconds for every promise to hold, of the `accepted` jobs and of all others found."""
        started = time.monotonic()
        while True:
            late = time.monotonic() - started > within
            if late or self._rewritten() or not (self._busy() or any(self._left_in_redis())):
                records, violations = self._examine(accepted)
                violations += [*self._left_in_redis(), *self._left_in_ledger()]
                if late or not violations or any(violation.final for violation in violations):
                    break
            time.sleep(EVERY)
        ends = Counter(str(record["status"]) for record in records.values())
        twice = sum(len(attempts - {records[job]["attempt"]}) for job, attempts in self._painted() if job in records)
        seconds = time.monotonic() - started
        return Verdict(len(accepted), ends, tuple(violations), seconds, twice, self._redis.hlen("unacked"), records)

    def _busy(self) -> bool:
        writes = self._proxy.writes
        return bool(writes) and time.monotonic() - writes[-1].at < QUIET

    def _left_in_redis(self) -> Iterator[Violation]:
        try:
            for key in UNUSED_KEYS:
                if self._redis.exists(key):
                    yield Violation("left in Redis", key, self._content(key))
            for prefix in UNUSED_PREFIXES:
                for key in self._redis.scan_iter(f"{prefix}*", count=1000):
                    yield Violation("left in Redis", key, self._content(key))
            for queue in (*self._redis.smembers(wire.QUEUES_KEY), wire.SUBMIT_QUEUE):
                if count := self._redis.llen(queue):
                    yield Violation("left in Redis", queue, f"{count} messages")
        except RedisError as error:
            yield Violation("Redis", "unreachable", str(error))

    def _content(self, key: str) -> str:
        match self._redis.type(key):
            case "zset":
                return str(self._redis.zrange(key, 0, 4, withscores=True))
            case "hash":
                return str(self._redis.hgetall(key))[:300]
            case "list":
                return str(self._redis.lrange(key, 0, 4))[:300]
            case kind:
                return f"a {kind}"

    def _left_in_ledger(self) -> Iterator[Violation]:
        for key in self._list("ledger/"):
            if key.split("/")[1] not in ("jobs", "dead", "probe"):
                yield Violation("left in the ledger", key, "not deleted")

    def _rewritten(self) -> list[Violation]:
        """Records that were put, successfully, more than once."""
        puts = Counter(w.key for w in self._proxy.writes if w.method == "PUT" and w.succeeded and _is_record(w.key))
        return [
            Violation("record written twice", key, f"{count} puts succeeded", final=True)
            for key, count in puts.items()
            if count != 1
        ]

    def _examine(self, accepted: Collection[str]) -> tuple[dict[str, dict[str, Any]], list[Violation]]:
        # In this order, since work may go on: what was put before the listing must be in it.
        written = [write for write in list(self._proxy.writes) if _is_record(write.key) and write.succeeded]
        found = self._list("ledger/jobs/")
        records = self._records(found)
        violations = self._rewritten()
        for write in written:
            if found.get(write.key) != write.etag:
                violations.append(Violation("record changed", write.key, f"{write.method} gave {write.etag}", True))
        open_jobs = {key.rpartition("/")[2] for key in self._list("ledger/open/")}
        for job in sorted({*accepted, *open_jobs} - records.keys()):
            said = "accepted" if job in accepted else "open"
            violations.append(Violation("not finished", job, f"{said}, and there is no record"))
        told = set(self._told())
        for job, record in records.items():
            if record["job"].get("webhook") and job not in told:
                violations.append(Violation("webhook missing", job, "its receiver was not told of the end"))
        violations += self._check_outputs(records)
        return records, violations

    def _records(self, found: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        keys = [key for key in found if _is_record(key)]
        with ThreadPoolExecutor(READERS) as pool:
            bodies = pool.map(lambda key: self._body(key, found[key]), keys)
            return {key.split("/")[2]: json.loads(body) for key, body in zip(keys, bodies, strict=True)}

    def _check_outputs(self, records: Mapping[str, Mapping[str, Any]]) -> list[Violation]:
        present, violations = self._list("out/"), []
        expected: set[str] = set()
        for job, record in records.items():
            copy = f"out/{job}/result.json"
            expected.add(copy)
            if copy not in present:
                violations.append(Violation("copy missing", copy, "the record has no copy beside its pictures"))
            elif json.loads(self._body(copy, present[copy])) != record:
                violations.append(Violation("copy differs", copy, "from the record"))
            if record["job_id"] != job or record["status"] not in ENDS:
                violations.append(Violation("record wrong", job, f"{record['job_id']} {record['status']}", final=True))
            outputs = [output for variant in record.get("variants", ()) for output in variant["outputs"]]
            wanted = record["job"]["variants"] if record["status"] == "succeeded" else 0
            if len(outputs) != wanted:
                violations.append(Violation("record wrong", job, f"{len(outputs)} pictures, not {wanted}", final=True))
            for output in outputs:
                for what, uri in (("picture", output["uri"]), ("published copy", output.get("published"))):
                    if uri is not None:
                        key = uri.removeprefix(f"s3://{self._bucket}/")
                        expected.add(key)
                        violations += self._check_output(what, key, output, present.get(key))
        extra = sorted(present.keys() - expected)
        return [*violations, *(Violation("left among the pictures", key, "no record names it") for key in extra)]

    def _check_output(self, what: str, key: str, output: Mapping[str, Any], etag: str | None) -> Iterator[Violation]:
        # Copies are made after the record.
        final = what == "picture"
        if etag is None:
            yield Violation(f"{what} missing", key, "named by its record", final=final)
            return
        try:
            body = self._body(key, etag)
        except self._client.exceptions.NoSuchKey:
            yield Violation(f"{what} missing", key, "deleted since it was listed")
            return
        digest = hashlib.sha256(body).hexdigest()
        if (digest, len(body)) != (output["sha256"], output["size"]):
            yield Violation(f"{what} differs", key, f"sha256 {digest}, recorded {output['sha256']}", final=final)

    def _painted(self) -> Iterable[tuple[str, set[str]]]:
        """Jobs, with the attempts that stored a picture of them."""
        attempts: dict[str, set[str]] = defaultdict(set)
        for write in self._proxy.writes:
            found = PICTURE.fullmatch(write.key.removeprefix("out/"))
            if found and write.method == "PUT" and write.succeeded:
                attempts[found["job"]].add(found["attempt"])
        return attempts.items()

    def _list(self, prefix: str) -> dict[str, str]:
        """Keys with their ETags."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return {entry["Key"]: entry["ETag"].strip('"') for page in pages for entry in page.get("Contents", [])}

    def _body(self, key: str, etag: str) -> bytes:
        """An object's content, read once for each ETag."""
        if (key, etag) not in self._read:
            self._read[key, etag] = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return self._read[key, etag]


def _is_record(key: str) -> bool:
    return key.startswith("ledger/jobs/") and key.endswith("/record.json")
