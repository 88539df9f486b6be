"""Presets fill in passes, and nothing that they were not asked for."""

from __future__ import annotations

from typing import Any

import pytest

from overpaint_common.errors import InvalidJob
from overpaint_common.fleet import ModelCard, settle
from overpaint_common.job import Job, Output, Prepare
from overpaint_common.passes import OPERATIONS, Diffusion, Img2Img, Inpaint, MatchColor, Upscale
from overpaint_common.presets import PRESETS, passes, preset
from tests.docs.pages import DOCS, page
from tests.support.cards import model_card

MASK = "s3://inbox/mask.png"
EVERY_PRESET = pytest.mark.parametrize("name", PRESETS)

ADVISED: dict[str, list[float]] = {
    "light": [0.3],
    "balanced": [0.5],
    "heavy": [0.8],
    "style-transfer": [0.6],
    "object-change": [0.4],
    "variations": [0.35],
    "keep-composition": [0.5],
    "keep-colors": [0.4],
    "progressive": [0.6, 0.4, 0.2],
    "staged": [0.5, 0.3, 0.2],
    "finish": [0.2],
    "local-edit": [0.8],
    "enlarge": [0.3],
}
"""The strengths of each; the upscaler has none."""


def needed(name: str) -> dict[str, Any]:
    return {"mask": MASK} if "mask" in preset(name).needs else {}


def card() -> ModelCard:
    return model_card(
        "m",
        operations=OPERATIONS,
        native_size=512,
        default_steps=50,
        default_guidance_scale=7.5,
        max_steps=200,
        max_size=2048,
    )


def test_every_preset_has_the_strengths_that_are_advised() -> None:
    """Given all presets, when their passes are made, then the strengths are the table's, pass by pass."""
    made = {
        name: [p.strength for p in passes(name, "a cat", **needed(name)) if isinstance(p, Img2Img | Inpaint)]
        for name in PRESETS
    }
    assert {name: strengths for name, strengths in made.items() if strengths} == ADVISED
    assert list(made) == list(PRESETS)


def test_what_else_the_tasks_are_advised() -> None:
    """Given the tasks that need more than a strength, when their passes are made, then they have it."""
    (style,) = passes("style-transfer", "oil")
    (change,) = passes("object-change", "a blue car")
    painted, coloured = passes("keep-colors", "oil")
    (local,) = passes("local-edit", "a crown", mask=MASK)
    (upscaled,) = passes("upscale", "sharp")
    (enlarged,) = passes("enlarge", "sharp")
    assert isinstance(style, Img2Img)
    assert isinstance(change, Img2Img)
    assert (style.guidance_scale, change.guidance_scale) == (7.5, 10)
    assert all(isinstance(p, Img2Img) and p.negative_prompt for p in (change, painted))
    assert coloured == MatchColor(method="lab")
    assert isinstance(local, Inpaint)
    assert local.mask == MASK
    assert isinstance(upscaled, Upscale)
    assert (upscaled.steps, preset("upscale").prepare) == (20, Prepare(fit="keep"))
    assert isinstance(enlarged, Img2Img)
    assert enlarged.enlarge == 2
    assert preset("variations").variants == 4


@EVERY_PRESET
def test_every_preset_makes_a_job_that_a_fleet_takes(name: str) -> None:
    """Given each preset, when its job is settled with a model that serves all operations, then nothing is refused, and
    it is the same job once it went through JSON."""
    chosen = preset(name)
    job = Job(
        source="s3://inbox/cat.png",
        model="m",
        passes=passes(name, "a cat", **needed(name)),
        prepare=chosen.prepare,
        variants=chosen.variants,
        output=Output(prefix="s3://outbox/"),
    )
    settled = settle(job, {"m": card()})
    assert all(p.prompt == "a cat" and p.seed is not None for p in settled.passes if isinstance(p, Diffusion))
    assert Job.parse(job.model_dump_json()) == job


