import math

import pytest
import torch

from firmware_model.calibration.allocation import text_floor
from firmware_model.calibration.calibrate import calibrate
from firmware_model.calibration.goal import Goal
from firmware_model.calibration.sensitivity import model_config
from firmware_model.choices import FORMAT_NAMES
from firmware_model.quality.metrics import snr_db
from firmware_model.reference.attention import reference_attention
from firmware_model.reference.methods import Method
from firmware_model.reference.number_formats import (
    FORMATS,
    FormatHead,
    Groups,
    NumberFormat,
    linear_key_table,
    number_format,
    truncated_key_table,
)
from paro.config import Config, ParoError

WIDTHS = {1: 2, 2: 4, 3: 8}


def uniform(groups: Groups = "block", bits=None):
    return NumberFormat(
        summary="", qk="float", weights="uniform", v="float", bits=bits, groups=groups
    )


def plain_head(q, k, v, block, rounding, mean=0.0):
    """A head of one channel whose logits are q k to base 2."""
    q, k, v = (torch.tensor(values, dtype=torch.float64).unsqueeze(1) for values in (q, k, v))
    return FormatHead(q, k.unsqueeze(0), v, torch.tensor([mean]).double(), 1.0, block, rounding)


def random_codes(blocks, seed, least=0):
    g = torch.Generator().manual_seed(seed)
    codes = torch.randint(least, 4, (blocks, blocks), generator=g, dtype=torch.uint8)
    codes[torch.arange(blocks), torch.arange(blocks).flip(0)] = 2
    return codes


def snr(capture, head, codes, method, order=0):
    exact = reference_attention(capture.q[head], capture.k[head], capture.v[head], capture.scale)
    config = model_config(capture, 64)
    index, output = method.attend(capture, head, order, codes, config)
    assert torch.equal(index, torch.arange(capture.tokens))
    return snr_db(output, exact)


@pytest.fixture
def capture(random_capture):
    """Text on both sides and a partial block."""
    return random_capture((3, 4, 5), prefix=2, suffix=5)


@pytest.mark.parametrize("order", [0, 3, 5])
@pytest.mark.parametrize("code", [1, 3])
def test_float_is_float64_attention(capture, order, code):
    config = Config(block=16, head_dim=32)
    head = FormatHead.from_capture(capture, 1, order, config, FORMATS["float"])
    output = head.attend(torch.full((5, 5), code).byte())
    rows = capture.permutation(order)
    expected = reference_attention(capture.q[1], capture.k[1], capture.v[1], capture.scale, rows)
    assert output.dtype == torch.float64
    assert (output - expected).abs().max() < 1e-12


def test_float_with_a_mask_is_masked_softmax(capture):
    config, codes, order = Config(block=16, head_dim=32), random_codes(5, 0), 4
    permutation = capture.permutation(order)
    q, k, v = (t[0].double()[permutation] for t in (capture.q, capture.k, capture.v))
    live = (codes != 0).repeat_interleave(16, 0).repeat_interleave(16, 1)[:67, :67]
    logits = torch.where(live, q @ k.T * capture.scale, -math.inf)
    expected = torch.softmax(logits, dim=1) @ v
    head = FormatHead.from_capture(capture, 0, order, config, FORMATS["float"])
    assert (head.attend(codes) - expected).abs().max() < 1e-12
    assert torch.equal(head.attend(codes, range(2, 5)), head.attend(codes)[32:])
    index, output = Method("float").attend(capture, 0, order, codes, config)
    assert torch.equal(index, torch.arange(67))
    assert torch.allclose(output[permutation].double(), expected, atol=1e-6)


def test_uniform_weights_by_hand():
    # Two blocks of one token, weights 1/5 and 4/5: alone in their blocks they are exact.
    pair = [1.0, 1.0], [0.0, 2.0], [0.0, 1.0], 1
    codes = torch.ones(2, 2).byte()
    block, row = (plain_head(*pair, uniform(groups), 10.0) for groups in ("block", "row"))
    assert block.attend(codes).flatten().tolist() == pytest.approx([10.8, 10.8])
    # Units of the row are 4/15 at 2 bits and 4/75 at 4: 0.75 rounds to 1, 3.75 to 4.
    assert row.attend(codes).flatten().tolist() == pytest.approx([10.75, 10.75])
    assert row.attend(codes * 2).flatten().tolist() == pytest.approx([10 + 15 / 19] * 2)
    mixed = torch.tensor([[1, 2], [2, 1]]).byte()
    # 1 x 4/15 and 15 x 4/75; 4 x 4/75 and 3 x 4/15.
    expected = [10 + 0.8 / (0.8 + 4 / 15), 10 + 0.8 / (0.8 + 16 / 75)]
    assert row.attend(mixed).flatten().tolist() == pytest.approx(expected)
    # One block of two: the queries have 1 : 5.5 and 1 : 30.25. The block's unit is 0.323, the
    # first query's small weight 0.154; by rows its unit is 0.282.
    block, row = (
        plain_head([1.0, 2.0], [0.0, math.log2(5.5)], [0.0, 1.0], 2, uniform(groups))
        for groups in ("block", "row")
    )
    code = torch.ones(1, 1).byte()
    assert block.attend(code).flatten().tolist() == pytest.approx([1.0, 1.0])
    assert row.attend(code).flatten().tolist() == pytest.approx([0.75, 1.0])


