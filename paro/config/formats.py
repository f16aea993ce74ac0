"""Number formats shared by the golden reference and the RTL; `docs/numerics.md` derives them.

Only formats and tables live here, no arithmetic: the golden reference (`firmware_model`) and the
hardware (`rtl`) each implement the arithmetic, and the benches hold one against the other.
"""

import math
from enum import IntEnum

#: Bits of a block's operand for each 2-bit code; code 0 is a skipped block.
CODE_BITS = (0, 2, 4, 8)
#: Code of an 8-bit block.
EIGHT_BITS = len(CODE_BITS) - 1
#: Mean width in bits that the papers report; the default of everything here.
PAPER_BITS = 4.8
#: Block codes in a 32-bit word.
CODES_PER_WORD = 16
#: Bytes of a word of codes in memory, and of one token's scale.
CODE_WORD_BYTES = SCALE_BYTES = 4
#: Signed radix-4 digits that an element has at each code.
CODE_DIGITS = (0, 1, 2, 4)
#: Digit lanes of one processing element.
LANES = 4

#: Largest magnitude of an INT8 operand; -128 is never produced.
OPERAND_MAX = 127
#: Bits of a key's scale mantissa (unsigned, at least 1).
KEY_SCALE_BITS = 8
#: Bits of a query's scale mantissa (unsigned, at least 1).
QUERY_SCALE_BITS = 17
#: Bits of the signed product of a score and its key scale, before the query scale.
SCALED_SCORE_BITS = 18
#: Right shift after the query scale.
QUERY_SCALE_SHIFT = 15

#: Most input channels of a linear layer: sums of so many products have `SUM_BITS`.
INPUTS_MAX = 2**15
#: Width of the signed sum of a linear layer's products, of operands up to 127 and digits up to 128.
SUM_BITS = 1 + (OPERAND_MAX * (OPERAND_MAX + 1) * INPUTS_MAX).bit_length()
#: Width of that sum after its first shift: the normaliser's multiplier takes so much.
SHORT_SUM_BITS = 18
#: Most places of the first shift of such a sum.
SUM_SHIFT_MAX = SUM_BITS - SHORT_SUM_BITS
#: Right shift of the product of a weight's and a token's scale mantissa.
LAYER_SCALE_SHIFT = KEY_SCALE_BITS
#: Right shifts, one a layer, of a sum times that product; the last one is that of attention.
OUT_SHIFTS = (12, 14, 16, 18)

#: Fractional bits of a base-2 logit.
LOGIT_FRAC = 8
#: Integer bits of a base-2 logit, sign excluded: the row maximum lies in -2047 .. 2047.
LOGIT_INT = 11
#: Logits saturate at plus and minus this value (in units of 2**-LOGIT_FRAC).
LOGIT_MAX = (2**LOGIT_INT - 1) << LOGIT_FRAC
#: Width of a signed logit.
LOGIT_BITS = 1 + LOGIT_INT + LOGIT_FRAC
#: Width of a signed row maximum (an integer).
MAX_BITS = 1 + LOGIT_INT

#: Fractional bits of 2**-f inside the piecewise-linear table.
EXP_FRAC = 16
#: Extra fractional bits of the table's slopes.
EXP_SLOPE_FRAC = 2
#: Fractional bits of P: the value 1.0 is 2**P_FRAC.
P_FRAC = 9
#: Radix-4 positions of a P digit (0 .. 4); K uses the lower four.
P_POSITIONS = 5

#: Fractional bits of a denominator below P's: |numerator| <= denominator then holds in these units
#: through every rounding, so that a far block never leaves a numerator without its denominator.
DENOMINATOR_FRAC = 7
#: Largest right shift that a rescale names; beyond every accumulator, so the operand is gone.
RESCALE_MAX = 63
#: Bits of the reciprocal of a normalised denominator (unsigned).
RECIPROCAL_BITS = 17
#: Fractional bits of a numerator aligned to its denominator's leading one.
NUMERATOR_FRAC = 9
#: Output word: signed, in units of the V scale, with this many fractional bits.
OUT_BITS = 16
OUT_FRAC = 8
#: Bytes of an output word in memory.
OUT_BYTES = OUT_BITS // 8


class Operand(IntEnum):
    """Operand named by a fetch request of the core."""

    Q = 0
    K = 1
    V = 2


class Kind(IntEnum):
    """Kind of a job."""

    ATTENTION = 0
    LINEAR = 1
    VECTOR = 2  # passes of the vector unit, for each token; no work of a core


class Operation(IntEnum):
    """Operation of the array on a block; a linear layer is QK of its own blocks."""

    QK = 0
    PV = 1


class Stage(IntEnum):
    """Stage of the core whose cycles are counted."""

    SCHEDULER = 0
    LOAD_Q = 1
    LOAD_K = 2
    LOAD_V = 3
    QK = 4
    PV = 5
    SOFTMAX = 6
    OUTPUT = 7


#: Meaning of each stage.
STAGE_MEANINGS = {
    Stage.SCHEDULER: "Block scheduler: reads codes, skips 0-bit blocks, asks for operands.",
    Stage.LOAD_Q: "Load of Q (of a layer: its inputs) and its scales into the query buffer.",
    Stage.LOAD_K: "Load of K (of a layer: its weights) and its scales into the key buffer.",
    Stage.LOAD_V: "Load of V into the value buffer.",
    Stage.QK: "Array, while it multiplies Q and K, or a layer's inputs and weights, or waits to.",
    Stage.PV: "Array, while it multiplies P and V, or waits to.",
    Stage.SOFTMAX: "Softmax unit: from logits to the digits of P.",
    Stage.OUTPUT: "Normaliser: from numerators to the words of O, or from sums to a layer's.",
}


def exp2_table(segments: int) -> list[tuple[int, int]]:
    """Piecewise-linear table of 2**-f for f in [0, 1).

    Parameters
    ----------
    segments : int
        Number of equal segments, a power of two, at most ``2**LOGIT_FRAC``.

    Returns
    -------
    list of (base, slope)
        Segment ``s`` starts at ``f = s / segments``. With ``r`` the remaining ``LOGIT_FRAC -
        log2(segments)`` fraction bits, ``2**(EXP_FRAC - f)`` is approximately
        ``base - ((slope * r + 2**(EXP_SLOPE_FRAC - 1)) >> EXP_SLOPE_FRAC)``. Each chord is lowered
        by half of its largest error, except at f = 0, where 1.0 stays exact.
    """
    steps = 2**LOGIT_FRAC // segments
    table = []
    for segment in range(segments):
        start, end = 2.0 ** (-segment / segments), 2.0 ** (-(segment + 1) / segments)
        slope = (start - end) * segments
        # The chord's largest error is where the curve has the chord's slope.
        at = -math.log2(slope / math.log(2))
        error = start - slope * (at - segment / segments) - 2.0**-at
        low = start - (error / 2 if segment else 0.0)
        end_low = end - error / 2
        table.append(
            (
                round(low * 2**EXP_FRAC),
                round((low - end_low) / steps * 2 ** (EXP_FRAC + EXP_SLOPE_FRAC)),
            )
        )
    return table
