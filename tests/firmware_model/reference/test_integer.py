"""The integer model against a scalar transcription of docs/numerics.md."""

import pytest
import torch

from firmware_model.capture import load_capture
from firmware_model.quality.metrics import snr_db
from firmware_model.reference import integer
from firmware_model.reference.integer import integer_attention
from firmware_model.reference.number_formats import FORMATS, FormatHead
from firmware_model.reference.quantize import QuantizedHead, dequantize, quantize_head
from paro.config import Config, ParoError
from paro.config.formats import exp2_table


def near(value):
    return (
        min(
            ((1 << e) * (1 if value > 0 else -1) for e in range(11)),
            key=lambda power: (abs(power - value), -abs(power)),
        )
        if value
        else 0
    )


def naf_positions(value):
    bits, position = [], 0
    while value:
        if value & 1:
            digit = 1 if value & 3 == 1 else -1
            bits.append((position, digit))
            value -= digit
        value >>= 1
        position += 1
    return bits


def digits(value, width, probability):
    if width == 2:
        if probability and value < 6:
            return 0 if value < 2 else 4
        return near(value)
    if width == 4:
        return near(value) + near(value - near(value))
    if probability:
        bits = naf_positions(value)
        if len({position // 2 for position, _ in bits}) == 5:
            return value - sum(sign << position for position, sign in bits if position < 2)
    return value


def rshift(x, s):
    return (x + 2 ** (s - 1)) >> s if s else x


def scalar_row(head, codes, config, i):
    """Output words of query i."""
    size, d = config.block, config.head_dim
    q, k, v = head.q8.tolist(), head.k8.tolist(), head.v8.tolist()
    table = exp2_table(config.exp_segments)
    rest_bits = 8 - (config.exp_segments.bit_length() - 1)
    state = None
    for j, code in enumerate(codes[i // size].tolist()):
        if not code:
            continue
        width = (0, 2, 4, 8)[code]
        x = []
        keys = range(j * size, min((j + 1) * size, len(k)))
        for key in keys:
            score = sum(q[i][c] * digits(k[key][c], width, False) for c in range(d))
            y = rshift(score * int(head.mk[key]), config.key_scale_shift)
            logit = rshift(y * int(head.mq[i]), 15)
            x.append(max(-2047 * 256, min(2047 * 256, logit)))
        m = (max(x) + 255) >> 8
        weights = []
        for logit in x:
            t = 256 * m - logit
            whole, fraction = t >> 8, t & 255
            base, slope = table[fraction >> rest_bits]
            e = base - ((slope * (fraction % 2**rest_bits) + 2) >> 2)
            p = (e + 2 ** (6 + whole)) >> (7 + whole) if whole <= 10 else 0
            weights.append(digits(p, width, True))
        denominator = 128 * sum(weights)
        numerator = [
            sum(w * v[key][c] for w, key in zip(weights, keys, strict=True)) for c in range(d)
        ]
        if state is None:
            state = m, denominator, numerator
        else:
            top, old_denominator, old_numerator = state
            new = max(top, m)
            a, c = min(new - top, 63), min(new - m, 63)
            state = (
                new,
                rshift(old_denominator, a) + rshift(denominator, c),
                [
                    rshift(old, a) + rshift(here, c)
                    for old, here in zip(old_numerator, numerator, strict=True)
                ],
            )
    assert state is not None
    _, denominator, numerator = state
    e = denominator.bit_length() - 1
    r = min(2 ** (e + 17) // denominator, 2**17 - 1)
    return [min((((2 * o) >> (e - 15)) * r + 2**17) >> 18, 32767) for o in numerator]


def random_head(tokens, d, seed, logits=20.0):
    """A head with rows of very different scale, so that maxima rise and fall."""
    g = torch.Generator().manual_seed(seed)

    def operand():
        return torch.randint(-127, 128, (tokens, d), generator=g, dtype=torch.int8)

    mq = torch.randint(1, int(logits * 300), (tokens,), generator=g, dtype=torch.int32)
    mk = torch.randint(1, 256, (tokens,), generator=g, dtype=torch.int32)
    return QuantizedHead(
        operand(), operand(), operand(), mq, mk,
        torch.ones(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64),
        torch.arange(tokens), 0,
    )  # fmt: skip


def random_codes(blocks, seed):
    g = torch.Generator().manual_seed(seed)
    codes = torch.randint(4, (blocks, blocks), generator=g, dtype=torch.uint8)
    codes[torch.arange(blocks), torch.arange(blocks).flip(0)] = 2
    return codes


@pytest.mark.parametrize(
    ("tokens", "d", "block", "segments", "logits"),
    [
        (77, 32, 16, 8, 20),
        (80, 32, 16, 4, 200),
        (70, 64, 32, 16, 3),
        (65, 128, 64, 8, 300),
        (33, 256, 16, 8, 20),
        (5, 32, 16, 8, 20),
    ],
)
def test_equals_scalar_transcription(tokens, d, block, segments, logits):
    config = Config(rows=4, cols=4, block=block, head_dim=d, exp_segments=segments)
    head = random_head(tokens, d, tokens, logits)
    codes = random_codes(-(-tokens // block), tokens)
    result = integer_attention(head, codes, config)
    assert result.dtype == torch.int16
    assert result.shape == (tokens, d)
    for i in range(0, tokens, 1 + d // 8):
        assert result[i].tolist() == scalar_row(head, codes, config, i)


@pytest.mark.parametrize("code", [1, 2, 3])
def test_one_width_and_extreme_operands(code):
    config = Config(rows=4, cols=4, block=16, head_dim=32)
    head = random_head(33, 32, 5)
    head.q8[:] = torch.where(head.q8 < 0, -127, 127)
    head.k8[:] = torch.where(head.k8 < 0, -127, 127)
    head.k8[:4] = head.q8[:4]
    head.v8[:] = 127
    head.mq[:] = 2**17 - 1
    codes = torch.full((3, 3), code, dtype=torch.uint8)
    result = integer_attention(head, codes, config)
    for i in range(33):
        assert result[i].tolist() == scalar_row(head, codes, config, i)


def test_part_of_the_rows_and_small_chunks(monkeypatch):
    config = Config(rows=4, cols=4, block=16, head_dim=32)
    head, codes = random_head(77, 32, 2), random_codes(5, 3)
    whole = integer_attention(head, codes, config)
    calls = []
    part = integer_attention(
        head, codes, config, range(2, 5), lambda done, total: calls.append((done, total))
    )
    assert torch.equal(part, whole[32:])
    assert calls == [(1, 3), (2, 3), (3, 3)]
    monkeypatch.setattr(integer, "BLOCKS_AT_ONCE", 1)
    assert torch.equal(integer_attention(head, codes, config), whole)


def test_skipped_blocks_leave_no_trace():
    config = Config(rows=4, cols=4, block=16, head_dim=32)
    head, codes = random_head(64, 32, 2), random_codes(4, 3)
    codes[:, 1] = 0
    codes[:, 0] = 3
    before = integer_attention(head, codes, config)
    head.k8[16:32] = 127
    head.v8[16:32] = -127
    assert torch.equal(integer_attention(head, codes, config), before)


def test_refusals():
    config = Config(rows=4, cols=4, block=16, head_dim=32)
    head, codes = random_head(64, 32, 2), random_codes(4, 3)
    dead = codes.clone()
    dead[2] = 0
    with pytest.raises(ParoError, match="block row 2 has no live block"):
        integer_attention(head, dead, config)
    with pytest.raises(ParoError, match=r"legal: uint8 \[4, 4\], 0 to 3"):
        integer_attention(head, codes[:3], config)
    with pytest.raises(ParoError, match="0 to 3"):
        integer_attention(head, codes + 4, config)
    for rows in (range(0), range(3, 5), range(-1, 2), range(3, 1, -1)):
        with pytest.raises(ParoError, match="legal: a non-empty range within 0:4"):
            integer_attention(head, codes, config, rows)


def test_head_sizes_tokens_and_logits_are_checked(make_capture):
    capture = load_capture(make_capture(grid=(5, 6, 7)))
    with pytest.raises(ParoError, match=r"head_dim = 64 does not fit .* 20 channels; legal: 32"):
        quantize_head(capture, 0, 0, Config())
    with pytest.raises(ParoError, match=r"max_tokens = 64 is too small for .*; legal: 213 or more"):
        quantize_head(capture, 0, 0, Config(head_dim=32, max_tokens=64))
    for scale in ("1e4", "1e300", "1.7e308"):
        capture = load_capture(make_capture(metadata={"scale": scale}))
        with pytest.raises(ParoError, match="head 1: logits beyond the format"):
            quantize_head(capture, 1, 0, Config(head_dim=32))


@pytest.mark.parametrize("scale", ["1e-3", "1e-30", "1e-320"])
def test_tiny_scales_average_the_values(make_capture, scale):
    capture = load_capture(make_capture(grid=(5, 6, 7), metadata={"scale": scale}))
    config = Config(head_dim=32)
    head = quantize_head(capture, 0, 3, config)
    codes = torch.full((4, 4), 3, dtype=torch.uint8)
    output = dequantize(integer_attention(head, codes, config), head)
    assert output.shape == (213, 20)
    expected = capture.v[0].float().mean(dim=0).expand(213, 20)
    assert snr_db(output, expected) > (10 if scale == "1e-3" else 20)


def test_constant_operands(make_capture):
    tensors = {name: torch.ones(1, 33, 20).half() for name in "qkv"}
    capture = load_capture(make_capture(tensors=tensors))
    config = Config(head_dim=32)
    head = quantize_head(capture, 0, 0, config)
    assert head.k8.abs().max() == 0
    words = integer_attention(head, torch.full((1, 1), 3, dtype=torch.uint8), config)
    assert torch.equal(dequantize(words, head), torch.ones(33, 20))


def test_padded_channels_do_not_matter(make_capture):
    capture = load_capture(make_capture())
    config = Config(head_dim=32)
    words = integer_attention(
        quantize_head(capture, 0, 1, config), torch.full((1, 1), 3, dtype=torch.uint8), config
    )
    assert words[:, 20:].abs().max() == 0


def test_digit_format_in_floating_point_tells_the_same(demo):
    config = Config(head_dim=32)
    head = quantize_head(demo, 5, 2, config)
    codes = random_codes(8, 1)
    words = integer_attention(head, codes, config)
    floating = FormatHead.from_quantized(head, config, FORMATS["digit"]).attend(codes)
    assert snr_db(dequantize(words, head), floating) > 40


def test_a_sink_does_not_swallow_the_denominator_of_a_diffuse_tail():
    """Far blocks, each below one unit of P, together weigh as much in L as in O."""
    g = torch.Generator().manual_seed(3)
    tokens, d, config = 4096, 32, Config(rows=4, cols=4, head_dim=32)
    q8 = torch.full((tokens, d), 127, dtype=torch.int8)
    k8 = torch.zeros((tokens, d), dtype=torch.int8)
    k8[0] = 127
    head = QuantizedHead(
        q8, k8, torch.randint(-127, 128, (tokens, d), generator=g, dtype=torch.int8),
        torch.full((tokens,), 11_600, dtype=torch.int32),
        torch.full((tokens,), 24, dtype=torch.int32),
        torch.ones(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64),
        torch.arange(tokens), 0,
    )  # fmt: skip
    codes = torch.full((64, 64), 3, dtype=torch.uint8)
    words = dequantize(integer_attention(head, codes, config, range(1)), head).double()
    exact = FormatHead.from_quantized(head, config, FORMATS["digit"]).attend(codes, range(1))
    score = 127 * 127 * d
    logit = score * 24 * 11_600 / 2 ** (config.key_scale_shift + 15 + 8)
    tail_share = (tokens - 1) / (tokens - 1 + 2**logit)
    assert 2 ** (9 + 6 - logit) < 0.5, "a block of the tail must be below half a unit of P"
    assert tail_share > 0.01
    assert snr_db(words, exact) > 40
