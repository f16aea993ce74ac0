"""The trained video transformer as a file."""

from pathlib import Path

from firmware_model.models.names import CHECKPOINT_FORMAT
from firmware_model.models.video.transformer import Shape, VideoTransformer
from firmware_model.tensorfile import parse_integers, read_tensors, write_tensors
from paro.config.config import HEAD_DIMS
from paro.config.errors import ParoError, quoted

#: Most layers, heads and channels of a head.
SHAPE_MAX = (64, 64, HEAD_DIMS[-1])


def save_model(model: VideoTransformer, path: Path) -> None:
    """Write the weights as float16, whole or not at all."""
    shape = model.shape
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    shape_text = f"{shape.layers},{shape.heads},{shape.head_dim}"
    write_tensors(path, tensors, {"format": CHECKPOINT_FORMAT, "shape": shape_text})


def load_model(path: Path) -> tuple[VideoTransformer, str]:
    """Read a trained model.

    Returns
    -------
    model : VideoTransformer
        float32.
    digest : str
        SHA-256 of the file: the model's identity.

    Raises
    ------
    ParoError
        If the file is missing, truncated, of another format or lacks weights.
    """
    path = Path(path)
    metadata = read_tensors(path, "model", ()).metadata
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise ParoError(
            f"model {path} has format {quoted(metadata.get('format'))}; "
            f"legal: {CHECKPOINT_FORMAT!r}"
        )
    numbers = parse_integers(metadata.get("shape", ""))
    if (
        numbers is None
        or len(numbers) != 3
        or not all(0 < number <= most for number, most in zip(numbers, SHAPE_MAX, strict=True))
        or numbers[2] % 8
    ):
        raise ParoError(f"model {path}: shape = {quoted(metadata.get('shape', ''))} is not legal")
    model = VideoTransformer(Shape(layers=numbers[0], heads=numbers[1], head_dim=numbers[2]))
    expected = model.state_dict()
    tensors, _, digest = read_tensors(path, "model", tuple(expected))
    for name, value in expected.items():
        if tensors[name].shape != value.shape:
            raise ParoError(
                f"model {path}: {name} has shape {list(tensors[name].shape)}; "
                f"legal: {list(value.shape)}"
            )
    model.load_state_dict({name: value.float() for name, value in tensors.items()})
    return model.eval(), digest
