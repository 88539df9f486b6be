"""One device, one thread: model registry, loading, and running pipelines. Knows neither Celery nor storage."""
