"""The vector unit's arithmetic: written out in Python's integers, and its error bounds held.

Every bound is the sentence of section 8 of docs/numerics.md, over rows at the format's edges (all
words largest, of one sign or both, one word alone, almost equal words far from 0) and random ones.
"""

import math
import random

import pytest
import torch

from firmware_model.reference.vector import (
    Constants,
    Norm,
    activate,
    add,
    make_constants,
    make_norm,
    make_rotation,
    multiply,
    normalize,
    partners,
    quantize_channels,
    quantize_tokens,
    rotate,
    scale,
    to_words,
)
from paro.config import ParoError
from paro.config.vector_formats import (
    ACTIVATIONS,
    NORM_CHANNELS_MAX,
    PAIRINGS,
    WORD_MAX,
    activation_table,
    gelu,
    silu,
)

W = WORD_MAX
FUNCTIONS = {"gelu": gelu, "silu": silu}


def rshift(value: int, places: int) -> int:
    return (value + (1 << (places - 1)) if places else value) >> places


def clamp(value: int, largest: int = W) -> int:
    return max(-largest, min(value, largest))


def edge_rows(channels: int, rng: random.Random) -> torch.Tensor:
    """Rows at the edges of the format, and random rows of many sizes."""
    middle = rng.randrange(-W + 1, W)
    rows = [
        [W] * channels,
        [-W] * channels,
        [0] * channels,
        [W if c % 2 else -W for c in range(channels)],
        [W] + [0] * (channels - 1),
        [0] * (channels - 1) + [-1],
        [1] + [-W] * (channels - 1),
        [middle + rng.randrange(-1, 2) for _ in range(channels)],
        [middle] * channels,
    ]
    for size in (1, 3, 30, 300, 3000, W):
        rows += [[rng.randint(-size, size) for _ in range(channels)] for _ in range(4)]
        rows.append([clamp(middle + rng.randint(-size, size)) for _ in range(channels)])
    return torch.tensor(rows)


def random_constants(channels: int, shift: int, rng: random.Random) -> Constants:
    edges = (W, -W, 0, 1, -1)
    return Constants(
        torch.tensor([rng.choice((*edges, rng.randint(-W, W))) for _ in range(channels)]),
        shift,
        torch.tensor([rng.choice((*edges, rng.randint(-99, 99))) for _ in range(channels)]),
    )


@pytest.mark.parametrize("shift", [0, 1, 13, 14, 15, 22, 30])
def test_one_product_a_word(shift, seed):
    """Scale, add and multiply, word for word."""
    rng = random.Random(seed)
    words, others = edge_rows(12, rng), edge_rows(12, rng)
    constants = random_constants(12, shift, rng)
    scaled, summed = scale(words, constants), add(words, constants, others)
    product = multiply(words, others, shift)
    rounded = quantize_channels(words, constants)
    assert rounded.dtype == torch.int8
    saturated = 0
    for token, row in enumerate(words.tolist()):
        for channel, word in enumerate(row):
            k, b = int(constants.factor[channel]), int(constants.offset[channel])
            z = int(others[token, channel])
            moved = rshift(word * k, shift)
            place = token, channel
            assert scaled[place] == clamp(moved + b)
            assert summed[place] == clamp(moved + z)
            assert product[place] == clamp(rshift(word * z, shift))
            assert rounded[place] == clamp(moved + b, 127)
            saturated += abs(moved + b) > W
    assert saturated or shift > 15


def test_constants_keep_their_bound(seed):
    """Rounding of factor, offset and product: 1 + |x| 2^-(s+1) words."""
    rng = random.Random(seed)
    words = edge_rows(16, rng).double()
    for size in (1e-7, 1e-3, 0.4, 1.0, 700.0):
        factor = torch.tensor([rng.uniform(-size, size) for _ in range(16)], dtype=torch.float64)
        offset = torch.tensor([rng.uniform(-300, 300) for _ in range(16)], dtype=torch.float64)
        constants = make_constants(factor, offset)
        largest = factor.abs().max().item()
        assert constants.shift == 30 or 2.0**-constants.shift < largest * 2**-14
        exact = words * factor + offset
        error = (scale(words.long(), constants) - exact).abs()
        held = error <= 1 + words.abs() * 2.0 ** -(constants.shift + 1)
        assert held[exact.abs() < W].all()
        assert size < 0.1 or (error[exact.abs() < W] > 0.5).any()


