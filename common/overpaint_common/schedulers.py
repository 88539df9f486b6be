"""The schedulers that a pass may name, by their usual short names. Which class each is, the worker's engine knows."""

from __future__ import annotations

from typing import Literal, get_args

SchedulerName = Literal[
    "ddim",
    "ddpm",
    "deis",
    "dpm2",
    "dpm2_a",
    "dpmpp_2m",
    "dpmpp_2m_karras",
    "dpmpp_2s",
    "euler",
    "euler_a",
    "euler_karras",
    "heun",
    "lcm",
    "lms",
    "pndm",
    "unipc",
]
"""`_a` is ancestral: it draws new noise at every step; `_karras` spaces its noise levels as Karras et al. (2022) do."""

SCHEDULERS: tuple[SchedulerName, ...] = get_args(SchedulerName)

FLOW_SCHEDULERS: tuple[SchedulerName, ...] = ("euler", "heun")
"""Those that flow-matching models have."""
