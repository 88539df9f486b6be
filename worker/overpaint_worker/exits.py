"""Exit statuses of worker processes, after BSD's sysexits."""

SOFTWARE = 70
"""The engine died; a new process will do."""

CONFIG = 78
"""The settings, the registry or a model are wrong; starting again would not help."""
