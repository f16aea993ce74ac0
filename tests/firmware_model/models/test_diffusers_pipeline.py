"""The adapter to diffusers, on tiny random pipelines of every class that it knows.

Nothing is fetched: each test writes its pipeline with ``save_pretrained`` first.
"""

import functools
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from firmware_model.models.device_program import Item
from firmware_model.models.diffusers_adapter import load_diffusers
from firmware_model.models.diffusers_adapter.families import FAMILIES
from firmware_model.models.diffusers_adapter.replacement import Replacement, StepCounter
from firmware_model.models.diffusers_adapter.weights import weights_identity
from firmware_model.models.models import open_model
from firmware_model.models.network import run_float
from firmware_model.models.pipeline import (
    AttentionCall,
    LinearCall,
    ModelShape,
    float_attention,
    float_linear,
)
from paro.config.errors import ParoError
from tests.firmware_model.models.tiny_pipelines import (
    CASES,
    IMAGE,
    STEPS,
    VIDEO,
    Case,
    cogvideox,
    dit,
    flux,
    hunyuan,
    ltx,
    stable_diffusion_3,
    wan,
    wan_transformer,
    write,
)
from tests.places import ROOT

# What the libraries declare of their arguments is narrower than what they take.
diffusers: Any = importlib.import_module("diffusers")
transformers: Any = importlib.import_module("transformers")

