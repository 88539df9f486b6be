"""What each pass means, on top of the engine."""

SERVED: tuple[str, ...] = ("img2img",)
"""The operations that this worker can run; announced to producers."""
