"""The contract as JSON Schema, for producers in other languages.

`python -m overpaint_common.schema` writes the committed files again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from overpaint_common.job import Job
from overpaint_common.result import Result
from overpaint_common.webhooks import WebhookEvent

FOLDER = Path(__file__).parent / "schemas"


def schemas() -> dict[str, dict[str, Any]]:
    """File name to schema (draft 2020-12): the job as a producer may send it, the record as a worker writes it, and the
    body of a webhook."""
    return {
        "job.schema.json": _schema(Job.model_json_schema(mode="validation"), "Job"),
        "result.schema.json": _schema(Result.model_json_schema(mode="serialization"), "Result"),
        "webhook.schema.json": _schema(WebhookEvent.model_json_schema(mode="serialization"), "Webhook"),
    }


def render(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def _schema(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body, "title": f"Overpaint {name}, version 1"}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (FOLDER / name).write_text(render(schema))


if __name__ == "__main__":
    main()