pytestmark = [
    # Schedulers of diffusers hand tensors to numpy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # Mochi asks for more precision than float32 there.
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),
]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def folder(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(case.build, tmp_path_factory.mktemp("pipeline"))


@pytest.fixture
def dit_folder(tmp_path: Path) -> Path:
    return write(dit, tmp_path / "dit")


def test_every_family_is_run_and_documented():
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    classes = {type(case.build()).__name__ for case in CASES.values()}
    assert classes == set(FAMILIES)
    assert [name for name in FAMILIES if f"`{name}`" not in page] == []


def test_shape_fits_the_model(case, folder):
    shape = load_diffusers(folder, steps=STEPS, **case.size).shape
    assert shape == ModelShape(
        layers=case.layers,
        heads=2,
        head_dim=16,
        grid=case.grid,
        prefix_tokens=case.prefix,
        suffix_tokens=case.suffix,
        steps=STEPS,
    )


def test_replaced_attention_is_asked_for_every_layer_and_step(case, folder):
    pipeline = load_diffusers(folder, steps=STEPS, **case.size)
    seen = []
    told = []

    def record(call: AttentionCall) -> torch.Tensor:
        expected = (case.batch, 2, pipeline.shape.tokens, 16)
        assert call.q.shape == call.k.shape == call.v.shape == expected
        assert call.scale == pytest.approx(0.25)
        seen.append((call.step, call.layer, call.last))
        return float_attention(call)

    pipeline.generate(3, record, lambda *progress: told.append(progress))
    lasts = [False] * (case.items - 1) + [True]
    assert seen == [
        (step, layer, last)
        for step, layers in enumerate(case.steps or [range(case.layers)] * STEPS)
        for layer in list(layers) * case.calls
        for last in lasts
    ]
    assert told == [(1, STEPS), (2, STEPS)]


def test_float_attention_reproduces_the_library(case, folder):
    pipeline = load_diffusers(folder, steps=STEPS, **case.size)
    own = pipeline.generate(3)
    height, width = case.size.get("height", 16), case.size.get("width", 16)
    assert own.shape == (case.size.get("frames", 1), height, width, 3)
    assert own.dtype == torch.float32
    assert own.min() >= 0
    assert own.max() <= 1
    assert own.std() > 0.01
    torch.testing.assert_close(pipeline.generate(3, float_attention), own, rtol=0, atol=1e-5)


def test_a_program_takes_the_place_of_the_blocks_in_some_steps(case, folder):
    """In the others the library computes them itself; what has no rules is refused."""
    pipeline = load_diffusers(folder, steps=STEPS, **case.size)
    kind = json.loads((folder / "model_index.json").read_text())["_class_name"]
    refused = r"no rules make a program of the blocks of \w+; legal:"
    if len(case.steps) > 1:
        refused = "this WanPipeline has two transformers, and a program is of the blocks of one"
    if len(case.steps) > 1 or not FAMILIES[kind].has_rules:
        with pytest.raises(ParoError, match=refused):
            pipeline.block_program()
        return
    program = pipeline.block_program()
    runs = []

    def compute(items: Sequence[Item]) -> list[torch.Tensor]:
        runs.append(len(items))
        made = [run_float(program.steps, own.inputs, own.parameters) for own in items]
        return [tensors[program.output] for tensors in made]

    found = pipeline.generate(3, blocks=lambda step: compute if step else None)
    assert runs == [case.batch] * (STEPS - 1) * case.calls
    torch.testing.assert_close(found, pipeline.generate(3), rtol=0, atol=1e-5)


def test_layers_of_the_blocks_are_asked_for(case, folder):
    """Each is one within a block, none is applied to a single vector, and float changes nothing."""
    pipeline = load_diffusers(folder, steps=STEPS, **case.size)
    own = pipeline.generate(3)
    seen: set[str] = set()

    def record(call: LinearCall) -> torch.Tensor:
        assert pipeline.linears[call.name] is call.layer
        assert call.x.shape[-2] > 1
        assert 0 <= call.step < STEPS
        seen.add(call.name)
        return float_linear(call)

    found = pipeline.generate(3, linear=record)
    # The last layers of Flux's single blocks are two each, whose sums are rounded.
    in_parts = any(name.endswith("proj_out.attention") for name in seen)
    assert in_parts == (case.build is flux)
    torch.testing.assert_close(found, own, rtol=0, atol=1e-5 if in_parts else 0)
    # At least Q, K, V and the projection of every layer of attention.
    assert len(seen) >= 4 * case.layers
    assert all(name.startswith("transformer") for name in seen)


def test_other_attention_changes_the_output_and_leaves_nothing_behind(case, folder):
    pipeline = load_diffusers(folder, steps=STEPS, **case.size)
    own = pipeline.generate(3)
    alone = pipeline.generate(3, lambda call: call.v)
    assert (alone - own).abs().max() > 1e-3
    assert torch.equal(pipeline.generate(3), own)
    assert not torch.equal(pipeline.generate(4), own)


def test_attention_that_fails_leaves_nothing_behind(case, folder):
    pipeline = load_diffusers(folder, steps=STEPS, **case.size)
    own = pipeline.generate(3)

    def fail(call: AttentionCall) -> torch.Tensor:
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        pipeline.generate(3, fail)
    assert torch.equal(pipeline.generate(3), own)


WEIGHTS = "diffusion_pytorch_model"


def identity(folder: Path, **options: Any) -> str:
    return load_diffusers(folder, steps=STEPS, **options).identity


def test_identity_tells_weights_apart(dit_folder):
    first = identity(dit_folder)
    path = dit_folder / "transformer" / f"{WEIGHTS}.safetensors"
    tensors = load_file(path)
    assert len(first) == 64
    tensors["proj_out_2.bias"][0] += 1
    save_file(tensors, path, {"format": "pt"})
    second = identity(dit_folder)
    # The same bytes in another shape, and under another name.
    components = {"transformer": ""}
    bias = tensors.pop("proj_out_2.bias")
    found = {first, second}
    for name, tensor in (("proj_out_2.bias", bias[None]), ("proj_out_2.bia", bias)):
        save_file(tensors | {name: tensor}, path, {"format": "pt"})
        found.add(weights_identity(dit_folder, components))
    assert len(found) == 4


def test_identity_does_not_depend_on_the_files(dit_folder):
    whole = identity(dit_folder)
    transformer = dit_folder / "transformer"
    tensors = load_file(transformer / f"{WEIGHTS}.safetensors")
    (transformer / f"{WEIGHTS}.safetensors").unlink()
    names = sorted(tensors, reverse=True)
    for count in (5, 2):
        shards = {
            f"{WEIGHTS}-{index + 1:05}-of-{count:05}.safetensors": names[index::count]
            for index in range(count)
        }
        for shard, held in shards.items():
            save_file({name: tensors[name] for name in held}, transformer / shard, {"format": "pt"})
        index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
        (transformer / f"{WEIGHTS}.safetensors.index.json").write_text(
            json.dumps(index | {"metadata": {}}), encoding="utf-8"
        )
        assert identity(dit_folder) == whole
    save_file(dict(reversed(tensors.items())), transformer / f"{WEIGHTS}.safetensors")
    assert identity(dit_folder) == whole


def test_both_transformers_count(tmp_path):
    folder = write(CASES["Wan 2.2"].build, tmp_path / "wan")
    size = CASES["Wan 2.2"].size
    first = identity(folder, **size)
    files = [folder / name / f"{WEIGHTS}.safetensors" for name in ("transformer", "transformer_2")]
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, reversed(contents), strict=True):
        path.write_bytes(content)
    assert identity(folder, **size) != first