def scalar_uniform(q, k, v, block, codes, groups, bits):
    """Attention with uniform weights, one number at a time."""
    tokens, outputs = len(q), []
    live = [[codes[i // block][j // block] for j in range(tokens)] for i in range(tokens)]
    exact = []
    for i in range(tokens):
        weights = [2 ** (q[i] * k[j]) if live[i][j] else 0.0 for j in range(tokens)]
        exact.append([weight / sum(weights) for weight in weights])
    for i in range(tokens):
        rounded = []
        for j in range(tokens):
            near = range(i // block * block, min(i // block * block + block, tokens))
            keys = range(j // block * block, min(j // block * block + block, tokens))
            if groups == "row":
                near, keys = [i], range(tokens)
            largest = max(exact[a][b] for a in near for b in keys)
            unit = largest / (2 ** (bits or WIDTHS.get(live[i][j], 1)) - 1)
            rounded.append(round(exact[i][j] / unit) * unit if live[i][j] else 0.0)
        total = sum(rounded)
        outputs.append(sum(p * x for p, x in zip(rounded, v, strict=True)) / total if total else 0)
    return outputs


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("groups", ["block", "row"])
@pytest.mark.parametrize("tokens", [12, 10, 9])
def test_uniform_weights_are_as_one_by_one(tokens, groups, bits):
    """Also in a partial block, whose empty places have no part in any scale."""
    g = torch.Generator().manual_seed(tokens)
    q, k, v = (4 * torch.randn(3, tokens, generator=g, dtype=torch.float64)).tolist()
    codes = random_codes(3, tokens)
    found = plain_head(q, k, v, 4, uniform(groups, bits)).attend(codes)
    expected = scalar_uniform(q, k, v, 4, codes.tolist(), groups, bits)
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-9)


def test_weights_that_all_round_to_zero_leave_the_mean():
    """Query 0 sets the scale of the block; the eight alike weights of the others are below half."""
    q, k = [100.0] + [0.0] * 7, [1.0] + [0.0] * 7
    v = [float(value) for value in range(8)]
    head = plain_head(q, k, v, 8, uniform(), mean=5.0)
    output = head.attend(torch.ones(1, 1).byte()).flatten()
    assert output.tolist() == pytest.approx([5.0] * 8)
    assert torch.isfinite(output).all()
    enough = head.attend(torch.full((1, 1), 2).byte()).flatten()
    assert enough[1:].tolist() == pytest.approx([5.0 + 3.5] * 7)


def test_more_bits_are_closer(demo):
    codes = torch.full((8, 8), 3).byte()
    for head in (0, 5, 10):
        found = {name: snr(demo, head, codes, Method(name)) for name in FORMATS}
        assert found["float"] > 120
        assert found["int8"] > 30
        assert found["int8"] > found["int4"] + 10
        assert found["pv-int8"] >= found["int8"] - 0.5
        assert found["pv-int8"] > found["pv-int4"] + 10
        assert found["pv-int4"] > found["int4"]
        assert snr(demo, head, codes, Method("int8", "row")) > 30


def test_codes_are_a_mask_to_formats_of_one_width(demo):
    codes, config = random_codes(8, 3), Config(head_dim=32)
    mask = (codes != 0).byte() * 3
    for name, rounding in FORMATS.items():
        same = torch.equal(
            *(Method(name).attend(demo, 2, 1, chosen, config)[1] for chosen in (codes, mask))
        )
        assert same == (rounding.bits is not None or rounding.weights == "float"), name


@pytest.mark.parametrize("avg_bits", [4.8, 3.0])
def test_the_papers_format_errs_more_at_the_same_codes(demo, avg_bits):
    heads = (0, 4, 7, 12, 15)
    plan = calibrate([demo], Goal(avg_bits=avg_bits), heads)[0].for_capture(demo)
    for head in heads:
        codes, order = plan.head_codes(head), plan.head_order(head)
        digit, paper = (snr(demo, head, codes, Method(n), order) for n in ("digit", "paper"))
        assert digit > paper + 2
    for head in range(demo.heads):
        narrow = torch.full((8, 8), 2).byte()
        assert snr(demo, head, narrow, Method("digit")) > snr(demo, head, narrow, Method("paper"))


def test_digit_is_the_integer_model_without_its_roundings(demo):
    config, codes = Config(head_dim=32), random_codes(8, 4)
    for head in (1, 14):
        words, floating = (
            Method(name).attend(demo, head, 3, codes, config)[1] for name in ("integer", "digit")
        )
        assert snr_db(words, floating) > 35


def test_every_query_sees_all_text(random_capture):
    """With all but blocks of text skipped, each query still sees all text."""
    capture = random_capture((4, 4, 4), suffix=16)
    config = Config(block=16, head_dim=32)
    codes = text_floor(80, 16, 16, 3)
    index, output = Method("float").attend(capture, 0, 2, codes, config)
    text = torch.arange(64, 80)
    expected = (
        torch.softmax(capture.q[0].double() @ capture.k[0, text].double().T * capture.scale, dim=1)
        @ capture.v[0, text].double()
    )
    assert torch.equal(index, torch.arange(80))
    assert torch.allclose(output[:64].double(), expected[:64], atol=1e-6)


def test_constant_operands_and_channels(random_capture):
    capture = random_capture((2, 4, 8))
    capture.k[0], capture.v[0, :, 3] = 1.0, -2.0
    config = Config(block=16, head_dim=32)
    for name in FORMATS:
        _, output = Method(name).attend(capture, 0, 0, torch.full((4, 4), 3).byte(), config)
        assert torch.isfinite(output).all()
        assert torch.allclose(output[:, 3], torch.tensor(-2.0), atol=1e-5)
        assert torch.allclose(output, capture.v[0].mean(dim=0).expand(64, 20), atol=0.3)


def test_truncated_keys():
    assert truncated_key_table(2)[128:].tolist()[:8] == [0, 1, 2, 2, 4, 4, 4, 4]
    assert truncated_key_table(4)[128 + 0b1011011] == 0b1010000
    assert truncated_key_table(4)[128 - 0b1011011] == -0b1010000
    assert truncated_key_table(8).tolist() == list(range(-128, 128))


def test_linear_keys():
    assert (linear_key_table(2) / 127).unique().tolist() == [-1, 0, 1]
    assert (linear_key_table(4) / 127 * 7).round(decimals=9).unique().tolist() == [*range(-7, 8)]
    assert linear_key_table(8).tolist() == list(range(-128, 128))
    steps = {2: 127, 4: 127 / 7}
    for bits, step in steps.items():
        errors = linear_key_table(bits)[1:] - torch.arange(-127, 128)
        assert errors.abs().max() <= step / 2


def test_four_positions_of_p_are_not_as_good_as_five(demo):
    for head in (0, 5, 10):
        for code, least in ((2, 0.0), (3, 0.5)):
            codes = torch.full((8, 8), code).byte()
            five, four = (snr(demo, head, codes, Method(name)) for name in ("digit", "digit-4"))
            assert five > four + least


def test_illegal_codes_and_rows(capture):
    head = FormatHead.from_capture(capture, 0, 0, Config(block=16, head_dim=32), FORMATS["float"])
    codes = random_codes(5, 0)
    dead = codes.clone()
    dead[2] = 0
    with pytest.raises(ParoError, match="block row 2 has no live block"):
        head.attend(dead)
    with pytest.raises(ParoError, match=r"legal: uint8 \[5, 5\], 0 to 3"):
        head.attend(codes[:4])
    with pytest.raises(ParoError, match="legal: a non-empty range within 0:5"):
        head.attend(codes, range(3, 6))


def test_illegal_formats():
    with pytest.raises(
        ParoError, match="format = 'fp8' is not legal; legal: float, digit, digit-4"
    ):
        number_format("fp8")
    with pytest.raises(ParoError, match="groups = 'column' is not legal; legal: block, row"):
        number_format("int8", "column")  # type: ignore[arg-type]
    for name in ("float", "digit"):
        with pytest.raises(
            ParoError,
            match=f"groups = 'row' is not legal with format '{name}', which has no scale .* paper",
        ):
            number_format(name, "row")
    assert number_format("paper", "row").groups == "row"
    assert number_format("paper").groups == "block"


def test_every_name_has_its_format():
    assert tuple(FORMATS) == FORMAT_NAMES
