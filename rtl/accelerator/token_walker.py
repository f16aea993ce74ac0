"""Token walker: the token in memory at each position of a head's order."""

from typing import Any, NamedTuple

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.config import bits_unsigned
from rtl.interfaces import token_count_shape

__all__ = ["TokenWalker", "token_layout", "walk_layout", "walk_request_layout"]


def walk_layout(config: Config) -> data.StructLayout:
    """A head's order, in tokens.

    ``tokens`` of the head, of them ``prefix_tokens`` before and ``suffix_tokens`` after the grid;
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


def _place_layout(config: Config) -> data.StructLayout:
    """Where the walk is: ``position`` in the order, ``token`` in memory.

    ``in_grid`` or in the text around it. In the grid: steps that are left of the inner and of the
    middle axis, this one included, and the tokens at which the runs along the two began.
    """
    count = token_count_shape(config)
    return data.StructLayout(
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


class TokenWalker(wiring.Component):
    """Walks over the positions of a request: first the grid, then prefix and suffix.

    A place in the grid is kept as the steps left along the inner and the middle axis, and the
    tokens at which the current run along each of them began: a step is one addition. Only a jump
    has to find its coordinates, by two divisions and three products; a walker without ``jumps`` has
    neither. The place after the last request is kept, so that the next block is no jump; with
    ``again`` its first place too, so that the same block again is none.

    Parameters
    ----------
    config : Config
        Number of tokens.
    again : bool
        Whether a block may be asked for twice, one time after the other.
    jumps : bool
        Whether a request may begin anywhere.

    Members
    -------
    walk : In, `walk_layout`
        Constant while requests are in progress.
    forget : In, 1
        ``walk`` has changed: no place of an earlier request is kept.
    request : In, stream of `walk_request_layout`
        Accepted when no other request is in progress.
    tokens : Out, stream of `token_layout`

    Latency
    -------
    From a request to its first token: 1 cycle where the last request ended or, with ``again``,
    began, 2 cycles at position 0 and in the text, `jump_cycles` elsewhere. Then one token a cycle.

    Contract
    --------
    ``position + tokens`` is at most ``walk.tokens``. ``walk`` is valid in the cycle in which a
    request is accepted, and from then on. Without ``jumps`` a request inside the grid begins at
    position 0 or, with the same ``walk``, where the last one ended.
    """

    def __init__(self, config: Config, *, again: bool, jumps: bool):
        self._config = config
        self._again = again
        self._jumps = jumps
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
        request, output = self.request.payload, self.tokens.payload
        place = Signal(_place_layout(self._config))
        start = Signal(_place_layout(self._config), name="start") if self._again else None
        known = Signal()  # `place` and `start` are of this head
        left = Signal.like(request.tokens)

        if start is not None:
            self._keep_start(m, place, start)
        bounds = self._find_bounds(m)
        next_starts = self._find_next_starts(m, place)
        m.d.comb += [output.token.eq(place.token), output.last.eq(left == 1)]
        division = self._prepare_division(m) if self._jumps else None
        product = None if division is None else self._multiply(m, division)
        with m.If(self.forget):
            m.d.sync += known.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                kept = known & ~self.forget
                m.d.comb += self.request.ready.eq(1)
                m.d.sync += left.eq(request.tokens)
                with m.If(self.request.valid):
                    m.d.sync += known.eq(1)
                    with m.If(kept & (request.position == place.position)):
                        m.next = "WALK"
                    if start is not None:
                        with m.Elif(kept & (request.position == start.position)):
                            m.d.sync += place.eq(start)
                            m.next = "WALK"
                    with m.Else():
                        m.d.sync += place.position.eq(request.position)
                        m.next = "LOCATE"
            with m.State("LOCATE"):
                self._locate(m, place, bounds, division)
            if division is not None and product is not None:
                with m.State("DIVIDE"):
                    self._divide(m, division)
                with m.State("MULTIPLY"):
                    self._add_products(m, place, division, product)
            with m.State("WALK"):
                m.d.comb += self.tokens.valid.eq(1)
                with m.If(self.tokens.ready):
                    m.d.sync += [place.position.eq(place.position + 1), left.eq(left - 1)]
                    with m.If(output.last):
                        m.next = "IDLE"
                    self._step(m, place, bounds, next_starts)
        return m

    def _keep_start(self, m: Module, place: Any, start: Any) -> None:
        """Keep the place of the first token of each request."""
        first = Signal()
        with m.If(self.request.ready):
            m.d.sync += first.eq(1)
        with m.Elif(self.tokens.valid & self.tokens.ready):
            m.d.sync += first.eq(0)
            with m.If(first):
                m.d.sync += start.eq(place)

    def _find_bounds(self, m: Module) -> "_Bounds":
        """Find where the parts of the head's order begin and end."""
        walk, count = self.walk, token_count_shape(self._config)
        grid = Signal(count)
        suffix = Signal(count)
        last_grid = Signal(count)
        last_prefix = Signal(count)
        m.d.sync += [
            grid.eq(walk.tokens - walk.prefix_tokens - walk.suffix_tokens),
            suffix.eq(walk.tokens - walk.suffix_tokens),
            last_grid.eq(walk.tokens - walk.prefix_tokens - walk.suffix_tokens - 1),
            last_prefix.eq(walk.tokens - walk.suffix_tokens - 1),
        ]
        return _Bounds(grid, suffix, last_grid, last_prefix)

    def _find_next_starts(self, m: Module, place: Any) -> "_NextStarts":
        """Find the tokens at which the next runs along the inner and the middle axis begin."""
        count = token_count_shape(self._config)
        next_inner_start = Signal(count)
        next_middle_start = Signal(count)
        m.d.comb += [
            next_inner_start.eq(place.inner_start + self.walk.middle_stride),
            next_middle_start.eq(place.middle_start + self.walk.outer_stride),
        ]
        return _NextStarts(next_inner_start, next_middle_start)

    def _prepare_division(self, m: Module) -> "_Division":
        """One step of a restoring division: the quotient's register starts as the dividend."""
        count = token_count_shape(self._config)
        second = Signal()
        quotient = Signal(count)
        remainder = Signal(count)
        doubled = Signal(count.width + 1)
        reduced = Signal(count)
        divisor = Mux(second, self.walk.middle_extent, self.walk.inner_extent)
        fits = doubled >= divisor
        step = Signal(range(count.width))
        inner = Signal(count)
        m.d.comb += [
            doubled.eq(Cat(quotient[-1], remainder)),
            reduced.eq(Mux(fits, doubled - divisor, doubled)),
        ]
        return _Division(step, second, quotient, remainder, inner, fits, reduced)

    def _multiply(self, m: Module, division: "_Division") -> Signal:
        """Multiply one coordinate after the other by its axis's stride, two cycles each.

        After both divisions the outer coordinate is the quotient, the middle one the remainder.
        """
        walk, count = self.walk, token_count_shape(self._config)
        coordinate = Signal(count)
        stride = Signal(count)
        product = Signal(count)
        with m.Switch(division.step):
            with m.Case(0):
                m.d.sync += [coordinate.eq(division.quotient), stride.eq(walk.outer_stride)]
            with m.Case(1):
                m.d.sync += [coordinate.eq(division.remainder), stride.eq(walk.middle_stride)]
            with m.Default():
                m.d.sync += [coordinate.eq(division.inner), stride.eq(walk.inner_stride)]
        m.d.sync += product.eq(coordinate * stride)
        return product

    def _locate(
        self, m: Module, place: Any, bounds: "_Bounds", division: "_Division | None"
    ) -> None:
        """Find the part of the order that a position lies in; in the grid begin at its start."""
        walk = self.walk
        m.d.sync += [
            place.inner_left.eq(walk.inner_extent),
            place.middle_left.eq(walk.middle_extent),
            place.inner_start.eq(walk.prefix_tokens),
            place.middle_start.eq(walk.prefix_tokens),
            place.in_grid.eq(place.position < bounds.grid),
        ]
        if division is not None:
            m.d.sync += [
                division.quotient.eq(place.position),
                division.remainder.eq(0),
                division.second.eq(0),
                division.step.eq(0),
            ]
        m.next = "WALK"
        with m.If(place.position < bounds.grid):
            m.d.sync += place.token.eq(walk.prefix_tokens)
            if division is not None:
                with m.If(place.position.any()):
                    m.next = "DIVIDE"
        with m.Elif(place.position < bounds.suffix):
            m.d.sync += place.token.eq(place.position - bounds.grid)
        with m.Else():
            m.d.sync += place.token.eq(place.position)

    def _divide(self, m: Module, division: "_Division") -> None:
        """Divide a position by the inner extent, then the quotient by the middle extent."""
        quotient, step = division.quotient, division.step
        m.d.sync += [
            quotient.eq(Cat(division.fits, quotient)),
            division.remainder.eq(division.reduced),
            step.eq(step + 1),
        ]
        with m.If(step == len(quotient) - 1):
            m.d.sync += [division.second.eq(1), step.eq(0)]
            with m.If(division.second):
                m.next = "MULTIPLY"
            with m.Else():
                m.d.sync += [division.inner.eq(division.reduced), division.remainder.eq(0)]

    def _add_products(self, m: Module, place: Any, division: "_Division", product: Signal) -> None:
        """Add the products up to a token, in the cycles in which they are there."""
        walk, step = self.walk, division.step
        m.d.sync += step.eq(step + 1)
        with m.Switch(step):
            with m.Case(0):
                m.d.sync += [
                    place.inner_left.eq(walk.inner_extent - division.inner),
                    place.middle_left.eq(walk.middle_extent - division.remainder),
                ]
            with m.Case(2):
                m.d.sync += place.middle_start.eq(place.middle_start + product)
            with m.Case(3):
                m.d.sync += place.inner_start.eq(place.middle_start + product)
            with m.Case(4):
                m.d.sync += place.token.eq(place.inner_start + product)
                m.next = "WALK"

    def _step(self, m: Module, place: Any, bounds: "_Bounds", next_starts: "_NextStarts") -> None:
        """Go on to the token of the next position."""
        walk = self.walk
        # Without a prefix the suffix follows the grid.
        with m.If(place.position == bounds.last_prefix):
            m.d.sync += [place.in_grid.eq(0), place.token.eq(bounds.suffix)]
        with m.Elif(place.position == bounds.last_grid):
            m.d.sync += [place.in_grid.eq(0), place.token.eq(0)]
        with m.Elif(~place.in_grid | (place.inner_left != 1)):
            m.d.sync += [
                place.token.eq(place.token + Mux(place.in_grid, walk.inner_stride, 1)),
                place.inner_left.eq(place.inner_left - 1),
            ]
        with m.Elif(place.middle_left != 1):
            m.d.sync += [
                place.token.eq(next_starts.inner),
                place.inner_start.eq(next_starts.inner),
                place.inner_left.eq(walk.inner_extent),
                place.middle_left.eq(place.middle_left - 1),
            ]
        with m.Else():
            m.d.sync += [
                place.token.eq(next_starts.middle),
                place.inner_start.eq(next_starts.middle),
                place.middle_start.eq(next_starts.middle),
                place.inner_left.eq(walk.inner_extent),
                place.middle_left.eq(walk.middle_extent),
            ]


class _Bounds(NamedTuple):
    """Where the parts of a head's order begin and end: grid, prefix, suffix."""

    grid: Signal  # tokens of the grid
    suffix: Signal  # where the suffix begins, in the order and in memory
    last_grid: Signal  # last position of the grid
    last_prefix: Signal  # last position of the prefix


class _NextStarts(NamedTuple):
    """Tokens at which the next runs along two axes begin."""

    inner: Signal
    middle: Signal


class _Division(NamedTuple):
    """A division in progress, and the coordinates that two of them leave."""

    step: Signal  # of a division, then of the products
    second: Signal  # by the middle extent, not by the inner one
    quotient: Signal
    remainder: Signal
    inner: Signal  # remainder of the first division: the inner coordinate
    fits: Value  # next bit of the quotient
    reduced: Signal  # next remainder
