"""What a stage needs to go on after a kill: written to the side first, so that a kill while writing loses nothing."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch

LATEST = "latest.pt"


@dataclass(slots=True)
class State:
    """All that changes while a stage trains."""

    modules: torch.nn.ModuleDict
    average: torch.optim.swa_utils.AveragedModel
    """The exponential moving average of `modules`, the weights that are exported."""
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Spent so far, over all runs."""

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / (LATEST + ".part")
        content = {
            "modules": self.modules.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        torch.save(content, part)
        part.replace(folder / LATEST)

    def load(self, folder: Path) -> bool:
        """Take over the latest checkpoint; False if there is none."""
        file = folder / LATEST
        if not file.is_file():
            return False
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        self.modules.load_state_dict(content["modules"])
        self.average.load_state_dict(content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.seconds = content["step"], content["seconds"]
        torch.set_rng_state(content["rng"])
        if content["rng_cuda"] and torch.cuda.device_count() == len(content["rng_cuda"]):
            torch.cuda.set_rng_state_all(content["rng_cuda"])
        return True


@dataclass(slots=True)
class LossLog:
    """A CSV with one row for each logged step; rows after the checkpoint that a run resumes from are dropped."""

    file: Path
    columns: tuple[str, ...]
    _open: TextIO = field(init=False)

    def start(self, step: int) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in self.rows() if int(row["step"]) <= step]
        self._open = self.file.open("w", newline="", encoding="utf-8")
        csv.DictWriter(self._open, self.columns).writeheader()
        for row in kept:
            self.write(row)

    def write(self, row: Mapping[str, object]) -> None:
        csv.DictWriter(self._open, self.columns).writerow(row)
        self._open.flush()

    def close(self) -> None:
        self._open.close()

    def rows(self) -> list[dict[str, str]]:
        if not self.file.is_file():
            return []
        with self.file.open(newline="", encoding="utf-8") as lines:
            return list(csv.DictReader(lines))