def test_transformers_of_different_heads_are_refused(tmp_path):
    second = {"num_attention_heads": 1, "attention_head_dim": 32}
    folder = write(
        lambda: wan(transformer_2=wan_transformer(**second), boundary_ratio=0.5), tmp_path / "wan"
    )
    with pytest.raises(ParoError, match="differ in their heads; legal: the same heads"):
        load_diffusers(folder, steps=STEPS, **VIDEO)


def test_heads_beyond_the_hardware_are_refused(tmp_path):
    heads = {"num_attention_heads": 1, "attention_head_dim": 264}
    folder = write(lambda: dit(**heads), tmp_path / "dit")
    with pytest.raises(ParoError, match="has heads of 264 channels; legal: 1 to 256"):
        open_model(folder, STEPS)


def rename_to_variant(component: Path, variant: str) -> None:
    """As ``save_pretrained(variant=...)`` names files, in another precision."""
    for path in component.glob("*.safetensors"):
        tensors = {name: tensor.half() for name, tensor in load_file(path).items()}
        save_file(tensors, component / f"{path.stem}.{variant}.safetensors", {"format": "pt"})
        path.unlink()


@pytest.mark.parametrize("shard", [None, "20KB"], ids=["whole", "shards"])
def test_a_variant_is_found(dit_folder, tmp_path, shard):
    plain = identity(dit_folder)
    folder = tmp_path / "variant"
    pipe = diffusers.DiTPipeline.from_pretrained(dit_folder).to(torch.float16)
    pipe.save_pretrained(folder, variant="fp16", **({"max_shard_size": shard} if shard else {}))
    files = list((folder / "transformer").glob("*.fp16*.safetensors"))
    assert len(files) > 1 if shard else len(files) == 1
    half = identity(folder)
    assert half == identity(folder, variant="fp16") != plain
    pipeline = load_diffusers(folder, steps=STEPS)
    own = load_diffusers(dit_folder, steps=STEPS).generate(1)
    torch.testing.assert_close(pipeline.generate(1), own, rtol=0, atol=0.02)
    # Beside plain weights it must be asked for.
    for path in (dit_folder / "transformer").glob("*.safetensors"):
        shutil.copy(path, folder / "transformer")
    assert identity(folder) == plain
    assert identity(folder, variant="fp16") == half


def test_text_encoders_may_be_a_variant(tmp_path):
    folder = write(WITH_TEXT["CogVideoX"][0], tmp_path / "pipeline")
    options = {"prompt": "a cat", "steps": STEPS, **VIDEO}
    own = load_diffusers(folder, **options).generate(1)
    rename_to_variant(folder / "text_encoder", "fp16")
    found = load_diffusers(folder, **options).generate(1)
    torch.testing.assert_close(found, own, rtol=0, atol=0.02)


