"""What is stored has the source's size where the job asks for it, and its aspect ratio where it does not."""

from __future__ import annotations

import io
from typing import Literal, get_args

from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from overpaint_common.job import Job, Output, Prepare
from overpaint_common.passes import Img2Img
from overpaint_worker.finishing import encode_variants
from overpaint_worker.imaging.decode import Source, decode
from overpaint_worker.imaging.fit import fill_named, fit
from overpaint_worker.imaging.placement import Method, Size
from overpaint_worker.operations.passes import Outcome, Variant
from overpaint_worker.operations.work import Inputs

from .files import photograph, saved

SIDES = st.one_of(st.integers(1, 9), st.integers(10, 150))


def stored(
    source: Source, *, method: Method, fill: str, wanted: Literal["model", "source"], scale: int
) -> tuple[Image.Image, Inputs]:
    """What is stored of a source whose fitted picture the passes only enlarged."""
    job = Job(
        source="s3://inbox/a.png",
        model="m",
        passes=(Img2Img(),),
        prepare=Prepare(fit=method, fill=fill),
        output=Output(prefix="s3://outbox/", size=wanted),
    )
    fitted = fit(source.picture, size=64, method=job.prepare.fit, fill=fill_named(job.prepare.fill))
    painted = fitted.picture.resize([side * scale for side in fitted.picture.size], Image.Resampling.NEAREST)
    outcome = Outcome((Variant(0, painted, None),), (), 1, 0, ())
    inputs = Inputs(fitted.picture, fitted.placement)
    (encoded,) = encode_variants(job, outcome, source, inputs, {})
    picture = Image.open(io.BytesIO(encoded.picture.data))
    assert picture.size == (encoded.picture.width, encoded.picture.height)
    return picture, inputs


@settings(deadline=None, max_examples=80)
@given(
    size=st.tuples(SIDES, SIDES),
    method=st.sampled_from(get_args(Method)),
    fill=st.sampled_from(["edge", "reflect", "#000000", "#fa8003"]),
    wanted=st.sampled_from(["model", "source"]),
    scale=st.sampled_from([1, 4]),
    alpha=st.booleans(),
)
@example(size=(1, 150), method="pad", fill="reflect", wanted="source", scale=4, alpha=True)
@example(size=(150, 1), method="stretch", fill="edge", wanted="source", scale=1, alpha=False)
@example(size=(1, 1), method="keep", fill="#000000", wanted="source", scale=1, alpha=False)
def test_the_picture_comes_back_at_the_size_that_was_asked_for(
    size: Size, method: Method, fill: str, wanted: Literal["model", "source"], scale: int, alpha: bool
) -> None:
    """Given sources of odd, tiny and one-pixel sizes, when their paintings are stored at the source's size, then it is
    exactly that, or after crop that of the part kept; else the aspect ratio is the source's within a pixel."""
    given_picture = photograph(size)
    if alpha:
        given_picture.putalpha(Image.linear_gradient("L").resize(size))
    picture, inputs = stored(
        decode(saved(given_picture, "PNG"), max_pixels=10**6), method=method, fill=fill, wanted=wanted, scale=scale
    )
    placement = inputs.placement
    left, top, right, bottom = placement.visible
    seen = (right - left, bottom - top)
    assert seen == size or method == "crop"
    if wanted == "source":
        assert picture.size == seen
        return
    long, short = picture.size if seen[0] >= seen[1] else picture.size[::-1]
    if method == "keep":
        assert picture.size == (size[0] * scale, size[1] * scale)
    assert abs(short - long * min(seen) / max(seen)) <= scale or short == scale


def test_no_padding_is_left_at_the_border() -> None:
    """Given a bright picture between black bars, when it comes back at its own size, then no row of it is dark."""
    source = decode(saved(Image.new("RGB", (150, 40), (250, 240, 230)), "PNG"), max_pixels=10**6)
    for method in get_args(Method):
        picture, _ = stored(source, method=method, fill="#000000", wanted="source", scale=4)
        assert picture.getextrema() == ((250, 250), (240, 240), (230, 230)), method
