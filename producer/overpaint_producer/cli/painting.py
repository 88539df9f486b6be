"""The options that say how to paint, and the passes that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from overpaint_common.job import Prepare
from overpaint_common.presets import PRESETS, passes, preset
from overpaint_common.references import Reference
from overpaint_common.schedulers import SCHEDULERS
from overpaint_producer.cli.candidates import files, models
from overpaint_producer.cli.lists import scaled
from overpaint_producer.cli.sections import Decorated, option, options
from overpaint_producer.compose import PassLike, Place, reference, refinement

Given = Mapping[str, Any]
"""Values of options by their names; None, False and () where they were not given."""

_COMMON = ("steps", "guidance_scale", "negative_prompt", "scheduler", "loras")
_IMG2IMG_ONLY = {"controls": "--control", "enlarge": "--enlarge"}
_INPAINT_ONLY = {
    "invert": "--invert-mask",
    "threshold": "--threshold",
    "feather": "--feather",
    "only_masked": "--only-masked",
    "padding": "--padding",
}

_HOW = options(
    "How to paint",
    option(
        "--strength", "-s", type=float, metavar="0..1",
        help="0 keeps the source, 1 paints anew. Default: 0.5; with --mask 0.8.",
    ),
    option("--steps", type=int, metavar="N", help="Of the whole trajectory; strength decides how many run."),
    option("--guidance-scale", "-g", type=float, metavar="G", help="Pull of the prompt; 1 and below: none."),
    option(
        "--model", "-m", metavar="NAME", shell_complete=models,
        help="From the workers' registry. Default: the only one that serves this.",
    ),
    option("--scheduler", type=click.Choice(SCHEDULERS), metavar="NAME", help="Such as euler_a. Default: the model's."),
    option(
        "--lora", "loras", multiple=True, callback=scaled, metavar="NAME[:SCALE]",
        help="A LoRA that the registry has for the model. May be repeated.",
    ),
    option(
        "--control", "controls", multiple=True, callback=scaled, metavar="NAME[:SCALE]",
        help="A control network that holds the structure; @PICTURE behind it gives it one. May be repeated.",
    ),
    option("--enlarge", type=float, metavar="TIMES", help="Scale the picture up first, 1 to 4 times."),
)  # fmt: skip

_WHERE = options(
    "Where to paint",
    option(
        "--mask", metavar="PICTURE", shell_complete=files,
        help="Repaint only where this is white; as SOURCE it may be a file.",
    ),
    option("--invert-mask", "invert", is_flag=True, help="Repaint where it is black."),
    option("--threshold", type=float, metavar="0..1", help="Grey from here on counts as white. Default: greys blend."),
    option("--feather", type=float, metavar="PIXELS", help="Soften the mask's edge."),
    option("--only-masked", is_flag=True, help="Paint the masked part alone, at the model's size, in more detail."),
    option("--padding", type=int, metavar="PIXELS", help="Seen around it then. Default: 32."),
)  # fmt: skip

_FITTING = options(
    "How the source meets the model",
    option(
        "--fit", type=click.Choice(get_args(Prepare.model_fields["fit"].annotation)),
        help="Default: pad. crop keeps the middle, bucket the shape, keep the size.",
    ),
    option("--size", type=int, metavar="PIXELS", help="Side to fit to. Default: the model's native size."),
    option("--fill", metavar="COLOUR", help="Beside a padded picture: edge, reflect or #rrggbb. Default: edge."),
)  # fmt: skip


def painting_options(style_help: str) -> Callable[[Decorated], Decorated]:
    """Adds all of them to a command; `style_help` says what it does with several styles."""
    what = options(
        "What to paint",
        option(
            "--prompt", "-p", "prompts", multiple=True, metavar="TEXT",
            help='What the picture should become; "" leaves it to the model. Repeated: one for each pass.',
        ),
        option("--negative-prompt", "-n", metavar="TEXT", help="What to keep away from."),
        option("--style", "--styles", "styles", multiple=True, metavar="TEXT", help=style_help),
        option(
            "--preset", type=click.Choice(list(PRESETS)), metavar="NAME",
            help="Settings for a common task; `overpaint presets` lists them. Options beside it count instead.",
        ),
    )  # fmt: skip

    def add(function: Decorated) -> Decorated:
        for decorate in (_FITTING, _WHERE, _HOW, what):
            function = decorate(function)
        return function

    return add


def passes_of(given: Given, prompts: Sequence[str], strengths: Sequence[float] = ()) -> list[PassLike]:
    """The passes that the options ask for: a preset's, one for each of several strengths, or one.

    Raises click.UsageError for options that contradict each other, InvalidJob for what a preset does not take.
    """
    fields = {name: given[name] for name in (*_COMMON, *_IMG2IMG_ONLY, *_INPAINT_ONLY) if _is_given(given.get(name))}
    if given["mask"] is not None:
        fields["mask"] = picture(given["mask"], " for the mask")
    if "controls" in fields:
        fields["controls"] = [_with_picture(control) for control in fields["controls"]]
    if given["preset"] is not None:
        return _preset(given, fields, prompts, strengths)
    _check_kind(fields)
    shared = {"op": "inpaint" if "mask" in fields else "img2img", **fields}
    if strengths:
        _check_alone(given, "--strengths")
        return refinement(strengths, prompts[0] if len(prompts) == 1 else prompts, shared)
    if len(prompts) > 1:
        raise click.UsageError("several --prompt are for several passes: give --strengths or a --preset, or one prompt")
    default = 0.8 if "mask" in fields else 0.5
    strength = default if given["strength"] is None else given["strength"]
    return [{**shared, "prompt": prompts[0], "strength": strength}]


def prepare_of(given: Given) -> dict[str, Any]:
    """The fields of Prepare: a preset's own, unless options say otherwise."""
    base = preset(given["preset"]).prepare.model_dump(exclude_defaults=True) if given["preset"] else {}
    return {**base, **{name: given[name] for name in ("fit", "size", "fill") if given[name] is not None}}