def test_a_variant_that_is_not_there_is_refused(dit_folder):
    with pytest.raises(ParoError, match=r"'ema' is not legal: .* legal: none, as there are only"):
        load_diffusers(dit_folder, steps=STEPS, variant="ema")
    rename_to_variant(dit_folder / "transformer", "fp16")
    with pytest.raises(ParoError, match=r"variant = 'ema' is not legal: .* legal: 'fp16'"):
        load_diffusers(dit_folder, steps=STEPS, variant="ema")
    transformer = dit_folder / "transformer"
    shutil.copy(
        transformer / f"{WEIGHTS}.fp16.safetensors", transformer / f"{WEIGHTS}.ema.safetensors"
    )
    with pytest.raises(ParoError, match=r"several variants .* legal: --variant, one of ema, fp16"):
        load_diffusers(dit_folder, steps=STEPS)


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_bin_weights_are_refused(dit_folder, part):
    (dit_folder / part / f"{WEIGHTS}.safetensors").rename(dit_folder / part / f"{WEIGHTS}.bin")
    with pytest.raises(ParoError, match=r"legal: .*safetensors files"):
        load_diffusers(dit_folder, steps=STEPS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["CogVideoX", "HunyuanVideo 1.5", "Qwen-Image"])
def test_a_model_computes_in_its_dtype(name, dtype, tmp_path):
    folder = write(CASES[name].build, tmp_path / "pipeline")
    options = {"steps": STEPS, **CASES[name].size}
    pipeline = load_diffusers(folder, dtype=dtype, **options)
    seen = set()

    def record(call: AttentionCall) -> torch.Tensor:
        seen.update({call.q.dtype, call.k.dtype, call.v.dtype})
        return float_attention(call)

    video = pipeline.generate(3, record)
    assert seen == {dtype}
    assert (video - pipeline.generate(3)).abs().mean() < 0.01
    assert pipeline.identity == identity(folder, **CASES[name].size)


def test_global_random_state_is_neither_used_nor_changed(dit_folder):
    pipeline = load_diffusers(dit_folder, steps=STEPS)
    torch.manual_seed(1)
    first = pipeline.generate(3)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(pipeline.generate(3), first)


def tokenizer() -> Any:
    words = ["<unk>", "<pad>", "a", "cat", "<", "|", "user"]
    model = WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    backend = Tokenizer(model)
    backend.pre_tokenizer = Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", model_max_length=77
    )


def t5(width: int = 12) -> Any:
    return transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=16, d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2
        )
    )


def clip(kind: Any = transformers.CLIPTextModel) -> Any:
    return kind(
        transformers.CLIPTextConfig(
            vocab_size=16,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=3,
            projection_dim=8,
        )
    )


def llama() -> Any:
    return transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=16,
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
        )
    )


WITH_TEXT: dict[str, tuple[Callable[[], Any], dict[str, Any], int]] = {
    "CogVideoX": (lambda: cogvideox(text_encoder=t5(), tokenizer=tokenizer()), VIDEO, 6),
    "Flux": (
        lambda: flux(
            text_encoder=clip(),
            tokenizer=tokenizer(),
            text_encoder_2=t5(),
            tokenizer_2=tokenizer(),
        ),
        IMAGE,
        256,
    ),
    "LTX": (lambda: ltx(text_encoder=t5(), tokenizer=tokenizer()), CASES["LTX"].size, 128),
    "Stable Diffusion 3": (
        lambda: stable_diffusion_3(
            text_encoder=clip(transformers.CLIPTextModelWithProjection),
            tokenizer=tokenizer(),
            text_encoder_2=clip(transformers.CLIPTextModelWithProjection),
            tokenizer_2=tokenizer(),
            text_encoder_3=t5(16),
            tokenizer_3=tokenizer(),
        ),
        IMAGE,
        256,
    ),
    "HunyuanVideo": (
        lambda: hunyuan(
            text_encoder=llama(),
            tokenizer=tokenizer(),
            text_encoder_2=clip(),
            tokenizer_2=tokenizer(),
        ),
        VIDEO,
        256,
    ),
}


