"""img2img: repaint the whole picture towards a prompt, with its structure held by control networks where asked for."""

from __future__ import annotations

from PIL import Image

from overpaint_common.errors import NotServed
from overpaint_common.passes import Control, Img2Img
from overpaint_worker.engine.calls import ControlInput
from overpaint_worker.imaging.edges import edges
from overpaint_worker.operations.work import Scope, Work


def begin(p: Img2Img, scope: Scope) -> Work:
    """The call of one settled pass of one variant. Raises NotServed for a control that cannot be computed."""
    picture = enlarged(scope.picture, p.enlarge)
    controls = tuple(_control(control, scope, picture) for control in p.controls)
    return Work(scope.call(p, picture, strength=p.strength, controls=controls))


def enlarged(picture: Image.Image, factor: float) -> Image.Image:
    """The picture at `factor` times its size, with Lanczos."""
    if factor == 1:
        return picture
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.LANCZOS)


def _control(control: Control, scope: Scope, picture: Image.Image) -> ControlInput:
    if control.image is not None:
        given: Image.Image | None = scope.inputs.laid(control.image, picture.size, "RGB")
    elif scope.reads[control.name] == "edges":
        given = edges(picture, low=control.low, high=control.high)
    elif scope.reads[control.name] == "depth":
        given = None
    else:
        raise NotServed(f"control {control.name!r} reads a picture that no worker can compute; give its image")
    return ControlInput(control.name, given, control.scale, control.start, control.end)
