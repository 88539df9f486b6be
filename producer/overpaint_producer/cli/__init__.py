"""The command line: `overpaint`."""

from overpaint_producer.cli.commands import main

__all__ = ["main"]
