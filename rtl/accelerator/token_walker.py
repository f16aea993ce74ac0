"""Token walker: which token of memory stands at each position of a head's order."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.config import bits_unsigned
from rtl.interfaces import token_count_shape

__all__ = ["TokenWalker", "token_layout", "walk_layout", "walk_request_layout"]


def walk_layout(config: Config) -> data.StructLayout:
    """A head's order, in tokens.

    ``tokens`` of the head, of them ``prefix_tokens`` before and ``suffix_tokens`` behind the grid;
    extents of the grid's middle and inner axis in the order, at least 1; distance in memory of
    neighbours along each axis.
    """
    names = (
        "tokens",
        "prefix_tokens",
        "suffix_tokens",
        "middle_extent",
        "inner_extent",
        "outer_stride",
        "middle_stride",
        "inner_stride",
    )
    return data.StructLayout(dict.fromkeys(names, token_count_shape(config)))


def walk_request_layout(config: Config) -> data.StructLayout:
    """``tokens`` positions, 1 .. block, from ``position``."""
    return data.StructLayout(
        {
            "position": token_count_shape(config),
            "tokens": unsigned(bits_unsigned(config.block)),
        }
    )


def token_layout(config: Config) -> data.StructLayout:
    """Index of a token in memory's order; ``last`` of its request."""
    return data.StructLayout({"token": token_count_shape(config), "last": 1})


