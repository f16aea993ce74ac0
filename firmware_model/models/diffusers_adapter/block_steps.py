"""Steps of a transformer's block, as blocks of diffusers have them in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from firmware_model.arrays import Tokens
from firmware_model.program import (
    Activate,
    Add,
    Attend,
    CrossAttend,
    Join,
    Linear,
    Normalize,
    QuantizeChannels,
    QuantizeTokens,
    Rotate,
    Rows,
    Scale,
    Step,
)

__all__ = ["ROTATION", "BlockSteps"]

#: Name of the rotation by positions, the same in all blocks.
ROTATION = "positions"


@dataclass(eq=False)
class BlockSteps:
    """Steps of a block in their order; each method adds some and returns the tensor they make.

    Tensors, constants and layers have names below that of the block.

    Parameters
    ----------
    name : str
        Of the block in the model.
    width, head_dim : int
        Channels of a token, and of a head.
    tokens : Tokens
        What the tokens are, text before the grid.
    rotated : bool
        Whether Q and K are turned by positions.
    text : str
        Tensor of a text that stands apart, in INT8 by token.
    """

    name: str
    width: int
    head_dim: int
    tokens: Tokens
    rotated: bool
    text: str = ""
    steps: list[Step] = field(default_factory=list)

    def split(self, source: str, result: str) -> tuple[str, str]:
        """Text, and the tokens of the grid."""
        text, name = self.tokens.prefix, self._of(result)
        grid = self.tokens.count - text
        return (
            self._add(Rows(result=f"{name}.text", source=source, first=0, tokens=text)),
            self._add(Rows(result=f"{name}.grid", source=source, first=text, tokens=grid)),
        )

    def join(self, parts: Sequence[str], result: str) -> str:
        """Text, and the tokens of the grid, as one tensor."""
        first, *rest = parts
        return self._add(Join(result=self._of(result), source=first, rest=tuple(rest)))

    def moved(self, source: str, result: str) -> str:
        """Another format alone."""
        return self._add(Scale(result=self._of(result), source=source))

    def modulated(self, source: str, part: str, epsilon: float) -> str:
        """LayerNorm of whole tokens, and the constants ``part``."""
        return self._normed(source, part, self.width, True, epsilon)

    def balanced(self, source: str, part: str, epsilon: float) -> str:
        """RMSNorm of whole tokens, and the constants ``part``."""
        return self._normed(source, part, self.width, False, epsilon)

    def headed(self, source: str, part: str, centred: bool, epsilon: float) -> str:
        """LayerNorm or RMSNorm of heads, and the constants ``part``."""
        return self._normed(source, part, self.head_dim, centred, epsilon)

    def quantized(self, source: str) -> str:
        """INT8 by token, as linear layers and the operands Q and K take it."""
        return self._add(QuantizeTokens(result=f"{source}.int8", source=source))

    def linear(self, source: str, layer: str) -> str:
        """A linear layer of INT8."""
        name = self._of(layer)
        return self._add(Linear(result=name, source=source, layer=name))

    def gated(self, source: str, base: str, part: str, result: str) -> str:
        """``base`` plus the source times the constants ``part``."""
        return self._add(
            Add(result=self._of(result), source=source, base=base, constants=self._of(part))
        )

    def added(self, source: str, base: str, result: str) -> str:
        """``base`` plus the source."""
        return self._add(Add(result=self._of(result), source=source, base=base))

    def values(self, source: str, result: str) -> str:
        """V of all heads, in INT8."""
        return self._add(QuantizeChannels(result=self._of(result), source=source))

    def attend(self, q: str, k: str, v: str, layer: int) -> str:
        """Attention of words of Q and K, and of V in INT8, which it returns in words."""
        if self.rotated:
            q, k = (
                self._add(
                    Rotate(
                        result=f"{own}.rotated",
                        source=own,
                        rotation=ROTATION,
                        head_dim=self.head_dim,
                        pairing="neighbours",
                    )
                )
                for own in (q, k)
            )
        return self._add(
            Attend(
                result=self._of("heads"),
                source=self.quantized(q),
                k=self.quantized(k),
                v=v,
                layer=layer,
                head_dim=self.head_dim,
            )
        )

    def cross_attend(self, q: str, k: str, v: str, result: str) -> str:
        """Attention to other tokens, of words of Q and K and V in INT8; it returns words."""
        return self._add(
            CrossAttend(
                result=self._of(result),
                source=self.quantized(q),
                k=self.quantized(k),
                v=v,
                head_dim=self.head_dim,
            )
        )

    def activated(self, source: str, result: str) -> str:
        """GELU."""
        words = self.moved(source, f"{result}.hidden")
        return self._add(Activate(result=self._of(result), source=words, kind="gelu"))

    def network(self, source: str, layers: str) -> str:
        """Feed-forward network ``layers`` of a block, of INT8: two layers, GELU between them."""
        active = self.activated(self.linear(source, f"{layers}.net.0.proj"), f"{layers}.active")
        return self.linear(self.quantized(active), f"{layers}.net.2")

    def _normed(self, source: str, part: str, group: int, centred: bool, epsilon: float) -> str:
        name = self._of(part)
        norm = self._add(
            Normalize(
                result=f"{name}.norm", source=source, group=group, centred=centred, epsilon=epsilon
            )
        )
        return self._add(Scale(result=f"{name}.scaled", source=norm, constants=name))

    def _of(self, name: str) -> str:
        return f"{self.name}.{name}"

    def _add(self, step: Step) -> str:
        self.steps.append(step)
        return step.result