@pytest.mark.parametrize("name", WITH_TEXT)
def test_prompt_gives_what_the_library_gives(name, tmp_path):
    """The padding that HunyuanVideo's adapter leaves out changes nothing."""
    build, size, text_tokens = WITH_TEXT[name]
    folder = write(build, tmp_path / "pipeline")
    library = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    asked = {"height": size["height"], "width": size["width"]}
    if "frames" in size:
        asked["num_frames"] = size["frames"]
    expected = library(
        prompt="a cat",
        **asked,
        num_inference_steps=STEPS,
        max_sequence_length=text_tokens,
        generator=torch.Generator().manual_seed(3),
        output_type="pt",
        return_dict=False,
    )[0][0]
    expected = (expected if "frames" in size else expected[None]).permute(0, 2, 3, 1)

    pipeline = load_diffusers(folder, prompt="a cat", steps=STEPS, **size)
    if name == "HunyuanVideo":
        assert 0 < pipeline.shape.suffix_tokens < text_tokens
    torch.testing.assert_close(pipeline.generate(3), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(pipeline.generate(3, float_attention), expected, rtol=0, atol=1e-5)
    with pytest.raises(ParoError, match="has a text encoder; legal: a prompt"):
        load_diffusers(folder, steps=STEPS, **size)


def embedded(tokens: int, shown: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A random text, padded to some tokens, and its mask."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, tokens, width, generator=generator), (torch.arange(tokens) < shown)[None]


def encoded(shown: int) -> dict[str, dict[str, torch.Tensor | None]]:
    """What the library makes of a prompt: for each model, with padding, the arguments for it."""
    halves = [embedded(9, shown, 16, 0), embedded(9, 5, 16, 1)]
    texts = [[embedded(9, count, 12, count), embedded(4, 2, 10, 8)] for count in (shown, 5)]
    short = [embedded(count, count, 12, count)[0] for count in (shown, 5)]
    inputs = {
        "Mochi": [tensor for half in halves for tensor in half],
        "HunyuanVideo 1.5": [tensor for half in texts for text in half for tensor in text],
        "CogView 4": short,
        "Qwen-Image": [short[0], None],
        "Flux 2": short[:1],
    }
    return {
        name: dict(zip(FAMILIES[CLASSES[name]].text_inputs, tensors, strict=True))
        for name, tensors in inputs.items()
    }


CLASSES = {
    "Mochi": "MochiPipeline",
    "HunyuanVideo 1.5": "HunyuanVideo15Pipeline",
    "CogView 4": "CogView4Pipeline",
    "Qwen-Image": "QwenImagePipeline",
    "Flux 2": "Flux2Pipeline",
}


@pytest.fixture(params=CLASSES)
def guided(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a pipeline with text encoders in name only, whose prompts encode as told."""
    case = CASES[request.param]
    kind = getattr(diffusers, CLASSES[request.param])
    encoders = {"text_encoder": t5(), "tokenizer": tokenizer()}
    if request.param == "HunyuanVideo 1.5":
        encoders |= {"text_encoder_2": t5(), "tokenizer_2": tokenizer()}
    folder = write(lambda: case.build(**encoders), tmp_path / "pipeline")

    def load(shown: int) -> tuple[Any, Any]:
        text = encoded(shown)[request.param]
        original = kind.encode_prompt

        @functools.wraps(original)
        def encode(pipe: Any, prompt: Any = None, *rest: Any, **options: Any) -> Any:
            if options.get("prompt_embeds") is not None:
                return original(pipe, prompt, *rest, **options)
            one = [value for name, value in text.items() if not name.startswith("negative_")]
            if request.param != "HunyuanVideo 1.5":
                return tuple(text.values())
            return tuple(one if prompt else list(text.values())[len(one) :])

        with monkeypatch.context() as patch:
            patch.setattr(kind, "encode_prompt", encode)
            pipeline = load_diffusers(folder, prompt="a cat", steps=STEPS, **case.size)
        library = kind.from_pretrained(
            folder, text_encoder=None, tokenizer=None, local_files_only=True
        )
        asked = {"height": case.size["height"], "width": case.size["width"]}
        if "frames" in case.size:
            asked["num_frames"] = case.size["frames"]
        generator = torch.Generator().manual_seed(3)
        result = library(
            **text,
            **asked,
            num_inference_steps=STEPS,
            generator=generator,
            output_type="pt",
            return_dict=False,
        )[0][0]
        result = (result if "frames" in case.size else result[None]).permute(0, 2, 3, 1)
        return pipeline, result

    return load


def test_guided_text_gives_what_the_library_gives(guided):
    """Padding, and the image tokens that HunyuanVideo 1.5 hides, take no part."""
    pipeline, expected = guided(5)
    shape = pipeline.shape
    assert shape.prefix_tokens + shape.suffix_tokens in (5, 7)
    torch.testing.assert_close(pipeline.generate(3), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(pipeline.generate(3, float_attention), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("guided", ["Mochi", "HunyuanVideo 1.5", "CogView 4"], indirect=True)
def test_guidance_by_a_text_of_another_length_is_refused(guided):
    with pytest.raises(ParoError, match="which one plan cannot cover; legal: a prompt of as many"):
        guided(4)


class Layer(torch.nn.Module):
    """An attention layer that asks for whatever a test wants."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, **options: Any) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, k, **options)


def run_layer(q: torch.Tensor, k: torch.Tensor, **options: Any) -> torch.Tensor:
    layer = Layer()
    shape = ModelShape(layers=1, heads=2, head_dim=8, grid=(1, 1, 5), steps=1)
    replacement = Replacement(shape, lambda call: call.q, StepCounter(1, "DDIM", None))
    with ExitStack() as stack:
        replacement.watch([layer], stack)
        stack.enter_context(replacement)
        return layer(q, k, **options)


def test_mask_that_hides_nothing_is_accepted():
    q = torch.randn(1, 2, 5, 8)
    for mask in (torch.ones(1, 1, 1, 5, dtype=torch.bool), torch.zeros(1, 1, 5, 5)):
        assert torch.equal(run_layer(q, q, attn_mask=mask), q)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attn_mask": torch.tensor([True, True, True, True, False])}, "hides tokens by a mask"),
        ({"is_causal": True}, "legal: plain softmax attention"),
        ({"dropout_p": 0.5}, "legal: plain softmax attention"),
    ],
)
def test_other_than_plain_attention_is_refused(options, message):
    q = torch.randn(1, 2, 5, 8)
    with pytest.raises(ParoError, match=message):
        run_layer(q, q, **options)


def test_shared_keys_are_refused():
    with pytest.raises(ParoError, match="shares keys between heads"):
        run_layer(torch.randn(1, 2, 5, 8), torch.randn(1, 1, 5, 8), enable_gqa=True)


def test_layer_over_other_tokens_is_refused():
    for tokens in (4, 6):
        q = torch.randn(1, 2, tokens, 8)
        with pytest.raises(ParoError, match="layer 0 computes 0 products over 5 tokens; legal: 1"):
            run_layer(q, q)


def test_tokens_that_are_hidden_from_all_others_take_no_part():
    q = torch.randn(1, 2, 7, 8)
    shown = torch.arange(7) < 5
    output = run_layer(q, q, attn_mask=shown[:, None] & shown)
    assert torch.equal(output[:, :, :5], q[:, :, :5])
    assert output.shape == q.shape
    for mask in (shown[:, None].expand(7, 7), torch.arange(7) > 1):
        with pytest.raises(ParoError, match=r"hides tokens by a mask; legal: .* first 5 tokens"):
            run_layer(q, q, attn_mask=mask)


@pytest.mark.parametrize("attention", [None, float_attention])
def test_scheduler_of_second_order_is_refused(attention, tmp_path):
    folder = write(lambda: dit(scheduler=diffusers.HeunDiscreteScheduler()), tmp_path / "dit")
    pipeline = load_diffusers(folder, steps=STEPS)
    with pytest.raises(ParoError, match=r"HeunDiscreteScheduler does not run .* exactly 2 steps"):
        pipeline.generate(3, attention)


def test_missing_library_is_told_with_the_way_to_install_it(dit_folder, monkeypatch):
    for name in ("diffusers", "transformers"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ParoError, match=r"pip install 'paro-accelerator\[diffusers\]'"):
                load_diffusers(dit_folder, steps=STEPS)


def test_folder_that_is_no_pipeline_is_refused(tmp_path):
    with pytest.raises(ParoError, match="nowhere is not a folder; legal: a folder written by"):
        load_diffusers(tmp_path / "nowhere", steps=STEPS)
    with pytest.raises(ParoError, match=r"has no model_index\.json; legal: a folder written by"):
        load_diffusers(tmp_path, steps=STEPS)
    (tmp_path / "model_index.json").write_text("{", encoding="utf-8")
    with pytest.raises(ParoError, match=r"cannot read .*; legal: a folder written by"):
        load_diffusers(tmp_path, steps=STEPS)


def edit_index(folder: Path, **entries: Any) -> None:
    path = folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(index | entries), encoding="utf-8")


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", ["custom", "DiTPipeline"], None])
def test_unsupported_class_is_refused(dit_folder, name):
    edit_index(dit_folder, _class_name=name)
    with pytest.raises(ParoError, match="is not supported; legal: CogVideoXPipeline, WanPipeline"):
        load_diffusers(dit_folder, steps=STEPS)


