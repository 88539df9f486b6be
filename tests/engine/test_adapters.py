"""LoRAs and words learnt by textual inversion paint what the same weights written into the model by hand paint."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from overpaint_common.errors import ModelLoadFailed
from overpaint_worker.engine.loading import PipelineLoader
from overpaint_worker.engine.model import PipelineModel
from overpaint_worker.engine.registry import FileSpec, ModelSpec, Registry
from tests.engine.conftest import CLASSES, FAMILIES, Models
from tests.engine.direct import Direct, call, noise_picture
from tests.support.tiny_models import tiny_lora

TOLERANCE = 1e-4
PICTURE = noise_picture(32, 32)
Pixels = NDArray[np.float32]

# The first name is part of a prefix that peft gives its own layers, the second has a dot, which torch's names must not.
LORAS = {"lora": 31, "ink.v2": 32}


def load(models: Models, name: str, **entry: Any) -> PipelineModel:
    spec = ModelSpec(path=models.folder(name), family=FAMILIES[name], **entry)
    return PipelineLoader(Registry(models={name: spec}), "cpu")(name)


def paint(model: PipelineModel, *, on_step: Callable[[int], None] = lambda _: None, **asked: Any) -> Pixels:
    return model.run(call("m", PICTURE, **asked), on_step).pixels


def direct(pipeline: Direct, **changes: Any) -> Pixels:
    arguments = {"prompt": "a red cat", "strength": 0.6, "num_inference_steps": 5, "guidance_scale": 4.0} | changes
    return pipeline(PICTURE, seed=7, **arguments)


def merged(models: Models, name: str, loras: Mapping[Path, float]) -> Direct:
    """diffusers' own pipeline, to whose weights W each LoRA adds scale * alpha / rank * up @ down (Hu et al. 2021)."""
    opened = Direct(CLASSES[name], models.folder(name))
    for file, scale in loras.items():
        weights = load_file(file)
        for key in [key for key in weights if key.endswith((".lora_A.weight", ".lora_down.weight"))]:
            down = weights[key]
            up = weights[key.replace("lora_A", "lora_B").replace("lora_down", "lora_up")]
            layer = re.sub(r"\.lora_\w+\.weight$", "", key)
            alpha = weights.get(f"{layer}.alpha", torch.tensor(float(len(down))))
            _layer(opened.pipeline, layer).weight.data += scale * alpha / len(down) * up @ down
    return opened


def _layer(pipeline: Any, key: str) -> Any:
    part, _, layer = key.partition(".")
    if not layer:  # As kohya writes it: all dots are underscores.
        part = "unet" if key.startswith("lora_unet_") else "text_encoder"
        flat = key.removeprefix("lora_unet_").removeprefix("lora_te_").removeprefix("text_model_")
    else:
        flat = layer.removeprefix("text_model.").replace(".", "_")
    found = {n.removeprefix("text_model.").replace(".", "_"): m for n, m in getattr(pipeline, part).named_modules()}
    return found[flat]


@pytest.fixture(scope="module")
def files(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Path]]:
    """The LoRA files of a model, by their names in the registry."""
    root = tmp_path_factory.mktemp("loras")

    def of(name: str) -> dict[str, Path]:
        made = {lora: root / f"{name}-{seed}.safetensors" for lora, seed in LORAS.items()}
        for lora, file in made.items():
            if not file.exists():
                tiny_lora(file, models.folder(name), seed=LORAS[lora])
        return made

    return of


@pytest.fixture(scope="module")
def adapted(models: Models, files: Callable[[str], dict[str, Path]]) -> Callable[[str], PipelineModel]:
    """A model with both LoRAs, one named by its file and one by folder and file."""
    loaded: dict[str, PipelineModel] = {}

    def of(name: str) -> PipelineModel:
        if name not in loaded:
            first, second = files(name).values()
            specs = (FileSpec(path=first), FileSpec(path=second.parent, file=second.name))
            loaded[name] = load(models, name, loras=dict(zip(LORAS, specs, strict=True)))
        return loaded[name]

    return of


