"""The embedded stack: a real Redis, a local store and one CPU worker on this machine, for demos and development."""
