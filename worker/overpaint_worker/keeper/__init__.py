"""The keeper: what looks after jobs that no worker has in hand, and delivers their webhooks. Imports no torch."""
