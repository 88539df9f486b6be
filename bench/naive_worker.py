"""The worker that one writes first: a Celery task that downloads, calls the pipeline, and uploads.

`python -m bench.naive_worker` serves it from a prefork pool of one process, with Celery's own defaults for the rest.
"""

from __future__ import annotations

import io
import os
from typing import Any

from celery import Celery, signals

from overpaint_common.references import Reference

TASK = "naive.repaint"
REDIS_VARIABLE = "NAIVE_REDIS_URL"
S3_VARIABLE = "NAIVE_S3_URL"
THREADS_VARIABLE = "NAIVE_THREADS"


def create_app(redis_url: str) -> Celery:
    """For both ends: messages and results go through Redis."""
    return Celery("naive", broker=redis_url, backend=redis_url, set_as_current=False)


class Painter:
    """What a process of the pool holds."""

    def load(self, **_: Any) -> None:
        import boto3
        import torch
        from botocore.config import Config

        from bench.engine.pipelines import open_pipeline
        from overpaint_worker.engine.registry import EMBEDDED

        torch.set_num_threads(int(os.environ[THREADS_VARIABLE]))
        self._pipeline = open_pipeline("StableDiffusionImg2ImgPipeline", EMBEDDED)
        self._s3 = boto3.client(
            "s3", endpoint_url=os.environ[S3_VARIABLE], config=Config(s3={"addressing_style": "path"})
        )

    def repaint(self, source: str, target: str, prompt: str, seed: int, settings: dict[str, Any]) -> str:
        """Repaint the picture at `source` and store it at `target`; `settings` are arguments of the pipeline."""
        import torch
        from PIL import Image

        place = Reference.parse(source)
        body = self._s3.get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
        picture = Image.open(io.BytesIO(body)).convert("RGB")
        generator = torch.Generator("cpu").manual_seed(seed)
        with torch.inference_mode():
            (painted,) = self._pipeline(prompt=prompt, image=picture, generator=generator, **settings).images
        file = io.BytesIO()
        painted.save(file, "PNG")
        place = Reference.parse(target)
        self._s3.put_object(Bucket=place.bucket, Key=place.key, Body=file.getvalue(), ContentType="image/png")
        return target


def main() -> None:
    app, painter = create_app(os.environ[REDIS_VARIABLE]), Painter()
    app.task(name=TASK)(painter.repaint)
    signals.worker_process_init.connect(painter.load, weak=False)
    app.worker_main(["worker", "--pool", "prefork", "--concurrency", "1", "--loglevel", "WARNING"])


if __name__ == "__main__":
    main()