Files = Callable[[str], dict[str, Path]]
Adapted = Callable[[str], PipelineModel]


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_one_lora_at_a_scale(models: Models, files: Files, adapted: Adapted, name: str) -> None:
    """Given a LoRA at 0.7, when a call names it, then the pixels are those of 0.7 of it added to the weights."""
    ours = paint(adapted(name), loras=(("lora", 0.7),))

    theirs = direct(merged(models, name, {files(name)["lora"]: 0.7}))
    assert np.abs(ours - theirs).max() <= TOLERANCE
    assert np.abs(ours - direct(models.direct(name))).max() > 0.01


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_two_loras_add_up(models: Models, files: Files, adapted: Adapted, name: str) -> None:
    """Given two LoRAs of other scales, one of them negative, when a call names both, then both are in the weights."""
    ours = paint(adapted(name), loras=(("lora", 0.7), ("ink.v2", -0.4)))

    theirs = direct(merged(models, name, {files(name)["lora"]: 0.7, files(name)["ink.v2"]: -0.4}))
    assert np.abs(ours - theirs).max() <= TOLERANCE


def test_one_that_is_named_twice_counts_twice(adapted: Adapted) -> None:
    """Given the same LoRA at 0.5 and 0.2, when a call names both, then it paints as at 0.7."""
    twice = paint(adapted("sd"), loras=(("lora", 0.5), ("ink.v2", 0.3), ("lora", 0.2)))

    assert np.array_equal(twice, paint(adapted("sd"), loras=(("lora", 0.7), ("ink.v2", 0.3))))


def test_a_lora_in_the_format_of_kohya(models: Models, tmp_path: Path) -> None:
    """Given keys and alphas as other trainers write them, when it is used, then text encoder and UNet have it."""
    file = tiny_lora(tmp_path / "kohya.safetensors", models.folder("sd"), seed=33, kohya=True)

    ours = paint(load(models, "sd", loras={"k": FileSpec(path=file)}), loras=(("k", 1.5),))

    assert np.abs(ours - direct(merged(models, "sd", {file: 1.5}))).max() <= TOLERANCE


@pytest.mark.parametrize("op", ["inpaint", "img2img"])
def test_calls_without_loras_paint_as_if_there_were_none(models: Models, adapted: Adapted, op: str) -> None:
    """Given a model with LoRAs, when a call names none, before and after one that does, then no bit is theirs."""
    mask = PICTURE.convert("L") if op == "inpaint" else None
    plain = paint(models.loaded("sd"), op=op, mask=mask)

    before = paint(adapted("sd"), op=op, mask=mask)
    between = paint(adapted("sd"), op=op, mask=mask, loras=(("lora", 2.0),))
    after = paint(adapted("sd"), op=op, mask=mask)

    assert np.array_equal(before, plain)
    assert np.array_equal(after, plain)
    assert np.abs(between - plain).max() > 0.01


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_calls_within_calls_keep_their_own(adapted: Adapted, name: str) -> None:
    """Given a call with a LoRA, when calls with others or none run within its steps, even one that fails, then each
    paints what it paints alone."""
    model = adapted(name)
    sets = [(("lora", 0.7),), (("ink.v2", 1.0), ("lora", -1.0)), ()]
    alone = [paint(model, loras=loras) for loras in sets]
    assert all(np.abs(one - other).max() > 0.01 for one, other in itertools.combinations(alone, 2))

    class Stopped(Exception): ...

    def stop(_: int) -> None:
        raise Stopped

    for outer, expected in zip(sets, alone, strict=True):
        nested: list[Pixels] = []

        def within(step: int, nested: list[Pixels] = nested) -> None:
            if step == 1:
                nested.extend(paint(model, loras=loras) for loras in sets)
            if step == 2:
                with pytest.raises(Stopped):
                    paint(model, loras=sets[1], on_step=stop)

        assert np.array_equal(paint(model, loras=outer, on_step=within), expected)
        assert all(map(np.array_equal, nested, alone))


