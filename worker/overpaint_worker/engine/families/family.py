"""What the stepped lane has to know of a family of models. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Inputs:
    """How the arguments of a network's `forward`, by name, make one batch of several calls.

    An argument that is named nowhere here has to be equal in calls that share a forward.
    """

    rows: frozenset[str]
    """Tensors, or dicts and sequences of them, with one row for each sample; of equal shapes but for the rows."""
    timestep: str = "timestep"
    """A number, or one for each row."""
    residuals: frozenset[str] = NOTHING
    """Rows that are added to what the network computes itself: calls without them get zeros."""
    scales: frozenset[str] = NOTHING
    """Numbers that a network multiplies all that it returns by, 1 where it is given none."""
    common: frozenset[str] = NOTHING
    """Tensors without rows, which depend on nothing but the shapes of the others."""

    @property
    def names(self) -> frozenset[str]:
        """Of all arguments that are named here."""
        return self.rows | self.residuals | self.scales | self.common | {self.timestep}


@dataclass(frozen=True, slots=True)
class Family:
    """Pipelines of diffusers that differ in their inputs and call the same kinds of networks.

    What else they call is computed one item at a time: the VAE as `vae`, and the text encoders as the method
    `encode_prompt`.
    """

    pipelines: tuple[str, ...]
    """Class names."""
    networks: Mapping[str, Inputs]
    """Those that they call at each step, by the name of the pipeline's part, the denoiser first."""
    encode_prompt: tuple[str, ...] = ("encode_prompt",)
    """Methods that turn texts into embeddings, and use no part but tokenizers and text encoders."""
