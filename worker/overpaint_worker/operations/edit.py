"""edit: follow an instruction about the picture."""

from __future__ import annotations

from overpaint_common.passes import Edit
from overpaint_worker.operations.work import Scope, Work


def begin(p: Edit, scope: Scope) -> Work:
    """The call of one settled pass of one variant."""
    return Work(scope.call(p, scope.picture, image_guidance_scale=p.image_guidance_scale))
