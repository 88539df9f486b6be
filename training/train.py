"""The training loop of any stage: warm-up and cosine, averaged weights, checkpoints, a loss log, sample sheets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from training.batches import Batch, batches_from
from training.checkpoints import LossLog, State
from training.stages import Stage

_WARM_UP = 0.03
_FINAL_RATE = 0.02


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train a stage."""

    steps: int
    rate: float
    """Peak learning rate of AdamW."""
    seed: int = 0
    minutes: float | None = None
    """Stop cleanly after so long, over all runs of the stage; the learning rate falls in time for it."""
    device: str = "cpu"
    average: float = 0.999
    """Decay of the averaged weights; less in the first steps."""
    weight_decay: float = 0.01
    log_every: int = 20
    checkpoint_every: int = 250
    sheet_every: int = 500
    quiet: bool = False


def begin(stage: Stage, plan: Plan) -> State:
    """The state before the first step."""
    device = torch.device(plan.device)
    stage.modules.to(device).train()
    average = AveragedModel(stage.modules, multi_avg_fn=_averaging(plan.average))
    average.requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(
        stage.modules.parameters(), lr=plan.rate, weight_decay=plan.weight_decay, betas=(0.9, 0.99)
    )
    return State(stage.modules, average, optimizer)


def train(stage: Stage, plan: Plan, folder: Path) -> State:
    """Train to the end of the plan, from the latest checkpoint in `folder` if there is one; a longer plan goes on.

    Batches and noise are functions of the seed and the step, so that a resumed run takes the very steps that an
    uninterrupted one would; with `minutes`, only the learning rate depends on the clock. Ctrl-C writes a checkpoint.
    """
    state = begin(stage, plan)
    state.load(folder)
    log = LossLog(folder / "losses.csv", ("step", "seconds", "rate", *stage.parts, "held_out"))
    if progress(state, plan) >= 1:
        return state
    log.start(state.step)
    device = torch.device(plan.device)
    before = state.seconds
    began = time.monotonic()
    bar = tqdm(total=plan.steps, initial=state.step, desc=stage.name, disable=plan.quiet, mininterval=1)
    try:
        for batch in batches_from(stage.data, state.step, plan.steps):
            rate = plan.rate * shape_of_rate(progress(state, plan))
            losses = _step(stage, state, batch, rate, plan, device)
            state.step += 1
            state.seconds = before + time.monotonic() - began
            last = progress(state, plan) >= 1
            held_out: float | str = ""
            if last or state.step % plan.sheet_every == 0:
                held_out = stage.measure(state.average.module, device, folder / f"sheet-{state.step:06d}.png")
            if last or held_out != "" or state.step % plan.log_every == 0:
                values = {name: f"{float(value):.6g}" for name, value in losses.items()}
                log.write(
                    {"step": state.step, "seconds": f"{state.seconds:.1f}", "rate": f"{rate:.3g}"}
                    | values
                    | {"held_out": held_out}
                )
                bar.set_postfix(values | ({"held_out": f"{held_out:.4g}"} if held_out != "" else {}), refresh=False)
            bar.update()
            if last:
                break
            if state.step % plan.checkpoint_every == 0:
                state.save(folder)
        state.save(folder)
    except KeyboardInterrupt:
        state.save(folder)
        raise
    finally:
        bar.close()
        log.close()
    return state


def progress(state: State, plan: Plan) -> float:
    """0 at the start, 1 when the steps are done or the minutes have passed."""
    by_time = state.seconds / (60 * plan.minutes) if plan.minutes is not None else 0.0
    return max(state.step / plan.steps, by_time)


def shape_of_rate(share: float) -> float:
    """The learning rate over its peak: a linear warm-up, then a cosine (Loshchilov and Hutter 2017)."""
    if share < _WARM_UP:
        return max(share / _WARM_UP, 0.02)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (
        1 + math.cos(math.pi * min(1.0, (share - _WARM_UP) / (1 - _WARM_UP)))
    )


def _step(
    stage: Stage, state: State, batch: Batch, rate: float, plan: Plan, device: torch.device
) -> dict[str, torch.Tensor]:
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    rng = torch.Generator().manual_seed(plan.seed * 1_000_003 + state.step)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        losses = stage.loss(batch, rng, device)
    state.optimizer.zero_grad(set_to_none=True)
    losses[stage.parts[0]].backward()
    torch.nn.utils.clip_grad_norm_(state.modules.parameters(), 1.0)
    state.optimizer.step()
    state.average.update_parameters(state.modules)
    return {name: value.detach() for name, value in losses.items()}


def _averaging(decay: float) -> Callable[..., None]:
    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor | int) -> None:
        done = int(count)
        share = min(decay, (1 + done) / (10 + done))
        torch._foreach_lerp_(averaged, current, 1 - share)

    guarded: Callable[..., None] = torch.no_grad()(update)
    return guarded