def test_second_transformer_is_refused(dit_folder):
    edit_index(dit_folder, transformer_2=["diffusers", "DiTTransformer2DModel"])
    with pytest.raises(ParoError, match=r"has a transformer_2; legal: .* of one transformer"):
        load_diffusers(dit_folder, steps=STEPS)


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_broken_weights_are_refused(dit_folder, part):
    path = dit_folder / part / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    key = next(iter(tensors))
    del tensors[key]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ParoError, match=f"the weights in .*{part} lack '{key}'; legal: "):
        load_diffusers(dit_folder, steps=STEPS)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ParoError, match=r"cannot load the pipeline in .*; legal: a folder"):
        load_diffusers(dit_folder, steps=STEPS)
    path.unlink()
    with pytest.raises(ParoError, match=r"legal: .*safetensors files"):
        load_diffusers(dit_folder, steps=STEPS)


def test_component_of_unknown_class_is_refused(dit_folder):
    edit_index(dit_folder, vae=["diffusers", "NoSuchAutoencoder"])
    with pytest.raises(ParoError, match=r"NoSuchAutoencoder.*; legal: a folder written by"):
        load_diffusers(dit_folder, steps=STEPS)
    shutil.rmtree(dit_folder / "transformer")
    with pytest.raises(ParoError, match="has no weights; legal: one or more safetensors files"):
        load_diffusers(dit_folder, steps=STEPS)


