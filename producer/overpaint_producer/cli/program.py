"""How a shell calls this command line."""

from __future__ import annotations

import shlex
import shutil
import sysconfig
from pathlib import Path


def program() -> str:
    """`overpaint` where the shell finds this installation by that name, else the path of its script, quoted."""
    script = Path(sysconfig.get_path("scripts"), "overpaint")
    found = shutil.which("overpaint")
    if not script.exists() or (found is not None and Path(found).samefile(script)):
        return "overpaint"
    here = Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))
