"""Checks of the project itself, for `make check`; not part of what is installed."""
