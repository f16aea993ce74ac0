"""Golden reference of PARO in PyTorch: float64 attention, the integer model, calibration.

The integer model (`integer`) is what the RTL must equal bit for bit; `docs/numerics.md` is the
contract between the two. Nothing here knows the RTL.
"""

from pathlib import Path

#: The capture that ships with the project: 16 heads of 512 tokens of a small video transformer.
DEMO_CAPTURE = Path(__file__).parent / "data" / "tiny_video_dit_t03.safetensors"

__all__ = ["DEMO_CAPTURE"]
