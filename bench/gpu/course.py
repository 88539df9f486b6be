"""What the bench does, in which order, and what it leaves out when the time runs short."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.engine.flops import Priced, costs_of, measure_peak
from bench.engine.jobs import WORKLOADS
from bench.gpu import checks, models, sizes
from bench.gpu.booths import COMPILED, PEERS, Booth, BoothLost, LocalBooth, RemoteBooth
from bench.gpu.cells import Draw, Field
from bench.gpu.clock import Clock
from bench.gpu.device import released
from bench.gpu.plans import PLANS
from bench.gpu.report import Record
from bench.gpu.samples import Sample, Yardstick, solo
from bench.gpu.subjects import Subject

PARTS = ("checks", "contest")
HALVES = ("float16", "bfloat16")
DTYPES = ("float32", *HALVES)
CHECKS_UNTIL = 0.55
"""Share of the time after which no check begins."""
READY_UNTIL = 0.6
"""After which nobody who still compiles is waited for, where there is a contest."""
END = 10.0
"""Seconds kept back."""
CHECKED = ("c'", "c''")
"""Compiled peers whose pictures are checked."""


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    device: str
    size: str
    families: tuple[str, ...]
    workloads: tuple[str, ...]
    peers: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass
class Entry:
    """One model and what belongs to it."""

    subject: Subject
    sample: Sample
    truth: tuple[Any, ...] = ()
    remote: tuple[RemoteBooth, ...] = ()
    """Those that compile, ready or not."""
    field: Field | None = None

    @property
    def title(self) -> str:
        return self.subject.plan.title

    def yardstick(self, dtype: str) -> Yardstick:
        """What diffusers makes of the sample in that dtype; in float32 it is painted once."""
        if not self.truth:
            self.truth = solo(self.subject, "float32", self.sample.calls)
        own = self.truth if dtype == "float32" else solo(self.subject, dtype, self.sample.calls)
        return Yardstick(dtype, self.truth, own)


class Course:
    """One run: checks of memory, then all others while peers compile, then the contest on a device that is quiet."""

    def __init__(self, options: Options, record: Record, clock: Clock, stack: ExitStack) -> None:
        """What is opened on the way is closed with `stack`."""
        self._options = options
        self._record = record
        self._clock = clock
        self._stack = stack
        self._checks, self._contest = (part in options.parts for part in PARTS)
        self._ready_until = READY_UNTIL if self._contest else 1.0

    def run(self, folder: Path) -> None:
        """All of it, with models that are in a folder or made there."""
        entries = [Entry(subject, Sample.of(subject.plan)) for subject in self._made(folder)]
        yardsticks: dict[str, Yardstick] = {}
        if self._checks:
            # While nobody else takes memory.
            first = entries[0]
            yardsticks[first.title] = first.yardstick(first.subject.dtype)
            self._record.check(
                first.title, partial(checks.memory, first.subject, first.sample, yardsticks[first.title])
            )
        self._send_off(entries)
        for entry in entries if self._checks else ():
            known = yardsticks.get(entry.title) or entry.yardstick(entry.subject.dtype)
            yardsticks[entry.title] = known
            self._check(entry, known, every=entry is entries[0])
        for entry in entries if self._contest else ():
            entry.field = self._opened(entry)
        again: RemoteBooth | None = None
        for entry in entries:
            ready = list(self._ready(entry))
            if entry.field is not None:
                entry.field.booths += ready
            checked = [booth for booth in ready if self._checks and booth.key in CHECKED]
            if checked and entry is entries[0]:
                again = self._sent_off(entry.subject, checked[0].key)
            for booth in checked:
                found = partial(checks.compiled, booth, entry.sample, yardsticks[entry.title])
                self._record.check(entry.title, found)
        if again is not None:
            self._time_again(again)
        self._compete([entry.field for entry in entries if entry.field is not None])

    def _made(self, folder: Path) -> Iterator[Subject]:
        plans = tuple(plan for plan in PLANS[self._options.size] if plan.name in self._options.families)
        folder.mkdir(parents=True, exist_ok=True)
        models.check_disk(plans, folder)
        device = self._options.device
        for plan in plans:
            made, control = models.make(plan, folder / plan.name, device), None
            if sizes.NAME in self._options.workloads:
                control = models.make_control(plan, folder / f"{plan.name}-control", device)
            released(device)
            self._record.say(f"{plan.title} is in {made}")
            yield Subject(plan, made, device, control)

    def _send_off(self, entries: Iterable[Entry]) -> None:
        """Start the peers that compile: those that compete, and those whose pictures are checked."""
        wanted = [
            key
            for key in COMPILED
            if key in self._options.peers and (self._contest or (self._checks and key in CHECKED))
        ]
        for entry in entries:
            entry.remote = tuple(self._sent_off(entry.subject, key) for key in wanted)

    def _sent_off(self, subject: Subject, key: str) -> RemoteBooth:
        return self._stack.enter_context(closing(RemoteBooth(subject, key)))

    def _check(self, entry: Entry, known: Yardstick, *, every: bool) -> None:
        """`known`, in the device's dtype; with `every`, also what says the same of all models."""
        subject, sample, title = entry.subject, entry.sample, entry.title

        def crowd(dtype: str) -> checks.Finding:
            return checks.crowd(subject, sample, known if dtype == known.dtype else entry.yardstick(dtype))

        todo = {"contrast": partial(checks.has_contrast, known)}
        todo |= {f"crowd in {dtype}": partial(crowd, dtype) for dtype in (DTYPES if every else HALVES)}
        if every:
            todo["reproducible calls"] = partial(checks.reproducible, subject, sample)
            todo["offload"] = partial(checks.offload, subject, sample, known)
        for name, check in todo.items():
            if self._clock.until(CHECKS_UNTIL) < 0:
                self._record.skip(f"{title}, {name}", "checks took too long", check=True)
            else:
                self._record.check(title, check)

    def _opened(self, entry: Entry) -> Field | None:
        """The peers of this process, ready to compete."""
        subject = entry.subject
        try:
            pipeline = subject.direct(subject.dtype)
            costs: Priced = costs_of(pipeline, subject.plan.size)
            if subject.control is not None:
                costs = sizes.sized_costs(subject.plan, pipeline, subject.controlled(pipeline))
            booths: list[Booth] = []
            for key in self._options.peers:
                if key not in COMPILED:
                    booth = LocalBooth(subject, key, pipeline=None if key == "c" else pipeline)
                    booths.append(self._stack.enter_context(closing(booth)))
        except Exception as error:
            self._record.skip(f"{entry.title}, the contest", f"{type(error).__name__}: {error}"[:500])
            return None
        return Field(subject.plan, booths, costs, self._clock, self._record)

    def _ready(self, entry: Entry) -> Iterator[RemoteBooth]:
        """Those that have compiled in time; others are closed."""
        for booth in entry.remote:
            try:
                seconds = booth.ready(self._clock.until(self._ready_until))
            except BoothLost as error:
                booth.close()
                checked = self._checks and booth.key in CHECKED
                self._record.skip(f"{entry.title}, {booth.name}", f"not ready: {error}", check=checked)
            else:
                self._record.took(f"{entry.title}, {booth.name}: loaded, compiled and warmed up", seconds)
                yield booth

    def _time_again(self, booth: RemoteBooth) -> None:
        what = f"{booth.name} once more, with what the first one left in the cache"
        try:
            self._record.took(what, booth.ready(self._clock.until(self._ready_until)))
        except BoothLost as error:
            self._record.skip(what, str(error))
        booth.close()

    def _compete(self, fields: Sequence[Field]) -> None:
        if not fields:
            return
        device = self._options.device
        dtype = torch.float16 if device.startswith("cuda") else torch.float32
        peak = measure_peak(device, dtype, repeats=20 if device.startswith("cuda") else 3)
        self._record.say(f"the limit is {peak / 1e12:.3f} TFLOP/s, of a product of large matrices in {dtype}")
        for field in fields:
            field.booths.sort(key=lambda booth: list(PEERS).index(booth.key))
            field.measure_paces(peak)
        # The most telling ones first, since time may end.
        cells = [(workload, field) for workload in self._options.workloads for field in fields]
        for number, (workload, field) in enumerate(cells):
            weights = [each.plan.weight for _, each in cells[number:]]
            seconds = (self._clock.left - END) * weights[0] / sum(weights)
            field.cell(workload, _draw(workload, field), seconds, _peers(workload))


def _draw(workload: str, field: Field) -> Draw:
    if workload == sizes.NAME:
        return lambda count: sizes.jobs(field.plan, count, seed=2)
    return lambda count: WORKLOADS[workload].jobs(count, seed=2, size=field.plan.size)


def _peers(workload: str) -> list[str]:
    """Sizes, and rows with control, of which each would take a compilation of its own, are for those that do not."""
    return [key for key in PEERS if workload != sizes.NAME or key not in COMPILED]
