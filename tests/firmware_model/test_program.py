"""A program's check: what cannot run is refused, in one sentence."""

import math
from dataclasses import replace
from types import MappingProxyType

import pytest

from firmware_model.program import (
    Activate,
    Add,
    Attend,
    Columns,
    CrossAttend,
    Format,
    Join,
    Kind,
    Linear,
    Normalize,
    Program,
    QuantizeChannels,
    QuantizeTokens,
    Rotate,
    Rows,
    Scale,
    activation_places,
    check_program,
    count_tokens,
    mantissa_places,
    norm_places,
)
from paro.config import ParoError

WIDTH, HEAD = 8, 4
KEY_UNIT = 0.001


def words(unit=0.5, channels=WIDTH, zero=()):
    return Format(unit=(unit,) * channels, zero=zero)


def by_token(unit, group, bits, channels=WIDTH, zero=()):
    return Format(kind=Kind.BY_TOKEN, unit=(unit,) * channels, zero=zero, group=group, bits=bits)


ZERO = (0.25,) * WIDTH
STEPS = (
    Normalize(result="norm", source="x", group=WIDTH, centred=True, epsilon=1e-5),
    Scale(result="scaled", source="norm", constants="first"),
    QuantizeTokens(result="input", source="scaled"),
    Linear(result="qkv", source="input", layer="qkv"),
    Columns(result="q", source="qkv", first=0, channels=WIDTH),
    Columns(result="k", source="qkv", first=WIDTH, channels=WIDTH),
    Columns(result="v", source="qkv", first=2 * WIDTH, channels=WIDTH),
    QuantizeTokens(result="q8", source="q"),
    Rotate(result="turned", source="k", rotation="r", head_dim=HEAD, pairing="halves"),
    QuantizeTokens(result="k8", source="turned"),
    QuantizeChannels(result="v8", source="v"),
    Attend(result="heads", source="q8", k="k8", v="v8", layer=0, head_dim=HEAD),
    Scale(result="mixed", source="heads"),
    Activate(result="active", source="mixed", kind="silu"),
    Add(result="sum", source="active", base="x", constants="gate"),
)
FORMATS = {
    "x": words(0.01),
    "norm": words(math.sqrt(WIDTH) * 2.0**-14),
    "scaled": words(508 * 0.03),
    "input": by_token(0.03, WIDTH, 17),
    "qkv": words(0.5, 3 * WIDTH),
    "q": words(0.5),
    "k": words(0.5),
    "v": words(0.5),
    "q8": by_token(0.5 / 127 * 2**5, HEAD, 17),
    "turned": words(0.5, zero=ZERO),
    "k8": by_token(0.5 / 127 * 2**7, HEAD, 8, zero=ZERO),
    "v8": Format(kind=Kind.BY_CHANNEL, unit=(0.5,) * WIDTH, zero=ZERO),
    "heads": words(0.5 / 256, zero=ZERO),
    "mixed": words(2.0**-9),
    "active": words(2.0**-9),
    "sum": words(0.01),
}


def program(steps=STEPS, outputs=("sum",), **formats):
    return Program(("x",), outputs, steps, MappingProxyType(FORMATS | formats))


def refused(sentence, *args, **kwargs):
    with pytest.raises(ParoError) as caught:
        check_program(program(*args, **kwargs))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_legal_program_passes():
    check_program(program())


def test_places_follow_from_units():
    assert norm_places(STEPS[0], FORMATS["norm"]) == 14
    assert mantissa_places(STEPS[2], FORMATS["scaled"], FORMATS["input"]) == 2
    assert mantissa_places(STEPS[9], FORMATS["turned"], FORMATS["k8"]) == -7
    assert activation_places(STEPS[13], FORMATS["active"]) == 9


def test_order():
    refused("norm is made from y, which is no input", (replace(STEPS[0], source="y"), *STEPS[1:]))
    refused("scaled is made from norm, which a later step makes", (STEPS[1], STEPS[0], *STEPS[2:]))
    refused(
        "tensors go in a circle: norm from sum from active from mixed from heads from",
        (replace(STEPS[0], source="sum"), *STEPS[1:]),
    )
    refused("in a circle: norm from norm", (replace(STEPS[0], source="norm"), *STEPS[1:]))
    refused("tensor norm is made twice", (STEPS[0], *STEPS))
    refused("tensor x is made twice", (*STEPS, replace(STEPS[1], result="x")))
    refused("output y is no input, and no step makes it", outputs=("y",))


def test_every_tensor_has_a_format():
    lacking = {name: found for name, found in FORMATS.items() if name != "k8"}
    with pytest.raises(ParoError, match="tensor k8 has no format"):
        check_program(replace(program(), formats=lacking))


