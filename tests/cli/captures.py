"""Captures for commands."""

from dataclasses import replace

from firmware_model import DEMO_CAPTURE
from firmware_model.capture import load_capture, save_capture


def some_heads(name, folder, heads, **fields):
    """A capture with some heads of the shipped one."""
    whole = load_capture(DEMO_CAPTURE)
    tensors = {key: getattr(whole, key)[heads].clone() for key in "qkv"}
    path = folder / f"{name}.safetensors"
    save_capture(replace(whole, path=path, model=name, **tensors, **fields))
    return path
