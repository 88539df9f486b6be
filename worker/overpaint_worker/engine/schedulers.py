"""The class behind each scheduler's name, made from the configuration of the model's own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from overpaint_common.errors import NotServed
from overpaint_common.schedulers import FLOW_SCHEDULERS, SchedulerName

_DPMPP: Mapping[str, Any] = {"algorithm_type": "dpmsolver++", "solver_order": 2}

_CLASSES: Mapping[SchedulerName, tuple[str, Mapping[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpm2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", _DPMPP),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {**_DPMPP, "use_karras_sigmas": True}),
    "dpmpp_2s": ("DPMSolverSinglestepScheduler", _DPMPP),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "euler_karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    # With Runge-Kutta steps in front, which latent diffusion never had, a strength would start at the wrong noise.
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
_SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
"""How noise levels are spaced, where not evenly: the name says it, whatever the model's own scheduler does."""


def make(name: SchedulerName, own: Any) -> Any:
    """A fresh scheduler on the configuration of the model's `own`.

    Raises NotServed where the model has none of that name.
    """
    if type(own).__name__.startswith("FlowMatch"):
        return _made_for_flow(name, own)
    classes = {class_name for class_name, _ in _CLASSES.values()}
    flows = own.config.get("use_flow_sigmas") or own.config.get("prediction_type") == "flow_prediction"
    if flows or not (own._compatibles or type(own).__name__ in classes):
        raise NotServed(f"scheduler {name!r}: this model runs on its own {type(own).__name__} alone; name none")
    class_name, settings = _CLASSES[name]
    scheduler_class = getattr(diffusers, class_name)
    known = inspect.signature(scheduler_class.__init__).parameters
    evenly = {spacing: False for spacing in _SPACINGS if spacing in known}
    return scheduler_class.from_config(own.config, **{**evenly, **settings})


def _made_for_flow(name: SchedulerName, own: Any) -> Any:
    if name == "euler":
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(own.config)
    if name == "heun":
        return FlowMatchHeunDiscreteScheduler.from_config(own.config)
    raise NotServed(f"scheduler {name!r}: flow-matching models have {', '.join(FLOW_SCHEDULERS)}; name one or none")


class FlowMatchHeunDiscreteScheduler(diffusers.FlowMatchHeunDiscreteScheduler):  # type: ignore[misc]
    """diffusers' own, which tells in our words what it does not take from a pipeline."""

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, sigmas: Any = None, mu: Any = None
    ) -> None:
        """Raises NotServed for a pipeline that sets or shifts the noise levels itself, as that of Flux does."""
        if num_inference_steps is None or sigmas is not None or mu is not None:
            raise NotServed("scheduler 'heun': this model's pipeline sets its own noise levels; name euler or none")
        super().set_timesteps(num_inference_steps, device)
