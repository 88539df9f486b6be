"""What was found and measured: said as it comes, and kept for a file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.engine.report import Contest, Figures
from bench.gpu.checks import Finding
from bench.gpu.clock import Clock


@dataclass(frozen=True)
class DeviceFigures(Figures):
    """What one peer did with one workload, and what the device did meanwhile; NaN and None where nothing is known."""

    peak: int | None
    """Bytes that torch allocated beyond what the peer holds at rest."""
    device_idle: float | None
    """Share of the seconds in which the device ran no kernel."""


class Record:
    """Everything that the bench has to tell."""

    def __init__(self, clock: Clock, setting: Mapping[str, Any]) -> None:
        self._clock = clock
        self._setting = setting
        self.findings: list[Finding] = []
        self.contests: list[Contest] = []
        self.left_out: dict[str, str] = {}
        """What was not done, and why."""
        self.unchecked = False
        """Whether a check is among that."""
        self.seconds: dict[str, float] = {}
        """That something took which is no contest."""

    def say(self, text: str) -> None:
        print(f"[{self._clock.passed:4.0f} s] {text}", flush=True)

    def took(self, what: str, seconds: float) -> None:
        self.seconds[what] = seconds
        self.say(f"{what}: {seconds:.1f} s")

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)
        self.say(f"{'ok    ' if finding.ok else 'FAILED'}  {finding.name}: {finding.told}")

    def skip(self, what: str, why: str, *, check: bool = False) -> None:
        self.left_out[what] = why
        self.unchecked = self.unchecked or check
        self.say(f"SKIPPED {what}: {why}")

    def check(self, what: str, run: Callable[[], Finding | Iterable[Finding]]) -> None:
        """What a check finds; one that raises has failed."""
        try:
            found = run()
            for each in [found] if isinstance(found, Finding) else found:
                self.found(Finding(f"{what}, {each.name}", each.ok, each.told))
        except Exception as error:
            self.found(Finding(what, False, f"{type(error).__name__}: {error}"[:500]))

    def contest(self, contest: Contest) -> None:
        self.contests.append(contest)
        print(f"\n{text_of(contest)}\n", flush=True)

    @property
    def ok(self) -> bool:
        """Whether every check that was to be made was made and found nothing wrong."""
        return not self.unchecked and all(finding.ok for finding in self.findings)

    def verdict(self) -> str:
        failed = sum(not finding.ok for finding in self.findings)
        return (
            f"{len(self.findings)} findings, {failed} failed; {len(self.left_out)} things left out; "
            f"{self._clock.passed:.0f} of {self._clock.seconds:.0f} s"
        )

    def save(self, file: Path) -> None:
        document = {
            **self._setting,
            "passed": self._clock.passed,
            "ok": self.ok,
            "findings": [asdict(finding) for finding in self.findings],
            "contests": [contest.as_json() for contest in self.contests],
            "seconds": self.seconds,
            "left_out": self.left_out,
        }
        file.write_text(json.dumps(_known(document), indent=2) + "\n")


def text_of(contest: Contest) -> str:
    """A table of plain text, whose last columns compare with the first peer and with the batches, where it ran."""
    against = [0, *(number for number, each in enumerate(contest.figures) if number and each.peer.startswith("(b)"))]
    heads = ("", "jobs", "pic/s", "p50 s", "p99 s", "rows", "pad", "idle", "dev idle", "of limit", "peak GB")
    compared = [f"x {contest.figures[index].peer.split()[0]}" for index in against]
    rows = [[*heads, *compared]]
    for each in contest.figures:
        peak, idle = (each.peak, each.device_idle) if isinstance(each, DeviceFigures) else (None, None)
        cells = [each.peer, str(each.pictures), f"{each.rate:.2f}", _number(each.p50, ".1f"), _number(each.p99, ".1f")]
        cells += [f"{each.rows:.1f}", f"{each.padding:.0%}", f"{each.idle:.0%}", _number(idle, ".0%")]
        cells += [f"{each.limit_share:.1%}", _number(None if peak is None else peak / 1e9, ".1f")]
        rows.append(cells + [f"{contest.gain(index, each):.2f}" for index in against])
    return "\n".join([f"{contest.workload}, {contest.arrivals}", *_aligned(rows)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, form)


def _known(value: Any) -> Any:
    """With null for NaN, which JSON has no word for."""
    if isinstance(value, Mapping):
        return {name: _known(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
