"""What each pass means, on top of the engine."""