def test_constants_at_the_ends_of_their_format():
    one = torch.ones(1, dtype=torch.float64)
    assert make_constants(one * W, one).shift == 0
    assert make_constants(one * 0, one).factor.tolist() == [0]
    assert make_constants(one, one * 1e9).offset.tolist() == [W]
    with pytest.raises(ParoError, match=r"factor of 3.28e\+04 words a word is not legal; legal"):
        make_constants(one * (W + 1), one)
    with pytest.raises(ParoError, match="factor of nan"):
        make_constants(one * math.nan, one)


def written_out_norm(row: list[int], norm: Norm) -> list[int]:
    n = len(row)
    middle = (4 * sum(row) + n) // (2 * n) if norm.centred else 0
    squares = sum((2 * x - middle) ** 2 for x in row) + norm.epsilon
    assert squares < 2**48
    half = (squares.bit_length() - 1) // 2
    aligned = squares << 2 * (16 - half) if half <= 16 else squares >> 2 * (half - 16)
    root = math.isqrt(aligned)
    assert 2**16 <= root < 2**17
    reciprocal = min(2**33 // root, 2**17 - 1)
    return [clamp(rshift((2 * x - middle) * reciprocal, 17 + half - norm.places)) for x in row]


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("group", [1, 2, 7, 32])
@pytest.mark.parametrize("places", [0, 12, 14, 17])
@pytest.mark.parametrize("epsilon", [1, 12_345, 2**47 - 1])
def test_norm(group, centred, epsilon, places, seed):
    """Word for word, and within its bound of float64."""
    rng = random.Random(seed)
    words = edge_rows(group, rng)
    norm = Norm(group, centred, epsilon, places)
    got = normalize(words, norm)
    assert got.tolist() == [written_out_norm(row, norm) for row in words.tolist()]
    x = words.double()
    middle = x.mean(dim=1, keepdim=True) if centred else 0
    distance = 2 * (x - middle)
    squares = distance.square().sum(dim=1, keepdim=True) + epsilon
    exact = 2**places * distance / squares.sqrt()
    slack = 2.0**-16 + (group / 8 / squares if centred else 0)
    bound = 0.5 + exact.abs() * slack + (0.51 * 2**places / squares.sqrt() if centred else 0)
    inside = exact.abs() < W
    assert ((got - exact).abs() <= bound)[inside].all()
    assert inside.all() or places > 14


def test_groups_of_a_row_are_normalised_apart(seed):
    words = edge_rows(48, random.Random(seed))
    norm = Norm(16, True, 7, 12)
    parts = [normalize(part, norm) for part in words.split(16, dim=1)]
    assert torch.equal(normalize(words, norm), torch.cat(parts, dim=1))


def test_the_largest_norm_fits_its_width():
    words = torch.tensor([[W, -W] * (NORM_CHANNELS_MAX // 2)])
    norm = Norm(NORM_CHANNELS_MAX, True, 2**47 - 1, 17)
    assert normalize(words, norm).tolist() == [written_out_norm(words[0].tolist(), norm)]


def test_the_format_of_a_norm():
    norm = make_norm(128, centred=True, epsilon=1e-5, unit=2**-10)
    assert (norm.epsilon, norm.places) == (round(4 * 128 * 1e-5 * 2**20), 14)
    assert norm.unit == math.sqrt(128) * 2**-14
    assert make_norm(128, centred=False, epsilon=0, unit=1.0, largest=5.0).epsilon == 1
    assert make_norm(128, centred=False, epsilon=0, unit=1.0, largest=5.0).places == 16
    assert make_norm(8192, centred=False, epsilon=0, unit=1.0, largest=1.0).places == 17
    with pytest.raises(ParoError, match="norm of 8193 channels is not legal; legal: 1 to 8,192"):
        make_norm(8193, centred=True, epsilon=1e-5, unit=1.0)
    with pytest.raises(ParoError, match="epsilon = 1 of a norm is beyond the format"):
        make_norm(128, centred=True, epsilon=1.0, unit=1e-7)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("places", [4, 9, 12])
def test_activation(kind, places):
    words = torch.cat([torch.arange(-W, W + 1, 7), torch.arange(-99, 100), torch.tensor([W])])
    got = activate(words.unsqueeze(1), kind, places).flatten()
    table = activation_table(kind)
    exact = []
    for word, output in zip(words.tolist(), got.tolist(), strict=True):
        t = abs(word) << (12 - places)
        base, slope = table[t >> 8] if t < 2**15 else (0, 0)
        step = rshift(slope * (t & 255), 24 - places)
        assert output == clamp(step + max(word, 0) + rshift(base, 16 - places))
        exact.append(FUNCTIONS[kind](max(word * 2.0**-places, -700.0)))
    error = (got - torch.tensor(exact, dtype=torch.float64) * 2**places).abs()
    inside = words.abs() < 8 << places
    assert (error[inside] <= 1 + 0.0004 * 2**places).all()
    beyond = 0.0027 if kind == "silu" else 0.0
    assert (error[~inside] <= 0.01 + beyond * 2**places).all()
    assert not got[words == 0].any()


def test_tables_fit_the_multiplier():
    for kind in ACTIVATIONS:
        table = activation_table(kind)
        assert len(table) == 128
        assert max(abs(base) for base, _ in table) < 2**15
        assert max(abs(slope) for _, slope in table) < 2**11


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_rotation(pairing, seed):
    """Word for word, within its bound of float64, and 0 degrees change nothing."""
    rng = random.Random(seed)
    channels, heads = 8, 2
    words = edge_rows(heads * channels, rng)
    angles = torch.tensor([[rng.uniform(-9, 9) for _ in range(channels // 2)] for _ in words])
    angles[0], angles[1] = 0, math.pi / 2
    rotation = make_rotation(angles, pairing)
    offset = torch.tensor([rng.randint(-W, W) for _ in range(heads * channels)])
    got = rotate(words, rotation, offset)
    other = [c ^ 1 if pairing == "neighbours" else (c + 4) % 8 for c in range(channels)]
    assert partners(channels, pairing).tolist() == other
    for token, row in enumerate(words.tolist()):
        for place, word in enumerate(row):
            head, c = divmod(place, channels)
            straight = clamp(rshift(word * int(rotation.cos[token, c]), 14) + int(offset[place]))
            partner = row[head * channels + other[c]]
            want = clamp(rshift(partner * int(rotation.sin[token, c]), 14) + straight)
            assert got[token, place] == want
    turned = rotate(words, rotation).unflatten(1, (heads, channels)).double()
    x = words.unflatten(1, (heads, channels)).double()
    index = torch.arange(channels)
    pair = index // 2 if pairing == "neighbours" else index % 4
    first = index % 2 == 0 if pairing == "neighbours" else index < 4
    cos, sin = angles.double().cos()[:, pair], angles.double().sin()[:, pair]
    sin = torch.where(first, -sin, sin)
    exact = x * cos.unsqueeze(1) + x[..., other] * sin.unsqueeze(1)
    bound = 1 + (x.abs() + x[..., other].abs()) * 2.0**-15
    straight = (x * cos.unsqueeze(1)).abs()
    inside = (exact.abs() < W - 3) & (straight < W - 3)
    assert ((turned - exact).abs() <= bound)[inside].all()
    assert torch.equal(rotate(words, rotation)[0], words[0])


@pytest.mark.parametrize(
    ("places", "bits"), [(2, 17), (0, 17), (-1, 17), (-7, 8), (-6, 8), (-15, 17), (-15, 8)]
)
def test_quantisation_by_token(places, bits, seed):
    """Word for word, and within its bound; the largest word becomes 127 where j is not below 0."""
    group = 6
    words = edge_rows(2 * group, random.Random(seed))
    x8, mantissa = quantize_tokens(words, group, places, bits)
    assert x8.dtype == torch.int8
    assert mantissa.shape == (len(words), 2)
    for token, row in enumerate(words.tolist()):
        for head in range(2):
            own = row[head * group : (head + 1) * group]
            a = max(map(abs, own))
            m = max(a, 1) << places if places >= 0 else clamp(max(-(-a >> -places), 1), 2**bits - 1)
            reached = m >> places if places >= 0 else m << -places
            e = reached.bit_length() - 1
            factor = 127 * 2 ** (e + 10) // reached
            assert 127 * 2**9 < factor <= 127 * 2**10
            assert mantissa[token, head] == m < 2**bits
            for c, word in enumerate(own):
                got = int(x8[token, head * group + c])
                assert got == clamp(rshift(word * factor, e + 10), 127)
                if a <= reached:
                    assert abs(got - 127 * word / reached) <= 0.5 + 2**-9
                if places >= 0 and a and abs(word) == a:
                    assert abs(got) == 127


def test_what_has_no_format_is_refused():
    words = torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(ParoError, match="8 or 17 bits, -15 to 2 places"):
        quantize_tokens(words, 4, 3)
    with pytest.raises(ParoError, match="mantissas of 9 bits at 0 places are not legal"):
        quantize_tokens(words, 4, 0, 9)
    with pytest.raises(ParoError, match="activation of 13 places is not legal; legal: 4 to 12"):
        activate(words, "gelu", 13)


def test_values_become_words():
    assert to_words(torch.tensor([0.26, -9e9, 9e9, -0.25]), 0.5).tolist() == [1, -W, W, 0]