class TokenWalker(wiring.Component):
    """Walks over the positions of a request: first the grid, then prefix and suffix.

    A place in the grid is kept as what is left of the inner and of the middle axis, and the tokens
    at which the current run along each of them began: a step is one addition. Only a jump has
    to find its coordinates, by two divisions and three products. Where the last request began and
    where it ended are remembered, so that the same block again and the next one are no jumps.

    Members
    -------
    walk : In, `walk_layout`
        Constant while requests are in progress.
    forget : In, 1
        Nothing is remembered of earlier requests: ``walk`` has changed.
    request : In, stream of `walk_request_layout`
        Accepted when no other request is in progress.
    tokens : Out, stream of `token_layout`

    Latency
    -------
    From a request to its first token: 1 cycle where the last request began or ended, 2 cycles at
    position 0 and in the text, `jump_cycles` elsewhere. Then one token a cycle.

    Contract
    --------
    ``position + tokens`` is at most ``walk.tokens``. ``walk`` is valid in the cycle in which a
    request is accepted, and from then on.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "walk": In(walk_layout(config)),
                "forget": In(1),
                "request": In(stream.Signature(walk_request_layout(config))),
                "tokens": Out(stream.Signature(token_layout(config))),
            }
        )

    @staticmethod
    def jump_cycles(config: Config) -> int:
        """Cycles from a request inside the grid that is a jump to its first token."""
        return 2 * token_count_shape(config).width + 7

    def elaborate(self, platform):
        m = Module()
        walk, request, output = self.walk, self.request.payload, self.tokens.payload
        count = token_count_shape(self._config)
        place_layout = data.StructLayout(
            {
                "position": count,
                "token": count,
                "in_grid": 1,
                "inner_left": count,
                "middle_left": count,
                "inner_start": count,
                "middle_start": count,
            }
        )
        place = Signal(place_layout)
        start = Signal(place_layout)
        known = Signal()
        first = Signal()
        left = Signal.like(request.tokens)

        # Constants of the head.
        grid = Signal(count)
        suffix = Signal(count)  # the suffix begins there in either sequence
        last_grid = Signal(count)  # a position
        last_prefix = Signal(count)  # a position
        m.d.sync += [
            grid.eq(walk.tokens - walk.prefix_tokens - walk.suffix_tokens),
            suffix.eq(walk.tokens - walk.suffix_tokens),
            last_grid.eq(walk.tokens - walk.prefix_tokens - walk.suffix_tokens - 1),
            last_prefix.eq(walk.tokens - walk.suffix_tokens - 1),
        ]
        grid_start = [
            place.inner_left.eq(walk.inner_extent),
            place.middle_left.eq(walk.middle_extent),
            place.inner_start.eq(walk.prefix_tokens),
            place.middle_start.eq(walk.prefix_tokens),
        ]

        next_inner_start = Signal(count)
        next_middle_start = Signal(count)
        m.d.comb += [
            next_inner_start.eq(place.inner_start + walk.middle_stride),
            next_middle_start.eq(place.middle_start + walk.outer_stride),
            output.token.eq(place.token),
            output.last.eq(left == 1),
        ]

        # Restoring division: the quotient's register starts as the dividend.
        second = Signal()
        quotient = Signal(count)
        remainder = Signal(count)
        doubled = Signal(count.width + 1)
        reduced = Signal(count)
        divisor = Mux(second, walk.middle_extent, walk.inner_extent)
        fits = doubled >= divisor
        step = Signal(range(count.width))
        inner = Signal(count)
        m.d.comb += [
            doubled.eq(Cat(quotient[-1], remainder)),
            reduced.eq(Mux(fits, doubled - divisor, doubled)),
        ]

        # Once both are done: the outer coordinate is the quotient, the middle one the remainder.
        coordinate = Signal(count)
        stride = Signal(count)
        product = Signal(count)
        with m.Switch(step):
            with m.Case(0):
                m.d.sync += [coordinate.eq(quotient), stride.eq(walk.outer_stride)]
            with m.Case(1):
                m.d.sync += [coordinate.eq(remainder), stride.eq(walk.middle_stride)]
            with m.Default():
                m.d.sync += [coordinate.eq(inner), stride.eq(walk.inner_stride)]
        m.d.sync += product.eq(coordinate * stride)

        with m.If(self.forget):
            m.d.sync += known.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                kept = known & ~self.forget
                m.d.comb += self.request.ready.eq(1)
                m.d.sync += [left.eq(request.tokens), first.eq(1)]
                with m.If(self.request.valid):
                    m.d.sync += known.eq(1)
                    with m.If(kept & (request.position == place.position)):
                        m.next = "WALK"
                    with m.Elif(kept & (request.position == start.position)):
                        m.d.sync += place.eq(start)
                        m.next = "WALK"
                    with m.Else():
                        m.d.sync += place.position.eq(request.position)
                        m.next = "LOCATE"
            with m.State("LOCATE"):
                m.d.sync += [
                    *grid_start,
                    place.in_grid.eq(place.position < grid),
                    quotient.eq(place.position),
                    remainder.eq(0),
                    second.eq(0),
                    step.eq(0),
                ]
                m.next = "WALK"
                with m.If(place.position < grid):
                    m.d.sync += place.token.eq(walk.prefix_tokens)
                    with m.If(place.position.any()):
                        m.next = "DIVIDE"
                with m.Elif(place.position < suffix):
                    m.d.sync += place.token.eq(place.position - grid)
                with m.Else():
                    m.d.sync += place.token.eq(place.position)
            with m.State("DIVIDE"):
                m.d.sync += [
                    quotient.eq(Cat(fits, quotient)),
                    remainder.eq(reduced),
                    step.eq(step + 1),
                ]
                with m.If(step == count.width - 1):
                    m.d.sync += [second.eq(1), step.eq(0)]
                    with m.If(second):
                        m.next = "MULTIPLY"
                    with m.Else():
                        m.d.sync += [inner.eq(reduced), remainder.eq(0)]
            with m.State("MULTIPLY"):
                m.d.sync += step.eq(step + 1)
                with m.Switch(step):
                    with m.Case(0):
                        m.d.sync += [
                            place.inner_left.eq(walk.inner_extent - inner),
                            place.middle_left.eq(walk.middle_extent - remainder),
                        ]
                    with m.Case(2):
                        m.d.sync += place.middle_start.eq(place.middle_start + product)
                    with m.Case(3):
                        m.d.sync += place.inner_start.eq(place.middle_start + product)
                    with m.Case(4):
                        m.d.sync += place.token.eq(place.inner_start + product)
                        m.next = "WALK"
            with m.State("WALK"):
                m.d.comb += self.tokens.valid.eq(1)
                with m.If(self.tokens.ready):
                    m.d.sync += [
                        place.position.eq(place.position + 1),
                        left.eq(left - 1),
                        first.eq(0),
                    ]
                    with m.If(first):
                        m.d.sync += start.eq(place)
                    with m.If(output.last):
                        m.next = "IDLE"
                    # Without a prefix the suffix follows the grid.
                    with m.If(place.position == last_prefix):
                        m.d.sync += [place.in_grid.eq(0), place.token.eq(suffix)]
                    with m.Elif(place.position == last_grid):
                        m.d.sync += [place.in_grid.eq(0), place.token.eq(0)]
                    with m.Elif(~place.in_grid | (place.inner_left != 1)):
                        m.d.sync += [
                            place.token.eq(place.token + Mux(place.in_grid, walk.inner_stride, 1)),
                            place.inner_left.eq(place.inner_left - 1),
                        ]
                    with m.Elif(place.middle_left != 1):
                        m.d.sync += [
                            place.token.eq(next_inner_start),
                            place.inner_start.eq(next_inner_start),
                            place.inner_left.eq(walk.inner_extent),
                            place.middle_left.eq(place.middle_left - 1),
                        ]
                    with m.Else():
                        m.d.sync += [
                            place.token.eq(next_middle_start),
                            place.inner_start.eq(next_middle_start),
                            place.middle_start.eq(next_middle_start),
                            place.inner_left.eq(walk.inner_extent),
                            place.middle_left.eq(walk.middle_extent),
                        ]
        return m