def refusal(models: Models, name: str = "sd", **entry: Any) -> str:
    with pytest.raises(ModelLoadFailed) as raised:
        load(models, name, **entry)
    return str(raised.value)


def test_a_lora_for_another_model_is_refused(models: Models, files: Files) -> None:
    """Given the LoRA of an SDXL, when it is loaded for a Stable Diffusion, then the error names it and its file."""
    file = files("sdxl")["lora"]

    message = refusal(models, loras={"painter": FileSpec(path=file)})

    assert f"its LoRA 'painter' from {file}" in message


def test_a_file_without_layers_of_the_model_is_refused(models: Models, tmp_path: Path) -> None:
    """Given a LoRA whose keys are of no part of the model, when it is loaded, then it is refused, not left out."""
    save_file(
        {"transformer.x.lora_A.weight": torch.ones(2, 4), "transformer.x.lora_B.weight": torch.ones(4, 2)},
        file := tmp_path / "a.safetensors",
    )

    assert "a.safetensors holds no LoRA for the parts of StableDiffusionImg2ImgPipeline" in refusal(
        models, loras={"a": FileSpec(path=file)}
    )


@pytest.mark.parametrize("kind", ["loras", "embeddings"])
def test_only_safetensors_are_opened(models: Models, tmp_path: Path, kind: str) -> None:
    """Given a pickle, or a file that is not there, when an entry names it, then the model does not load."""
    pickled = tmp_path / "a.bin"
    torch.save({"word": torch.ones(16)}, pickled)
    entries: list[dict[str, Any]] = [
        {kind: {"word": FileSpec(path=pickled)}},
        {kind: {"word": FileSpec(path=tmp_path, file="b.safetensors")}},
    ]

    first, second = (refusal(models, **entry) for entry in entries)

    assert f"{pickled} is no safetensors file; name one, by path and file" in first
    assert f"{tmp_path / 'b.safetensors'} is no safetensors file" in second


def test_the_digest_covers_them(models: Models, files: Files, adapted: Adapted) -> None:
    """Given a model with LoRAs, when it is loaded, then its digest is not the model's, and other LoRAs give another."""
    first, second = files("sd").values()
    one = load(models, "sd", loras={"a": FileSpec(path=first)}).info.digest
    other = load(models, "sd", loras={"a": FileSpec(path=second)}).info.digest

    digests = {models.loaded("sd").info.digest, adapted("sd").info.digest, one, other}
    assert len(digests) == 4
    assert one == load(models, "sd", loras={"a": FileSpec(path=first)}).info.digest


def learnt(file: Path, **vectors: Any) -> FileSpec:
    """A file of textual inversion, of random vectors with the shapes given."""
    rng = torch.Generator().manual_seed(41)
    save_file({name: torch.randn(shape, generator=rng) / 4 for name, shape in vectors.items()}, file)
    return FileSpec(path=file)


def taught(models: Models, name: str, words: Mapping[str, Mapping[str, torch.Tensor]]) -> Direct:
    """diffusers' own pipeline in which words of the tokenizer mean other vectors, by the text encoder's name."""
    opened = Direct(CLASSES[name], models.folder(name))
    for word, vectors in words.items():
        for encoder, vector in vectors.items():
            tokenizer = getattr(opened.pipeline, encoder.replace("text_encoder", "tokenizer"))
            _, number, _ = tokenizer(word)["input_ids"]
            getattr(opened.pipeline, encoder).get_input_embeddings().weight.data[number] = vector
    return opened


def test_a_learnt_word(models: Models, tmp_path: Path) -> None:
    """Given a word of one vector, when a prompt uses it, then it paints as a known word does that means the same."""
    spec = learnt(tmp_path / "toy.safetensors", **{"<other>": (1, 16)})
    (vector,) = load_file(tmp_path / "toy.safetensors")["<other>"]

    model = load(models, "sd", embeddings={"<toy>": spec})

    expected = direct(taught(models, "sd", {"cat": {"text_encoder": vector}}))
    ours = paint(model, prompt="a red <toy>")
    assert np.abs(ours - expected).max() <= TOLERANCE
    assert np.abs(ours - direct(models.direct("sd"))).max() > 1e-3
    assert np.abs(paint(model, prompt="a red cat") - direct(models.direct("sd"))).max() <= TOLERANCE


