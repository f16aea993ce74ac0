"""Load a diffusers pipeline from a folder, with one sentence for every failure."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import torch

from firmware_model.models.diffusers_adapter.families import (
    FAMILIES,
    Family,
    attention_layers,
    check_size,
    transformers,
)
from firmware_model.models.diffusers_adapter.pipeline import DiffusersPipeline
from firmware_model.models.diffusers_adapter.weights import choose_variants, weights_identity
from firmware_model.models.pipeline import ModelShape
from paro.config.errors import ParoError, first_line, quoted
from paro.config.files import read_json

INSTALL = "pip install 'paro-accelerator[diffusers]'"


def load_diffusers(
    folder: Path,
    *,
    prompt: str | None = None,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    steps: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
) -> DiffusersPipeline:
    """Load a pipeline from a folder; nothing is fetched from anywhere.

    Parameters
    ----------
    folder : Path
        Written by ``save_pretrained`` of a pipeline in `families.FAMILIES`.
    prompt : str, optional
        Text of the prompt, if the folder has tokenizers and text encoders. Where it has none,
        ``None``, and the embedded text is random numbers: enough to measure, not to look at.
        Padding that the model hides by a mask does not count as text.
    height, width, frames : int, optional
        Size of a video in pixels and frames, by default the model's own; images have one frame.
    steps : int
        Denoising steps. Guidance is the pipeline's default.
    device : str
        Where torch computes.
    dtype : torch.dtype
        Type of all weights.
    variant : str, optional
        Which weights, as `choose_variants` takes it.

    Raises
    ------
    ParoError
        If diffusers is not installed, the folder cannot be loaded or a parameter is not legal.
    """
    folder = Path(folder)
    diffusers = _import_diffusers()
    index = read_index(folder)
    name = index["_class_name"]
    family = FAMILIES[name]
    first, *others = family.transformers
    main = [first, *(part for part in others if _is_present(index, part))]
    variants = choose_variants(folder, main, variant)
    pipe = _load(diffusers, folder, index, [*main, "vae"], variants, device, dtype)
    identity = weights_identity(folder, {part: variants[part] for part in main})
    config = pipe.transformer.config
    heads = {(c.num_attention_heads, c.attention_head_dim) for c in _configs(pipe, family)}
    if len(heads) > 1:
        raise ParoError(
            f"the transformers in {folder} differ in their heads; legal: the same heads"
        )
    most = pipe.scheduler.config.num_train_timesteps
    if not 1 <= steps <= most:
        raise ParoError(f"steps = {steps} is not legal for {folder}; legal: 1 to {most}")
    size, grid = check_size(pipe, name, family, (frames, height, width))
    text = _text(folder, pipe, family, prompt)
    tokens = family.text_tokens(config) if text is None else _text_tokens(text)
    shape = ModelShape(
        layers=len(attention_layers(pipe, family)),
        heads=config.num_attention_heads,
        head_dim=config.attention_head_dim,
        grid=grid,
        prefix_tokens=tokens if family.text_place == "prefix" else 0,
        suffix_tokens=tokens if family.text_place == "suffix" else 0,
        steps=steps,
    )
    return DiffusersPipeline(pipe, family, identity=identity, shape=shape, size=size, text=text)


def _configs(pipe: Any, family: Family) -> list[Any]:
    return [transformer.config for transformer in transformers(pipe, family)]


def _import_diffusers() -> Any:
    try:
        # The pipelines' text encoders come from transformers.
        importlib.import_module("transformers")
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise ParoError(
            f"the diffusers library is not installed or incomplete ({first_line(error)}); "
            f"install it with: {INSTALL}"
        ) from error


def read_index(folder: Path) -> dict[str, Any]:
    """Read what a pipeline's folder says that it holds.

    Raises
    ------
    ParoError
        If it is no folder of a pipeline in `families.FAMILIES`.
    """
    legal = "legal: a folder written by save_pretrained of a diffusers pipeline"
    path = folder / "model_index.json"
    if not path.is_file():
        problem = "has no model_index.json" if folder.is_dir() else "is not a folder"
        raise ParoError(f"{folder} {problem}; {legal}")
    try:
        index = read_json(path, "the index of a pipeline")
    except ParoError as error:
        raise ParoError(f"{error}; {legal}") from None
    name = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(name, str) or name not in FAMILIES:
        raise ParoError(
            f"{path}: pipeline class {quoted(name)} is not supported; legal: {', '.join(FAMILIES)}"
        )
    if _is_present(index, "transformer_2") and "transformer_2" not in FAMILIES[name].transformers:
        raise ParoError(f"{folder} has a transformer_2; legal: {name} of one transformer")
    return index


def _is_present(index: dict[str, Any], component: str) -> bool:
    return component in index and index[component] != [None, None]


def _load(
    diffusers: Any,
    folder: Path,
    index: dict[str, Any],
    own: list[str],
    variants: dict[str, str],
    device: str,
    dtype: torch.dtype,
) -> Any:
    options = {"local_files_only": True, "use_safetensors": True, "dtype": dtype}
    # Components that the folder lacks must be named, or the library loads none.
    parts = {name: None for name in index if index[name] == [None, None]}
    try:
        for name in own:
            model = getattr(diffusers, index[name][1])
            parts[name], loading = model.from_pretrained(
                folder / name,
                output_loading_info=True,
                variant=variants.get(name) or None,
                **options,
            )
            # The library only warns of them, and computes with random numbers.
            if loading["missing_keys"]:
                raise ParoError(
                    f"the weights in {folder / name} lack {loading['missing_keys'][0]!r}; "
                    "legal: a folder written by save_pretrained"
                )
        # The components left are text encoders; each has this variant or plain weights.
        options["variant"] = (
            max((variants[n] for n in variants if n not in own), default="") or None
        )
        pipe = getattr(diffusers, index["_class_name"]).from_pretrained(folder, **options, **parts)
        pipe.to(device)
    except ParoError:
        raise
    # Files that are not as they should be make the libraries raise errors of any class.
    except Exception as error:
        raise ParoError(
            f"cannot load the pipeline in {folder} ({first_line(error)}); "
            "legal: a folder written by save_pretrained, weights in safetensors files"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _text(
    folder: Path, pipe: Any, family: Family, prompt: str | None
) -> dict[str, torch.Tensor] | None:
    """Arguments of the pipeline that hold the prompt; ``None`` where the folder cannot encode."""
    if not family.text_inputs:
        if prompt is not None:
            raise ParoError(f"the model in {folder} draws classes; legal: no prompt")
        return None
    parts = sorted(pipe.components)
    encoders = [name for name in parts if name.startswith(("tokenizer", "text_encoder"))]
    absent = [name for name in encoders if getattr(pipe, name) is None]
    if absent:
        if prompt is not None:
            raise ParoError(f"{folder} has no {absent[0]} for a prompt; legal: no prompt")
        return None
    if prompt is None:
        raise ParoError(f"{folder} has a text encoder; legal: a prompt")
    text = _encode(pipe, family, prompt)
    _check_halves(text, family, prompt)
    # Often larger than the transformer, and no longer needed.
    for name in encoders:
        setattr(pipe, name, None)
    return text


def _encode(pipe: Any, family: Family, prompt: str) -> dict[str, torch.Tensor]:
    accepted = inspect.signature(pipe.encode_prompt).parameters
    options: dict[str, Any] = {
        name: None
        for name, parameter in accepted.items()
        if parameter.default is parameter.empty and name != "prompt"
    }
    if "max_sequence_length" in accepted:
        options["max_sequence_length"] = (
            family.text_tokens(pipe.transformer.config) - family.clip_tokens
        )
    with torch.no_grad():
        encoded = list(pipe.encode_prompt(prompt=prompt, **options))
        # HunyuanVideo 1.5 encodes the halves of guidance one by one.
        if len(encoded) < len(family.text_inputs):
            encoded += pipe.encode_prompt(prompt="", **options)
    # Flux returns a third value, which its pipeline does not take.
    text = dict(zip(family.text_inputs, encoded, strict=False))
    # Its guidance is a component, and may be off.
    guider = getattr(pipe, "guider", None)
    if guider is not None and guider.num_conditions < 2:
        text = {name: value for name, value in text.items() if not name.startswith("negative_")}
    return text


def _text_tokens(text: dict[str, torch.Tensor], half: str = "") -> int:
    """Tokens of the text that no mask hides, in one half of guidance; the other is "negative_"."""
    count = 0
    for name in (f"{half}prompt_embeds", f"{half}prompt_embeds_2"):
        if name in text:
            masks = (name.replace("embeds", other) for other in ("attention_mask", "embeds_mask"))
            mask = next((text[other] for other in masks if text.get(other) is not None), None)
            count += text[name].shape[1] if mask is None else int(mask.sum())
    return count


def _check_halves(text: dict[str, torch.Tensor], family: Family, prompt: str) -> None:
    """Raise ParoError where guidance would attend over two numbers of tokens."""
    tokens, empty = _text_tokens(text), _text_tokens(text, "negative_")
    if family.text_place and "negative_prompt_embeds" in text and tokens != empty:
        raise ParoError(
            f"prompt = {prompt!r} has {tokens} tokens and the empty one of guidance {empty}, which "
            "one plan cannot cover; legal: a prompt of as many tokens, or a folder without text "
            "encoders, whose text is random numbers"
        )
