"""Golden reference of PARO in PyTorch: float64 attention, the integer model, calibration.

The integer model (`integer`) is what the RTL must equal bit for bit; `docs/numerics.md` is the
contract between the two. Nothing here knows the RTL.
"""

from pathlib import Path

#: What ships with the project.
DATA = Path(__file__).parent / "data"
#: 16 heads of 512 tokens of a small video transformer.
DEMO_CAPTURE = DATA / "tiny_video_dit_t03.safetensors"

__all__ = ["DATA", "DEMO_CAPTURE"]