def place(text: str) -> Place:
    """A reference as it is; anything else is a path."""
    return text if "://" in text else Path(text)


def picture(text: str, what: str = "") -> str:
    """The reference of a picture to read; raises click.UsageError where it is a path and no file is there.

    `what` goes on with the message, such as " for the mask".
    """
    if "://" not in text and not Path(text).is_file():
        if Path(text).is_dir():
            raise click.UsageError(f"{text!r} is a folder; name one picture in it")
        raise click.UsageError(f"there is no file {text!r}{what}; an object in S3 is written s3://bucket/key")
    return reference(place(text))


def uploaded(given: Given, upload: Callable[[Path], str]) -> Given:
    """The same, with the reference that `upload` returns in place of each picture that is a file on this machine.

    Raises click.UsageError where no file is there.
    """

    def moved(text: str, what: str = "") -> str:
        found = Reference.parse(picture(text, what))
        return upload(found.path) if found.scheme == "file" else text

    controls = tuple(
        {**control, "image": moved(control["image"], " for the control")} if "image" in control else control
        for control in given["controls"]
    )
    mask = given["mask"] and moved(given["mask"], " for the mask")
    return {**given, "source": moved(given["source"]), "mask": mask, "controls": controls}


def _preset(given: Given, fields: dict[str, Any], prompts: Sequence[str], strengths: Sequence[float]) -> list[PassLike]:
    if strengths:
        raise click.UsageError("--preset has passes of its own: leave out --strengths")
    if given["strength"] is not None:
        fields["strength"] = given["strength"]
    prompt = prompts[0] if len(prompts) == 1 else prompts
    return list(passes(given["preset"], prompt, **fields))


def _check_kind(fields: Mapping[str, Any]) -> None:
    wrong = _IMG2IMG_ONLY if "mask" in fields else _INPAINT_ONLY
    for name, spelled in wrong.items():
        if name in fields:
            raise click.UsageError(f"{spelled} is of no use {'with' if 'mask' in fields else 'without'} --mask")


def _check_alone(given: Given, other: str) -> None:
    if given["strength"] is not None:
        raise click.UsageError(f"{other} gives the strengths: leave out --strength")


def _with_picture(control: Mapping[str, Any]) -> dict[str, Any]:
    return {**control, **({"image": picture(control["image"], " for the control")} if "image" in control else {})}


def _is_given(value: object) -> bool:
    return value is not None and value is not False and value != ()
