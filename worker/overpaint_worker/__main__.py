from overpaint_worker.cli import worker

worker()