@pytest.mark.parametrize(
    ("name", "made", "sentence"),
    [
        ("norm", words(2.0**-14), "norm has a unit of 6.1e-05; legal for a norm of 8 channels"),
        ("norm", words(math.sqrt(8) * 2.0**-18), "legal for a norm of 8 channels"),
        ("norm", words(math.sqrt(8) * 2.0**-14, 16), "its tensors have [8, 16] channels"),
        ("x", replace(words(0.01), unit=(0.01,) * 7 + (0.02,)), "x has several units; legal: one"),
        ("x", words(0.01, zero=ZERO), "x has zeros; legal: none"),
        ("scaled", by_token(0.03, WIDTH, 17), "scaled is INT8 by token; legal: words"),
        ("scaled", words(500 * 0.03), "units of scaled and input do not fit"),
        ("scaled", words(0.03 * 127 * 2**3), "units of scaled and input do not fit"),
        ("input", by_token(0.03, HEAD, 17), "has mantissas of 17 bits for 4 channels; legal: 17"),
        ("input", by_token(0.03, 3, 17), "groups of 3 channels; legal: those that divide 8"),
        ("input", by_token(0.03, WIDTH, 9), "mantissas of 9 bits; legal: 8 or 17"),
        ("q", words(0.25), "format of q; legal: that of the channels it has of qkv"),
        ("qkv", words(0.5, 20), "channels 16 to 23; legal: within 0 to 19"),
        ("turned", words(0.25, zero=ZERO), "units of k and turned; legal: the same"),
        ("k8", by_token(0.5 / 127 * 2**7, HEAD, 17, zero=ZERO), "17 bits for 4 channels; legal: 8"),
        ("k8", by_token(0.5 / 127 * 2**7, HEAD, 8), "zeros of turned and k8 differ"),
        ("v8", words(0.5, zero=ZERO), "v8 is words; legal: INT8 by channel"),
        ("heads", words(0.5, zero=ZERO), "format of heads; legal: units of v8 over 2^8"),
        ("mixed", words(2.0**-8), "formats of mixed and active differ; legal: one for both"),
        ("sum", words(0.02), "formats of x and sum differ; legal: one for both"),
    ],
)
def test_formats(name, made, sentence):
    refused(sentence, **{name: made})


def test_an_activation_has_a_power_of_two():
    for unit in (0.003, 2.0**-13):
        refused("active has a unit of", mixed=words(unit), active=words(unit))


PARTS = (
    Rows(result="text", source="x", first=0, tokens=3),
    Rows(result="grid", source="x", first=3, tokens=4),
    Scale(result="first", source="text"),
    Scale(result="second", source="grid"),
    Join(result="both", source="second", rest=("first",)),
)
PART_FORMATS = {name: words(0.01) for name in ("text", "grid", "first", "second", "both")}


def in_parts(*steps, **formats):
    return program((*PARTS, *steps), ("both",), **PART_FORMATS | formats)


def test_tokens_of_every_tensor():
    counts = count_tokens(in_parts(), 7)
    assert counts == {"x": 7, "text": 3, "grid": 4, "first": 3, "second": 4, "both": 7}
    check_program(in_parts())
    with pytest.raises(ParoError, match="grid has tokens 3 to 6 of x; legal: within 0 to 5"):
        count_tokens(in_parts(), 6)
    added = Add(result="sum", source="first", base="x", constants="gate")
    with pytest.raises(ParoError, match=r"sum is made from \[3, 7\] tokens; legal: 3 of each"):
        count_tokens(in_parts(added), 7)


def test_tokens_of_another_input():
    """Q of cross attention has its own tokens, K and V have others."""
    cross = CrossAttend(result="mixed", source="q", k="k", v="v", head_dim=HEAD)
    made = Program(("q", "k", "v"), ("mixed",), (cross,), {})
    assert count_tokens(made, 7, {"k": 3, "v": 3})["mixed"] == 7
    with pytest.raises(ParoError, match="mixed is made from 3 tokens of K and 7 of V; legal: as m"):
        count_tokens(made, 7, {"k": 3})


def test_parts_of_a_tensor():
    def wrong(sentence, *steps, **formats):
        with pytest.raises(ParoError, match=sentence):
            check_program(in_parts(*steps, **formats))

    wrong("formats of x and text differ; legal: one for both", text=words(0.02))
    wrong("formats of first and both differ; legal: one for both", first=words(0.02))
    quantized = by_token(0.01 / 127 * 2**5, HEAD, 17)
    wrong("both is INT8 by token; legal: words or INT8 by channel", both=quantized)
    again = Join(result="sum", source="first", rest=())
    wrong("first is joined 2 times; legal: once", again)
    wrong("text is joined to others; legal: what a vector step", replace(again, source="text"))
    wrong("x is joined to others; legal: what a vector step makes", replace(again, source="x"))
