"""Which commands there are. Each is imported only when it is called, so that help and completion come at once."""

from __future__ import annotations

import click

from overpaint_producer.cli.lazy import Command, LazyGroup

_HERE = "overpaint_producer.cli"

SECTIONS: dict[str, tuple[Command, ...]] = {
    "Jobs": (
        Command("submit", f"{_HERE}.submit:submit", "Send a picture to be repainted; prints the job's id."),
        Command("status", f"{_HERE}.jobs:status", "Say where a job is now."),
        Command("wait", f"{_HERE}.jobs:wait", "Follow a job's steps until it has ended."),
        Command("result", f"{_HERE}.jobs:result", "Show a finished job's record; save its pictures."),
        Command("jobs", f"{_HERE}.listing:jobs", "List the jobs of late by state, label, model and priority."),
        Command("cancel", f"{_HERE}.jobs:cancel", "End a job, queued or running."),
        Command("sweep", f"{_HERE}.sweep:sweep", "Paint one picture many ways, onto one labelled page."),
        Command("plan", f"{_HERE}.plan:plan", "Say and draw how many steps run at each strength."),
        Command("replay", f"{_HERE}.replay:replay", "Repeat a chain from its record and compare the pictures."),
        Command("presets", f"{_HERE}.presets:presets", "List the named settings for common tasks."),
    ),
    "Operators": (Command("dead", f"{_HERE}.dead:dead", "List, show, replay or drop what could not be done."),),
    "This machine": (
        Command("demo", f"{_HERE}.demo:demo", "Repaint one picture at several strengths; needs no set-up."),
        Command("up", f"{_HERE}.up:up", "Run Redis, a store and one worker here, to develop against."),
        Command("worker", None, "Serve jobs on this machine's devices."),
        Command("keeper", None, "Look after jobs that no worker has in hand."),
        Command("settings", f"{_HERE}.settings:settings", "Show every setting and where it comes from; check them."),
        Command("doctor", f"{_HERE}.doctor:doctor", "Look at everything that jobs need; say what to mend."),
        Command("ready", f"{_HERE}.ready:ready", "A probe: whether a worker of this host serves, or a keeper leads."),
        Command("completion", f"{_HERE}.completion:completion", "Print a script that lets your shell complete this."),
    ),
}


@click.group(cls=LazyGroup, sections=SECTIONS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="overpaint", message="%(prog)s %(version)s")
def main() -> None:
    """Repaint pictures with diffusion models: submit jobs, follow them, fetch what they made.

    \b
    See it work, on this machine, with nothing set up:
      overpaint demo

    \b
    Against workers that run somewhere already:
      export OVERPAINT_REDIS_URL=redis://my-redis:6379/0
      export OVERPAINT_LEDGER=s3://my-ledger/
      overpaint submit s3://photos/cat.jpg s3://out/ --prompt "a cat, oils" --wait

    \b
    Exit codes:
      0  done
      1  the job failed, expired or was cancelled; of cancel: it had ended before
      2  the command line, the settings or the job are wrong; nothing was accepted
      3  Redis, the storage or the operating system did not do their part
      4  not finished: asked for a result too early, or at the end of a --timeout
     70  keeper: the storage did not answer; starting it again will help
     78  worker, keeper: settings, registry, model or store are wrong;
         starting it again will not help
    130  Ctrl-C
    141  whoever read the output, such as head, has left
    """
