"""The bench of the engine: its peers paint what diffusers paints, and its workloads are what it says they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.contest import largest_difference
from bench.engine.flops import costs_of
from bench.engine.jobs import WORKLOADS, Job, Workload, poisson
from bench.engine.peers import PipelinePeer, alike
from bench.engine.pipelines import open_pipeline
from overpaint_worker.engine.registry import EMBEDDED
from tests.engine.direct import Direct

SIZE = (64, 64)
TOLERANCE = 1e-4
SHORT = Workload("short", steps=(8,), strengths=(0.5,), guidance_scales=(4.0,))
OTHER = Workload("other", steps=(6,), strengths=(0.5,), guidance_scales=(1.0,))


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return open_pipeline("StableDiffusionImg2ImgPipeline", EMBEDDED)


@pytest.fixture
def stopped() -> Iterator[list[PipelinePeer]]:
    """What a test puts in here is stopped at its end."""
    peers: list[PipelinePeer] = []
    yield peers
    for peer in peers:
        peer.stop()


def test_a_batch_of_equal_jobs_is_painted_as_each_alone(pipeline: Any, stopped: list[PipelinePeer]) -> None:
    """Given waiting jobs of two kinds, when they go through the batches and through the loop, then the pictures are
    diffusers' own, and the batches took a forward for what the loop took several for."""
    jobs = [*SHORT.jobs(3, seed=1, size=SIZE), *OTHER.jobs(2, seed=1, size=SIZE)]
    loop, batches = PipelinePeer("loop", pipeline, most=1), PipelinePeer("batches", pipeline, most=16)
    for peer in (loop, batches):
        peer.start()
        stopped.append(peer)

    alone, together = ([future.result(60) for future in peer.submit(jobs)] for peer in (loop, batches))

    direct = Direct("StableDiffusionImg2ImgPipeline", EMBEDDED)
    theirs = [
        direct(
            job.picture,
            seed=job.seed,
            prompt=job.prompt,
            num_inference_steps=job.steps,
            strength=job.strength,
            guidance_scale=job.guidance_scale,
        )
        for job in jobs
    ]
    assert largest_difference(alone, theirs) == 0
    assert largest_difference(together, theirs) <= TOLERANCE
    # Three guided jobs of four steps, two unguided ones of three.
    assert (loop.counters().forwards, loop.counters().rows) == (3 * 4 + 2 * 3, 3 * 4 * 2 + 2 * 3)
    assert (batches.counters().forwards, batches.counters().rows) == (4 + 3, 3 * 4 * 2 + 2 * 3)


def test_a_batch_is_the_oldest_job_and_the_next_ones_of_its_kind() -> None:
    """Given jobs of two kinds in turn, when a batch of two is taken, then it is the oldest and the first like it."""
    short, other = SHORT.jobs(3, seed=1, size=SIZE), OTHER.jobs(2, seed=1, size=SIZE)
    order = [short[0], other[0], short[1], other[1], short[2]]

    batch = alike([(job, Future()) for job in order], 2)

    assert [job for job, _ in batch] == short[:2]


def test_a_failed_call_fails_its_jobs_and_no_others(pipeline: Any, stopped: list[PipelinePeer]) -> None:
    """Given a job that diffusers refuses, when it is painted before another, then that one is painted all the same."""
    (good,) = SHORT.jobs(1, seed=1, size=SIZE)
    refused = Job(good.picture, good.prompt, steps=8, strength=2.0, guidance_scale=4.0, seed=1)
    peer = PipelinePeer("loop", pipeline, most=1)
    peer.start()
    stopped.append(peer)

    first, second = peer.submit([refused, good])

    assert isinstance(first.exception(60), ValueError)
    assert second.result(60).shape == (64, 64, 3)


def test_a_workload_is_the_same_for_the_same_seed() -> None:
    """Given one seed, when jobs are drawn twice, then they are the same; another seed and workload give others."""
    mixed = WORKLOADS["mixed"]
    one, again, others = (_told(mixed.jobs(28, seed=seed, size=SIZE)) for seed in (3, 3, 4))

    assert one == again
    assert not set(one) & set(others)
    pictures = {picture for picture, *_ in (*one, *_told(WORKLOADS["uniform"].jobs(28, seed=3, size=SIZE)))}
    assert len(pictures) == 56


def test_the_mixed_workload_has_the_announced_mix() -> None:
    """Given 196 jobs, when they are drawn, then steps and strengths come evenly and a quarter is unguided."""
    jobs = WORKLOADS["mixed"].jobs(196, seed=0, size=SIZE)

    assert Counter(job.steps for job in jobs) == dict.fromkeys((20, 25, 30, 35, 40, 45, 50), 28)
    assert Counter(job.strength for job in jobs) == dict.fromkeys((0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 28)
    assert Counter(job.guidance_scale for job in jobs) == {4.0: 147, 1.0: 49}
    # Drawn apart from each other: no field tells the others.
    assert len({(job.steps, job.strength) for job in jobs}) > 40
    assert len({job.prompt for job in jobs}) == len({job.seed for job in jobs}) == 196


def test_poisson_arrivals_have_the_rate_and_spread_of_their_law() -> None:
    """Given a rate of 5 a second, when many arrivals are drawn, then gaps have the mean and deviation of 0.2 s."""
    times = poisson(20_000, 5.0, seed=0)

    gaps = np.diff(times)
    assert times[0] == 0
    assert gaps.mean() == pytest.approx(0.2, rel=0.03)
    assert gaps.std() == pytest.approx(0.2, rel=0.03)
    assert times == poisson(20_000, 5.0, seed=0)


@pytest.mark.parametrize("scale", [4.0, 1.0])
def test_the_counted_work_of_a_job_is_what_torch_counts_in_its_call(pipeline: Any, scale: float) -> None:
    """Given costs by part, when a job is priced, then it is what torch counts in the whole call."""
    job = Job(SHORT.jobs(1, seed=1, size=SIZE)[0].picture, "a red cat", 7, 0.6, scale, seed=1)

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        pipeline(
            prompt=job.prompt,
            image=job.picture,
            num_inference_steps=job.steps,
            strength=job.strength,
            guidance_scale=job.guidance_scale,
        )

    assert costs_of(pipeline, SIZE).of(job) == counter.get_total_flops()


def _told(jobs: list[Job]) -> list[tuple[bytes, str, int, float, float, int]]:
    return [(job.picture.tobytes(), job.prompt, job.steps, job.strength, job.guidance_scale, job.seed) for job in jobs]
