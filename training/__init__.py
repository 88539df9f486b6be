"""Trains overpaint-mini, the small model that ships with the worker, on pictures that it draws itself.

Reading order: words, shapes, places, styles, scenes, captions (what is learnt); tokenizer, models (what
learns); batches, stages, checkpoints, train, export (how). Run `python -m training --help` from the repository root.
"""
