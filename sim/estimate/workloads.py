"""Shapes of whole models, and the work of a denoising step."""

import json
from math import prod
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from paro.config.config import HEAD_DIMS, TOKENS_MAX, Config, blocks_of, padded_head_dim
from paro.config.errors import ParoError, first_line, quoted
from paro.config.files import read_toml

__all__ = ["WORKLOADS", "Workload", "check_fits", "load_workload"]

_FOLDER = Path(__file__).parent / "data" / "workloads"
#: Names of the models that come with the project.
WORKLOADS = tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


class Workload(BaseModel):
    """One model at one resolution. All layers are alike: attention, then a feed-forward network.

    Between them may be a cross attention to text of its own, with layers for its queries and its
    outputs. Those for its keys and values are left out: they have the text's few rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, max_length=80, description="what tables call it")
    layers: int = Field(ge=1, le=1000, description="transformer layers")
    heads: int = Field(ge=1, le=1024, description="attention heads of a layer")
    head_dim: int = Field(ge=1, le=HEAD_DIMS[-1], description="channels of a head")
    ffn: int = Field(ge=0, le=2**20, description="hidden channels of the feed-forward network")
    prefix_tokens: int = Field(default=0, ge=0, description="text tokens before the grid")
    suffix_tokens: int = Field(default=0, ge=0, description="text tokens after the grid")
    cross_tokens: int = Field(
        default=0,
        ge=0,
        le=TOKENS_MAX,
        description="text tokens that a cross attention reads; 0: there is none",
    )
    grid: tuple[int, int, int] = Field(description="frames, height, width of the token grid")
    steps: int = Field(ge=1, le=100_000, description="denoising steps of a sample")
    guidance_passes: int = Field(ge=1, le=8, description="passes of a step; 2 with guidance")

    fp16_attention_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of attention in the FP16 time on an A100, if known",
    )

    @model_validator(mode="after")
    def _check_tokens(self) -> "Workload":
        if min(self.grid) < 1:
            raise ValueError(f"grid = {list(self.grid)} is not legal; legal: each 1 or more")
        if self.tokens > TOKENS_MAX:
            raise ValueError(f"{self.tokens} tokens are not legal; legal: up to {TOKENS_MAX}")
        return self

    @property
    def text_tokens(self) -> int:
        """Tokens outside the grid; they come first in every order."""
        return self.prefix_tokens + self.suffix_tokens

    @property
    def tokens(self) -> int:
        """All tokens of a sequence."""
        return self.text_tokens + prod(self.grid)

    def blocks(self, block: int) -> int:
        """Blocks of ``block`` tokens on a side of the attention map."""
        return blocks_of(self.tokens, block)

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.heads * self.head_dim

    @property
    def widest(self) -> int:
        """Channels of the longest row between layers."""
        return max(self.width, self.ffn)

    @property
    def passes(self) -> int:
        """Passes through the model for a sample."""
        return self.steps * self.guidance_passes

    @property
    def self_macs(self) -> int:
        """Multiply-accumulates of QK and PV of a dense self-attention."""
        return 2 * self.tokens**2 * self.width

    @property
    def cross_macs(self) -> int:
        """The same of a cross attention."""
        return 2 * self.tokens * self.cross_tokens * self.width

    @property
    def attention_macs(self) -> int:
        """The same of all attention of a dense layer."""
        return self.self_macs + self.cross_macs

    @property
    def linear_layers(self) -> tuple[tuple[int, int], ...]:
        """Channels in and out: QKV and output, cross attention's two, feed-forward network."""
        width, ffn = self.width, self.ffn
        crossed = ((width, width), (width, width)) if self.cross_tokens else ()
        network = ((width, ffn), (ffn, width)) if ffn else ()
        return ((width, 3 * width), (width, width), *crossed, *network)

    @property
    def weights(self) -> int:
        """Weights of a layer's linear layers."""
        return sum(inputs * outputs for inputs, outputs in self.linear_layers)

    @property
    def linear_macs(self) -> int:
        """Multiply-accumulates of a layer's linear parts."""
        return self.tokens * self.weights

    @property
    def map_bytes(self) -> int:
        """Maps of a layer's self-attention in FP16, all guidance passes together."""
        return 2 * self.guidance_passes * self.heads * self.tokens**2

    @property
    def attention_share(self) -> float:
        """Share of attention in all multiply-accumulates."""
        return self.attention_macs / (self.attention_macs + self.linear_macs)


def load_workload(name: str) -> Workload:
    """Read a model that comes with the project, or any other from a TOML file.

    Parameters
    ----------
    name : str
        Name in `WORKLOADS`, or a path that ends with ``.toml``.

    Raises
    ------
    ParoError
        If there is none of that name, the file cannot be read or a value is not legal.
    """
    path = Path(name) if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    if not name.endswith(".toml") and name not in WORKLOADS:
        raise ParoError(
            f"there is no model {name!r}; legal: {', '.join(WORKLOADS)}, or a file NAME.toml"
        )
    values = read_toml(path, "model")
    try:
        # As JSON, so that no value is turned into another type; TOML's dates are none of its types.
        content = json.dumps(values, default=lambda date: [str(date)])
        return Workload.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise ParoError(f"model {path}: {_sentence(error)}") from None
    except ValueError as error:
        raise ParoError(f"model {path}: {first_line(error)}") from None


def check_fits(workload: Workload, config: Config) -> None:
    """Raise ParoError unless a core of ``config`` takes the heads of a model."""
    needed = padded_head_dim(workload.head_dim)
    if config.head_dim != needed:
        raise ParoError(
            f"head_dim = {config.head_dim} does not fit {workload.title}; legal: {needed}"
        )
    if workload.tokens > config.max_tokens:
        raise ParoError(
            f"max_tokens = {config.max_tokens} does not fit the {workload.tokens} tokens of "
            f"{workload.title}; legal: as many or more"
        )
    if 0 < config.vector_channels < workload.widest:
        raise ParoError(
            f"vector_channels = {config.vector_channels} does not fit rows of {workload.widest} "
            f"channels ({workload.title}); legal: as many or more, or 0"
        )


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ")
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"no field {quoted(field)}; legal fields: {', '.join(Workload.model_fields)}"
    if first["type"] == "missing":
        return f"{field} is missing: {Workload.model_fields[str(first['loc'][0])].description}"
    legal = first["msg"].removeprefix("Input should be ")
    if first["type"] == "too_long":
        legal = f"{first.get('ctx', {}).get('max_length')} values"
    return f"{field} = {quoted(first['input'])} is not legal; legal: {legal}"