@EVERY_PRESET
def test_a_preset_s_text_and_json_say_all_that_it_sets(name: str) -> None:
    """Given each preset, when its settings and JSON are read, then each operation and value is there, and its use fits
    a line of the terminal."""
    chosen = preset(name)
    document = chosen.as_json()
    assert [p["op"] for p in document["passes"]] == [p.op for p in passes(name, "", **needed(name))]
    assert document["needs"] == list(needed(name))
    for step in document["passes"]:
        assert step["op"] in chosen.settings
        assert all(f"{value:g}" in chosen.settings for value in step.values() if isinstance(value, float | int)), (
            chosen.settings
        )
    assert max(len(chosen.use), len(chosen.settings)) <= 80 - len("keep-composition") - 2


def test_the_page_lists_every_preset_as_it_is() -> None:
    """Given docs/presets.md, when its table is read, then it has each preset with its use, settings and advice."""
    rows = page(DOCS / "presets.md").rows("preset")
    expected = []
    for chosen in PRESETS.values():
        needs = f"; needs {', '.join(chosen.needs)}" if chosen.needs else ""
        expected.append([chosen.name, chosen.use, chosen.settings + needs, chosen.advice])
    assert rows == expected


def test_the_page_says_what_the_negative_prompts_are() -> None:
    """Given the presets that set a negative prompt, when docs/presets.md is read, then it has each of them."""
    spans = page(DOCS / "presets.md").spans
    negative = [
        step["negative_prompt"] for each in PRESETS.values() for step in each.steps if "negative_prompt" in step
    ]
    assert len(negative) == 3
    assert set(negative) <= set(spans)


def test_overrides_go_to_each_pass_that_has_the_field() -> None:
    """Given overrides, when a preset of several kinds of passes is made, then each takes its own and the rest stays."""
    painted, coloured = passes("keep-colors", "oil", steps=30, strength=0.7, method="wavelet", amount=0.5)
    assert painted == Img2Img(
        prompt="oil", negative_prompt=PRESETS["keep-colors"].steps[0]["negative_prompt"], steps=30, strength=0.7
    )
    assert coloured == MatchColor(method="wavelet", amount=0.5)
    assert [p.steps for p in passes("progressive", "oil", steps=30) if isinstance(p, Img2Img)] == [30] * 3
    (plain,) = passes("style-transfer", "oil", guidance_scale=None)
    assert plain == Img2Img(prompt="oil", strength=0.6)


def test_a_negative_prompt_takes_the_preset_s_place() -> None:
    """Given a negative prompt, be it empty, when a preset that has its own is made, then the caller's is taken."""
    for text in ("red", ""):
        (p,) = passes("object-change", "a blue car", negative_prompt=text)
        assert isinstance(p, Img2Img)
        assert p.negative_prompt == text


def test_each_stage_may_have_its_prompt() -> None:
    """Given three prompts, when the stages are made, then each has its own, in order."""
    made = passes("staged", ["oil painting", "sunset light", "fine detail"])
    assert [p.prompt for p in made if isinstance(p, Img2Img)] == ["oil painting", "sunset light", "fine detail"]


@pytest.mark.parametrize(
    ("name", "prompt", "overrides", "said"),
    [
        ("lihgt", "", {}, r"no preset 'lihgt'; there are light, balanced"),
        ("light", "", {"strenth": 1}, r"no field 'strenth'; it has .*strength"),
        ("light", "", {"op": "edit"}, r"no field 'op'"),
        ("light", "", {"strength": 2}, r"'light', pass 0: strength: .*\(given: 2\)"),
        ("keep-colors", "", {"amount": -1}, r"'keep-colors', pass 1: amount: "),
        ("local-edit", "", {}, r"needs mask"),
        ("progressive", "", {"strength": 0.5}, r"3 painting passes, which cannot share one strength"),
        ("progressive", "", {"seed": 5}, r"cannot share one seed.*into the job"),
        ("staged", ["a", "b"], {}, r"paints 3 times and was given 2 prompts"),
    ],
    ids=["name", "field", "op", "value", "second-pass", "needs", "strength", "seed", "prompts"],
)
def test_what_is_wrong_is_named(name: str, prompt: str | list[str], overrides: dict[str, Any], said: str) -> None:
    """Given a mistake, when a preset is made, then the error is about the job and names the mistake and the remedy."""
    with pytest.raises(InvalidJob, match=said):
        passes(name, prompt, **overrides)
