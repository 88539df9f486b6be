"""What a run leaves behind: numbers for programs, a page for people, and a picture of the time it took."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.faults.chaos import Run
from tests.faults.recovery import spread
from tests.faults.timeline import timeline


def write_report(run: Run, folder: Path) -> Path:
    """`report.json`, `report.md` and `timeline.png` in `folder`; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(numbers(run), indent=2) + "\n")
    timeline(run).save(folder / "timeline.png", optimize=True)
    page = folder / "report.md"
    page.write_text(_page(run))
    return page


def numbers(run: Run) -> dict[str, Any]:
    """All that is worth comparing between runs."""
    verdict = run.verdict
    assert verdict is not None
    failures = Counter(record["failure"]["code"] for record in verdict.records.values() if record.get("failure"))
    kinds = Counter(violation.kind for violation in verdict.violations)
    again = [found.seconds for found in run.recoveries if found.running]
    return {
        "ok": run.ok,
        "seed": run.plan.seed,
        "seconds": round(run.peace_at, 1),
        "interrupted": run.interrupted,
        "workers": run.plan.workers,
        "lease_s": run.plan.lease,
        "accepted": verdict.accepted,
        "finished": sum(verdict.ends.values()),
        "ends": dict(verdict.ends),
        "failures": dict(failures),
        "lost": kinds["not finished"],
        "recorded_twice": kinds["record written twice"],
        "violations": [str(violation) for violation in verdict.violations] + run.complaints,
        "last_write_after_peace_s": round(max(0.0, run.last_write_at - run.peace_at), 1),
        "judged_after_s": round(verdict.seconds, 1),
        "computed_twice": verdict.computed_twice,
        "computed_twice_share": round(verdict.computed_twice / max(1, verdict.accepted), 4),
        "attempts_beyond_the_first": sum(max(0, record["attempts"] - 1) for record in verdict.records.values()),
        "stale_tickets": verdict.stale_tickets,
        "kills": len(run.kills),
        "jobs_in_hand_of_killed": sum(len(kill.jobs) for kill in run.kills),
        "kill_to_returned_s": spread(_returns(run)),
        "kill_to_running_s": spread(again),
        "ended_without_running_again": len(run.recoveries) - len(again),
        "faults": dict(Counter(f"{fault.lane}: {fault.name}" for fault in run.faults)),
        "timeline": [
            {"lane": f.lane, "name": f.name, "detail": f.detail, "from": round(f.began, 2), "to": round(f.ended, 2)}
            for f in run.faults
        ],
    }


def _returns(run: Run) -> list[float]:
    """Of the jobs that ran again: those that had just ended when their worker was killed were not returned."""
    again = {found.job for found in run.recoveries if found.running}
    return [seconds for kill in run.kills for job, seconds in kill.returned.items() if job in again]


def _page(run: Run) -> str:
    found = numbers(run)
    recovery, returned = found["kill_to_running_s"], found["kill_to_returned_s"]
    ends = ", ".join(f"{count} {end}" for end, count in sorted(found["ends"].items()))
    lines = [
        f"# Chaos, seed {run.plan.seed}: {'every promise held' if run.ok else 'A PROMISE WAS BROKEN'}",
        "",
        f"{found['workers']} workers with leases of {found['lease_s']:g} s under attack for {found['seconds']} s"
        f"{' (interrupted)' if run.interrupted else ''}, then left in peace.",
        "",
        "| | |",
        "| --- | --- |",
        f"| jobs accepted | {found['accepted']} |",
        f"| jobs finished | {found['finished']}: {ends} |",
        f"| jobs lost | {found['lost']} |",
        f"| jobs recorded twice | {found['recorded_twice']} |",
        f"| broken promises, those included | {len(found['violations'])} |",
        f"| left in peace, the last write came after | {found['last_write_after_peace_s']} s |",
        f"| left in peace, the oracle had read everything after | {found['judged_after_s']} s |",
        f"| pictures computed and stored twice | {found['computed_twice']}, "
        f"{found['computed_twice_share']:.1%} of the jobs |",
        f"| attempts begun beyond a job's first | {found['attempts_beyond_the_first']} |",
        f"| jobs given up as worker_crashed | {found['failures'].get('worker_crashed', 0)} |",
        f"| faults | {len(run.faults)} |",
        f"| workers killed | {found['kills']}, with {found['jobs_in_hand_of_killed']} jobs in hand |",
        *(
            [
                f"| from a kill until a job of the dead was taken from it | median {returned['median']} s, "
                f"p95 {returned['p95']} s, at most {returned['max']} s ({returned['count']} jobs) |"
            ]
            if returned["count"]
            else []
        ),
        f"| from a kill until a job of the dead was running again | median {recovery['median']} s, "
        f"p95 {recovery['p95']} s, at most {recovery['max']} s ({recovery['count']} jobs) |",
        "",
        "![timeline](timeline.png)",
        "",
        *(
            ["## Broken promises", "", *(f"- {violation}" for violation in found["violations"]), ""]
            if not run.ok
            else []
        ),
        "## Faults",
        "",
        "| from s | to s | lane | what | |",
        "| ---: | ---: | --- | --- | --- |",
        *(
            f"| {f.began:.1f} | {f.ended:.1f} | {f.lane} | {f.name} | {f.detail} |"
            for f in sorted(run.faults, key=lambda fault: fault.began)
        ),
    ]
    return "\n".join(lines) + "\n"