def test_a_word_of_several_vectors(models: Models, tmp_path: Path) -> None:
    """Given a word of two vectors, when the negative prompt uses it, then it counts as two words."""
    spec = learnt(tmp_path / "mood.safetensors", emb_params=(2, 16))
    first, second = load_file(tmp_path / "mood.safetensors")["emb_params"]

    ours = paint(load(models, "sd", embeddings={"<mood>": spec}), negative_prompt="blue <mood> cat")

    known = taught(models, "sd", {"dog": {"text_encoder": first}, "house": {"text_encoder": second}})
    expected = direct(known, negative_prompt="blue dog house cat")
    assert np.abs(ours - expected).max() <= TOLERANCE


def test_a_word_for_both_text_encoders(models: Models, tmp_path: Path) -> None:
    """Given a word with vectors for both encoders of an SDXL, when a prompt uses it, then both read theirs."""
    spec = learnt(tmp_path / "toy.safetensors", clip_l=(1, 16), clip_g=(1, 16))
    vectors = load_file(tmp_path / "toy.safetensors")

    ours = paint(load(models, "sdxl", embeddings={"<toy>": spec}), prompt="a red <toy>")

    meanings = {"text_encoder": vectors["clip_l"][0], "text_encoder_2": vectors["clip_g"][0]}
    assert np.abs(ours - direct(taught(models, "sdxl", {"cat": meanings}))).max() <= TOLERANCE


def test_words_count_with_all_their_vectors_in_prompts(models: Models, tmp_path: Path) -> None:
    """Given a word of 40 vectors, when a prompt uses it twice, then the note says how many tokens that is."""
    model = load(models, "sd", embeddings={"<mood>": learnt(tmp_path / "mood.safetensors", a=(40, 16))})

    run = partial(model.run, on_step=lambda _: None)
    once, twice = (run(call("m", PICTURE, prompt=f"{p} cat")).warnings for p in ("<mood>", "<mood> <mood>"))

    assert once == ()
    # With the start, the cat and the end.
    (note,) = twice
    assert (note.code, "prompt has 83 tokens, of which the model reads the first 77" in note.message) == (
        "prompt_cut",
        True,
    )


@pytest.mark.parametrize(
    ("name", "word", "vectors", "says"),
    [
        ("sdxl", "<toy>", {"clip_l": (1, 16)}, "toy.safetensors holds clip_l, and no clip_g"),
        ("sd", "<toy>", {"a": (1, 16), "b": (1, 16)}, "toy.safetensors holds a, b, and no clip_l"),
        ("sd", "<toy>", {"a": (1, 12)}, "incorrect shape"),
        ("sd", "cat</w>", {"a": (1, 16)}, "already in tokenizer vocabulary"),
        ("sd3", "<toy>", {"a": (1, 16)}, "StableDiffusion3Img2ImgPipeline takes no textual inversion"),
    ],
    ids=["one of two", "too many", "width", "known word", "other model"],
)
def test_a_word_that_cannot_be_learnt_is_refused(
    models: Models, tmp_path: Path, name: str, word: str, vectors: dict[str, Any], says: str
) -> None:
    """Given vectors that do not fit the model, when it is loaded, then the error names the word and what is wrong."""
    spec = learnt(tmp_path / "toy.safetensors", **vectors)
    # The pattern of the registry lets no such word through; a model's own may still be like one that it does.
    entry = ModelSpec(path=models.folder(name), family=FAMILIES[name]).model_copy(update={"embeddings": {word: spec}})

    with pytest.raises(ModelLoadFailed) as raised:
        PipelineLoader(Registry.model_construct(models={name: entry}), "cpu")(name)

    assert f"its embedding {word!r} from {spec.path}" in str(raised.value)
    assert says in str(raised.value)
