"""The engine on one CUDA GPU: models of real size with random weights, checks, and a contest with diffusers.

Reading order: plans, models, subjects (what is run), device, samples, checks (whether it is right), booths, sizes,
cells, report (how fast it is), clock, course, __main__ (in what order, and until when).
"""
