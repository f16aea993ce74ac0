"""The integer model of linear layers, against arithmetic that is written out."""

import pytest
import torch

from firmware_model.quality.metrics import snr_db
from firmware_model.reference.digits import key_value
from firmware_model.reference.linear import (
    OutputFormat,
    QuantizedInputs,
    QuantizedWeights,
    dequantize_outputs,
    fit_outputs,
    integer_linear,
    quantize_inputs,
    quantize_weights,
    tile_values,
)
from paro.config import Config, ParoError
from paro.config.formats import CODE_BITS, INPUTS_MAX, SUM_BITS, SUM_SHIFT_MAX

CONFIG = Config(rows=4, cols=4, block=16, head_dim=32)
#: Tokens, inputs and outputs: no multiples of a tile, one of each, many inputs.
SIZES = [(5, 70, 37), (1, 1, 1), (3, 32, 16), (2, 4096, 5)]


def uniform_codes(outputs: int, inputs: int, code: int) -> torch.Tensor:
    shape = (CONFIG.blocks_of(outputs), -(-inputs // CONFIG.head_dim))
    return torch.full(shape, code, dtype=torch.uint8)


def random_codes(outputs: int, inputs: int) -> torch.Tensor:
    return torch.randint(0, 4, uniform_codes(outputs, inputs, 0).shape, dtype=torch.uint8)


def rshift(value: int, places: int) -> int:
    return (value + (1 << (places - 1)) if places else value) >> places


def written_out(inputs, weights, output):
    """Section 7 of docs/numerics.md, word by word, in Python's integers."""
    words = []
    for token, row in enumerate(inputs.x8.tolist()):
        for channel, operands in enumerate(weights.w8.tolist()):
            total = 0
            for i, (x, w) in enumerate(zip(row, operands, strict=True)):
                bits = CODE_BITS[int(weights.codes[channel // 16, i // 32])]
                total += x * key_value(w, bits) if bits else 0
            a = total >> output.sum_shift
            m = int(inputs.mx[token]) * int(weights.mw[channel]) >> 8
            z = rshift(a * m, output.out_shift) + int(output.bias[channel])
            words.append(max(-(2**15 - 1), min(z, 2**15 - 1)))
    return words


@pytest.mark.parametrize(("tokens", "inputs", "outputs"), SIZES)
@pytest.mark.parametrize("biased", [False, True])
def test_word_for_word(tokens, inputs, outputs, biased, seed):
    torch.manual_seed(seed)
    x = torch.randn(tokens, inputs) * torch.exp(2 * torch.randn(tokens, 1))
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs) * 50 if biased else None
    quantized = quantize_inputs(x)
    weights = quantize_weights(weight, random_codes(outputs, inputs))
    output = fit_outputs(quantized, weights, bias, CONFIG)
    words = integer_linear(quantized, weights, output, CONFIG)
    assert words.dtype == torch.int16
    assert words.shape == (tokens, outputs)
    assert words.flatten().tolist() == written_out(quantized, weights, output)


def test_everything_saturates_where_the_page_says_so(seed):
    torch.manual_seed(seed)
    quantized = quantize_inputs(torch.randn(4, 64))
    weights = quantize_weights(torch.randn(16, 64), uniform_codes(16, 64, 3))
    for bias in (2**15 - 1, 1 - 2**15):
        output = OutputFormat(3, 12, bias=torch.full((16,), bias).int(), unit=1.0)
        words = integer_linear(quantized, weights, output, CONFIG)
        assert words.flatten().tolist() == written_out(quantized, weights, output)
        assert words.abs().max() == 2**15 - 1


def test_eight_bits_lose_as_much_as_int8_operands(seed):
    """And the format of the outputs adds nothing to speak of."""
    torch.manual_seed(seed)
    x, weight, bias = torch.randn(64, 256), torch.randn(48, 256), torch.randn(48)
    quantized = quantize_inputs(x)
    weights = quantize_weights(weight, uniform_codes(48, 256, 3))
    output = fit_outputs(quantized, weights, bias, CONFIG)
    got = dequantize_outputs(integer_linear(quantized, weights, output, CONFIG), output)
    exact = x.double() @ weight.double().T + bias.double()
    operands = quantized.x8.double() * quantized.mx.double().unsqueeze(1) * quantized.unit
    values = weights.w8.double() * weights.mw.double().unsqueeze(1) * weights.unit
    rounded = operands @ values.T + bias.double()
    assert snr_db(rounded, exact) > 38
    assert snr_db(got, rounded) > 60


def test_a_zero_layer(seed):
    quantized = quantize_inputs(torch.zeros(2, 40))
    weights = quantize_weights(torch.zeros(3, 40), uniform_codes(3, 40, 1))
    output = fit_outputs(quantized, weights, None, CONFIG)
    assert not integer_linear(quantized, weights, output, CONFIG).any()


def test_the_bound_of_the_sums_is_reached_and_held():
    """The most inputs, all of them as large as they can be, at the width that makes 128 of 127."""
    quantized = QuantizedInputs(
        torch.full((1, INPUTS_MAX), -127, dtype=torch.int8), torch.full((1,), 2**16).int(), 1.0
    )
    weights = QuantizedWeights(
        torch.full((1, INPUTS_MAX), 127, dtype=torch.int8),
        torch.full((1,), 64).int(),
        1.0,
        uniform_codes(1, INPUTS_MAX, 1),
    )
    assert (tile_values(weights, CONFIG) == 128).all()
    output = fit_outputs(quantized, weights, None, CONFIG)
    assert output.sum_shift == SUM_SHIFT_MAX
    words = integer_linear(quantized, weights, output, CONFIG)
    assert words.tolist() == [[-(127 * 128 * INPUTS_MAX >> 12 << 14 >> output.out_shift)]]
    assert 2 ** (SUM_BITS - 2) < 127 * 128 * INPUTS_MAX < 2 ** (SUM_BITS - 1)


@pytest.mark.parametrize(
    ("inputs", "codes", "sentence"),
    [
        (INPUTS_MAX + 1, None, "a layer of 32769 inputs is not legal; legal: 1 to 32,768"),
        (
            40,
            torch.zeros(1, 1, dtype=torch.uint8),
            r"\[1, 1\]; legal: torch.uint8 \[2, 2\], 0 to 3",
        ),
        (40, torch.full((2, 2), 4, dtype=torch.uint8), "legal: torch.uint8"),
        (40, torch.zeros(2, 2, dtype=torch.int32), "codes of a layer are torch.int32"),
    ],
)
def test_what_does_not_fit_is_refused(inputs, codes, sentence):
    codes = uniform_codes(20, inputs, 3) if codes is None else codes
    weights = quantize_weights(torch.ones(20, inputs), codes)
    with pytest.raises(ParoError, match=sentence):
        tile_values(weights, CONFIG)
