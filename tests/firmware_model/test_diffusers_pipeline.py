"""The adapter to diffusers, on tiny random pipelines of every class that it knows.

Nothing is fetched: each test writes its pipeline with ``save_pretrained`` first.
"""

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from firmware_model.diffusers_adapter import load_diffusers
from firmware_model.diffusers_adapter.replacement import Clock, Replacement
from firmware_model.pipeline import AttentionCall, ModelShape, float_attention
from paro_config.errors import ParoError
from tests.firmware_model.tiny_pipelines import (
    CASES,
    IMAGE,
    STEPS,
    VIDEO,
    Case,
    cogvideox,
    dit,
    flux,
    hunyuan,
    wan,
    write,
)

# What the libraries declare of their arguments is narrower than what they take.
diffusers: Any = importlib.import_module("diffusers")
transformers: Any = importlib.import_module("transformers")

# Schedulers of diffusers hand tensors to numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def folder(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(case.build, tmp_path_factory.mktemp("pipeline"))


@pytest.fixture
def dit_folder(tmp_path: Path) -> Path:
    return write(dit, tmp_path / "dit")


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
        seen.append((call.step, call.layer))
        return float_attention(call)

    pipeline.generate(3, record, lambda *progress: told.append(progress))
    step = list(range(case.layers)) * case.calls
    assert seen == [(index, layer) for index in range(STEPS) for layer in step]
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


def test_other_attention_changes_the_output_and_leaves_nothing_behind(case, folder):
    pipeline = load_diffusers(folder, steps=STEPS, **case.size)
    own = pipeline.generate(3)
    zeros = pipeline.generate(3, lambda call: torch.zeros_like(call.q))
    assert (zeros - own).abs().max() > 1e-3
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


def test_identity_tells_weights_apart(dit_folder):
    first = load_diffusers(dit_folder, steps=STEPS).identity
    path = dit_folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["proj_out_2.bias"][0] += 1
    save_file(tensors, path, {"format": "pt"})
    assert len(first) == 64
    assert load_diffusers(dit_folder, steps=STEPS).identity != first


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


def t5() -> Any:
    return transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=16, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    )


def clip() -> Any:
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=16,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=3,
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


class Layer(torch.nn.Module):
    """An attention layer that asks for whatever a test wants."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, **options: Any) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, k, **options)


def run_layer(q: torch.Tensor, k: torch.Tensor, **options: Any) -> torch.Tensor:
    layer = Layer()
    shape = ModelShape(layers=1, heads=2, head_dim=8, grid=(1, 1, 5), steps=1)
    replacement = Replacement(shape, lambda call: call.q, Clock(1, "DDIM", None))
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
    q = torch.randn(1, 2, 4, 8)
    with pytest.raises(ParoError, match="layer 0 computes 0 products over 5 tokens; legal: 1"):
        run_layer(q, q)


@pytest.mark.parametrize("attention", [None, float_attention])
def test_scheduler_of_second_order_is_refused(attention, tmp_path):
    folder = write(lambda: dit(diffusers.HeunDiscreteScheduler()), tmp_path / "dit")
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
