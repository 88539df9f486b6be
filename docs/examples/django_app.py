"""A service that has pictures repainted: Django in front, Overpaint behind, in one file.

    pip install overpaint django
    python django_app.py runserver

Beside Overpaint's settings it reads PICTURES, the place that its pictures go to, and OVERPAINT_WEBHOOK_SECRET.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from functools import cache

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from overpaint_common.errors import (
    BrokerUnavailable,
    ForbiddenReference,
    IdempotencyConflict,
    InvalidJob,
    InvalidSignature,
    ObjectNotFound,
    OverpaintError,
    StorageUnavailable,
)
from overpaint_producer import Producer, verify_webhook

log = logging.getLogger(__name__)

STATUS_OF: list[tuple[type[OverpaintError], int]] = [
    (IdempotencyConflict, 409),
    (InvalidJob, 422),
    (ForbiddenReference, 403),
    (InvalidSignature, 403),
    (ObjectNotFound, 404),
    (StorageUnavailable, 503),
    (BrokerUnavailable, 503),
]
"""What a client is answered; the first that fits counts, and everything else is a fault of ours."""


@cache
def producer() -> Producer:
    """One for each process, made at its first request: a server that forks has forked by then."""
    return Producer()


def explain_errors(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware."""

    def respond(request: HttpRequest) -> HttpResponse:
        return get_response(request)

    def process_exception(_: HttpRequest, error: Exception) -> HttpResponse | None:
        status = next((status for kind, status in STATUS_OF if isinstance(error, kind)), None)
        if status is None or not isinstance(error, OverpaintError):
            return None
        headers = {"Retry-After": "5"} if error.retryable else {}
        return JsonResponse({"code": error.code, "detail": str(error)}, status=status, headers=headers)

    respond.process_exception = process_exception  # type: ignore[attr-defined]
    return respond


@csrf_exempt
@require_POST
def order(request: HttpRequest) -> HttpResponse:
    """Durable once answered: a client that got no answer sends the same again, with the same key."""
    given = json.loads(request.body)
    job = producer().img2img(
        given["source"],
        prompt=given["prompt"],
        strength=given.get("strength", 0.5),
        output=os.environ.get("PICTURES", "s3://pictures/"),
        webhook=given.get("webhook"),
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    return JsonResponse({"id": job.id, "state": job.status().state}, status=202)


@require_GET
def show(_: HttpRequest, job_id: str) -> HttpResponse:
    job = producer().handle(job_id)
    moment = job.status()
    pictures = job.urls() if moment.state == "succeeded" else []
    return JsonResponse(
        {"id": job.id, "state": moment.state, "step": moment.step, "steps": moment.steps, "pictures": pictures}
    )


@csrf_exempt
@require_POST
def ended(request: HttpRequest) -> HttpResponse:
    event = verify_webhook(request.headers, request.body, settings.WEBHOOK_SECRET)
    # It may come again: what is done here is done once for each event.id.
    log.info("job %s %s: %s", event.job_id, event.status, event.result)
    return HttpResponse(status=204)


urlpatterns = [
    path("paintings/", order),
    path("paintings/<str:job_id>/", show),
    path("webhooks/overpaint/", ended),
]

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["localhost", "testserver"],
        MIDDLEWARE=[f"{__name__}.explain_errors"],
        ROOT_URLCONF=__name__,
        SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "not used here"),
        WEBHOOK_SECRET=os.environ.get("OVERPAINT_WEBHOOK_SECRET", ""),
    )

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