def test_prompt_needs_a_text_encoder(dit_folder, tmp_path):
    with pytest.raises(ParoError, match="draws classes; legal: no prompt"):
        load_diffusers(dit_folder, prompt="a cat", steps=STEPS)
    with pytest.raises(ParoError, match="has no text_encoder for a prompt; legal: no prompt"):
        load_diffusers(write(wan, tmp_path / "wan"), prompt="a cat", steps=STEPS, **VIDEO)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps = 0 is not legal .*; legal: 1 to 1000"),
        ({"steps": 1001}, "steps = 1001 is not legal .*; legal: 1 to 1000"),
        ({"steps": 2, "height": 32}, "height = 32 is not legal .*; legal: 16"),
        ({"steps": 2, "frames": 5}, "frames = 5 is not legal .*; legal: 1"),
    ],
)
def test_illegal_numbers_of_an_image_are_refused(dit_folder, options, message):
    with pytest.raises(ParoError, match=message):
        load_diffusers(dit_folder, **options)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("CogVideoX", {"frames": 5}, r"frames = 5 is not legal .*; legal: 1 \+ 8 \* n"),
        ("Wan", {"frames": 0}, r"frames = 0 is not legal .*; legal: 1 \+ 4 \* n"),
        ("Wan", {"width": 40}, "width = 40 is not legal .*; legal: multiples of 16"),
        ("HunyuanVideo", {"height": -16}, "height = -16 is not legal .*; legal: multiples of 16"),
        ("PixArt alpha", {"height": 20}, "height = 20 is not legal .*; legal: multiples of 8"),
    ],
)
def test_illegal_sizes_are_refused(name, change, message, tmp_path):
    folder = write(CASES[name].build, tmp_path / "pipeline")
    with pytest.raises(ParoError, match=message):
        load_diffusers(folder, steps=STEPS, **CASES[name].size | change)
