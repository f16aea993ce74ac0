"""Beats of the streams, against Amaranth's own packing."""

import numpy as np
import pytest
import torch

from firmware_model.reference.jobs import head_job
from firmware_model.reference.quantize import quantize_head
from paro.config import PRESETS
from rtl import interfaces
from sim.cosim.core_stimulus import make_stimulus, pack_beats, unpack_words
from sim.verify.heads import random_capture

ULX3S = PRESETS["ulx3s"]
WIDE = PRESETS["wide"]


def layout(signature):
    return signature.members["payload"].shape


@pytest.mark.parametrize("config", [ULX3S, WIDE], ids=["ulx3s", "wide"])
def test_beats_are_those_of_the_layout(config):
    generator = np.random.default_rng(1)
    tokens = config.load_tokens
    values = {
        "data": generator.integers(-128, 128, (5, tokens, 4)),
        "scale": generator.integers(0, 2**17, (5, tokens)),
    }
    shape = layout(interfaces.q_signature(config))
    for index, row in enumerate(pack_beats(shape, values)):
        beat = {name: part[index].tolist() for name, part in values.items()}
        assert int.from_bytes(row.tobytes(), "little") == shape.const(beat).as_bits()


def test_values_out_of_range_are_refused():
    codes = np.zeros((1, 16), int)
    codes[0, 3] = 4
    with pytest.raises(ValueError, match=r"4 \.\. 4 does not fit unsigned\(2\)"):
        pack_beats(layout(interfaces.codes_signature(ULX3S)), codes)


def test_blocks_of_a_command():
    config = WIDE
    capture = random_capture(150, config.head_dim, 1)
    head = quantize_head(capture, 0, 0, config)
    codes = torch.ones(3, 3, dtype=torch.uint8)
    job = head_job(capture, head, codes, range(1, 3))
    stimulus = make_stimulus(config, [job] * 2)
    # 64 tokens, four side by side, 16 beats of four channels each; 150 = 64 + 64 + 22. A value has
    # 64 channels, 16 a beat.
    first, second = (command.fetch for command in stimulus.commands)
    assert config.load_tokens == 4
    assert first["Q"] == [(0, 256), (256, 6 * 16)]
    assert first["K"] == [(0, 256), (256, 256), (512, 6 * 16)]
    assert first["V"] == [(0, 256), (256, 256), (512, 88)]
    assert second["Q"][0] == (256 + 6 * 16, 256)
    assert second["V"][2] == (1112, 88)
    assert [command.codes for command in stimulus.commands] == [(0, 2), (2, 2)]
    beats = 86 * 64 // config.output_words
    assert [command.output_beats for command in stimulus.commands] == [beats] * 2
    beat = int.from_bytes(stimulus.beats["k"][256].tobytes(), "little")
    view = layout(interfaces.k_signature(config)).from_bits(beat)
    assert [view.data[1][channel] for channel in range(4)] == head.k8[65, :4].tolist()
    assert view.scale[0] & 255 == head.mk[64]


def test_output_words():
    assert unpack_words(["0001ffff", "80007fff"]).tolist() == [-1, 1, 32767, -32768]
    assert unpack_words(["00xx"]).tolist() == [0]
    assert len(unpack_words([])) == 0
