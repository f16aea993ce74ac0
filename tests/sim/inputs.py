"""Captures and block codes that simulations compute."""

from pathlib import Path

import torch

from firmware_model.capture import Capture
from paro.config.formats import CODE_BITS

#: Share of blocks with code 0, 1, 2, 3 for some mean widths.
SHARES = {
    8.0: (0.0, 0.0, 0.0, 1.0),
    4.8: (0.15, 0.15, 0.25, 0.45),
    3.0: (0.35, 0.2, 0.25, 0.2),
    2.0: (0.5, 0.25, 0.125, 0.125),
}


def random_capture(tokens: int, head_dim: int, seed: int, heads: int = 2) -> Capture:
    """Attention that is neither flat nor one-hot; three prefix tokens."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, heads, tokens, head_dim, generator=generator).unbind()
    return Capture(
        path=Path("random"),
        q=2.5 * q,
        k=k + 0.5,
        v=v - 0.25,
        grid=(1, 1, tokens - 3),
        prefix_tokens=3,
        scale=head_dim**-0.5,
        source="random",
        digest="0" * 64,
        model="0" * 64,
    )


def random_codes(blocks: int, mean_bits: float, seed: int) -> torch.Tensor:
    """Codes whose width is about ``mean_bits`` in the mean, with a live block in every row."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.tensor(SHARES[mean_bits])
    assert abs(float(shares @ torch.tensor(CODE_BITS).float()) - mean_bits) < 0.3
    codes = shares.multinomial(blocks * blocks, True, generator=generator).reshape(blocks, blocks)
    dead = (codes == 0).all(dim=1)
    columns = torch.randint(blocks, (blocks,), generator=generator)
    codes[dead, columns[dead]] = 1
    return codes.to(torch.uint8)
