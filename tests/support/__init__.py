"""Real servers for tests, and ways to make them misbehave."""
