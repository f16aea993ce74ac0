"""Head queue: reads the descriptors of a queue, one after the other, and checks them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from paro.config import Config
from paro.config.descriptor import (
    ALIGNMENT,
    DESCRIPTOR,
    DESCRIPTOR_BYTES,
    OUT_CUT_MAX,
    ROW_STRIDE_BITS,
)
from paro.config.formats import SUM_SHIFT_MAX, Kind
from paro.config.registers import MEMORY_ADDRESS_BITS, QUEUE_BITS, Cause
from rtl.accelerator.descriptor import descriptor_layout
from rtl.bus.axi import Destination, run_layout
from rtl.lib.arithmetic import log2
from rtl.lib.contract import Contracts

__all__ = ["HeadQueue"]


class HeadQueue(wiring.Component):
    """Descriptors from memory to heads that can be worked on.

    Members
    -------
    start : In, 1
    base, count : In
        With ``start``, when ``idle``: address and number of the descriptors.
    runs : Out, stream of `run_layout`
    units : In, stream of ``load_bytes``
    heads : Out, stream of `descriptor_layout`
        Heads that passed the checks, one at a time: the next is read when one has been taken.
    index : Out
        Number of the head that is read or offered.
    fault : Out, `Cause`
        Fault of the descriptor; stays, and nothing more is offered, until reset.
    idle : Out, 1
        The queue is at its end.
    reading : Out, 1
        With a vector unit: a descriptor has been asked for and is not all there.
    following : Out
        With a vector unit: address behind that descriptor.

    Latency
    -------
    `OFFER_LATENCY` cycles from the last unit of a descriptor to its offer.
    """

    OFFER_LATENCY = 3

    def __init__(self, config: Config):
        self._config = config
        read_ahead = {"reading": Out(1), "following": Out(MEMORY_ADDRESS_BITS)}
        super().__init__(
            {
                **(read_ahead if config.vector_channels else {}),
                "start": In(1),
                "base": In(MEMORY_ADDRESS_BITS),
                "count": In(QUEUE_BITS),
                "runs": Out(stream.Signature(run_layout(config))),
                "units": In(stream.Signature(unsigned(8 * config.load_bytes))),
                "heads": Out(stream.Signature(descriptor_layout())),
                "index": Out(QUEUE_BITS),
                "fault": Out(Cause),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._promise(Contracts(m, platform, self))
        units = DESCRIPTOR_BYTES // self._config.load_bytes
        head = Signal(descriptor_layout())
        address = Signal(MEMORY_ADDRESS_BITS)
        left = Signal(QUEUE_BITS)
        received = Signal(range(units))
        m.d.comb += [
            self.heads.payload.eq(head),
            self.runs.payload.address.eq(address),
            self.runs.payload.units.eq(units),
            self.runs.payload.destination.eq(Destination.DESCRIPTOR),
        ]

        if self._config.vector_channels:
            m.d.comb += self.following.eq(address)

        # Each check takes a cycle of its own.
        wrong = Signal(len(Cause))
        for cause, found in self._checks(m, head).items():
            m.d.sync += wrong[cause].eq(found)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.idle.eq(1)
                m.d.sync += [address.eq(self.base), left.eq(self.count), self.index.eq(0)]
                with m.If(self.start):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += self.runs.valid.eq(1)
                with m.If(self.runs.ready):
                    m.d.sync += [address.eq(address + DESCRIPTOR_BYTES), left.eq(left - 1)]
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += self.units.ready.eq(1)
                if self._config.vector_channels:
                    m.d.comb += self.reading.eq(1)
                with m.If(self.units.valid):
                    m.d.sync += [
                        head.as_value().eq(
                            Cat(head.as_value(), self.units.payload)[8 * self._config.load_bytes :]
                        ),
                        received.eq(received + 1),
                    ]
                    with m.If(received == units - 1):
                        m.d.sync += received.eq(0)
                        m.next = "CHECK"
            with m.State("CHECK"):
                m.next = "JUDGE"
            with m.State("JUDGE"):
                with m.If(wrong.any()):
                    m.next = "FAULT"
                with m.Else():
                    m.next = "OFFER"
            with m.State("FAULT"):
                for cause in reversed(Cause):
                    with m.If(wrong[cause]):
                        m.d.comb += self.fault.eq(cause)
            with m.State("OFFER"):
                m.d.comb += self.heads.valid.eq(1)
                with m.If(self.heads.ready):
                    m.d.sync += self.index.eq(self.index + 1)
                    with m.If(left.any()):
                        m.next = "ASK"
                    with m.Else():
                        m.next = "IDLE"
        return m

    def _promise(self, contracts: Contracts) -> None:
        """Add the contracts of its ports."""
        contracts.asks(~self.start | self.idle, "a queue starts when the one before is at its end")
        contracts.has_room(self.units, "the units of a descriptor")

    def _checks(self, m: Module, head: data.View) -> dict[Cause, Signal]:
        """Whether a descriptor is unusable, by cause."""
        config = self._config
        constants = {
            field.name: field.constant for field in DESCRIPTOR if field.constant is not None
        }
        found = {cause: Signal(name=f"is_{cause.name.lower()}") for cause in Cause}
        aligned = log2(ALIGNMENT)
        places = [
            field.name for field in DESCRIPTOR if field.name.endswith(("_address", "_row_stride"))
        ]
        # A vector step has a head's order, from its first token on.
        has_order = head.kind == Kind.ATTENTION
        begins_late = Const(0)
        last_kind = Kind.LINEAR
        if config.vector_channels:
            has_order = head.kind != Kind.LINEAR
            begins_late = (head.kind != Kind.ATTENTION) & head.first_block_row.any()
            last_kind = Kind.VECTOR
        # A head has as many key_tokens as query_tokens at least.
        counts = ("key_tokens", "query_tokens")
        extents = ("outer_extent", "middle_extent", "inner_extent")
        shifts = head.sum_shift > SUM_SHIFT_MAX
        cut = head.out_cut > (OUT_CUT_MAX if config.cuts_outputs else 0)
        first_query = Signal(len(head.first_block_row) + log2(config.block))
        m.d.comb += first_query.eq(head.first_block_row << log2(config.block))
        m.d.comb += [
            found[Cause.BAD_DESCRIPTOR].eq(
                Cat(head[name] != constants[name] for name in ("magic", "version")).any()
            ),
            found[Cause.BAD_SHAPE].eq(
                (head.block != config.block) | (head.head_dim != config.head_dim)
            ),
            found[Cause.BAD_KIND].eq(head.kind > last_kind),
            found[Cause.BAD_TOKENS].eq(
                Cat(~head[name].any() for name in counts).any()
                | (head.key_tokens > config.max_tokens)
                | Mux(
                    has_order,
                    Cat(~head[name].any() for name in extents).any()
                    | begins_late
                    | (first_query + head.query_tokens > head.key_tokens)
                    | (head.prefix_tokens + head.suffix_tokens >= head.key_tokens),
                    head.query_tokens > config.max_tokens,
                )
            ),
            found[Cause.BAD_LAYER].eq(
                cut
                | (
                    (head.kind != Kind.ATTENTION)
                    & (~head.chunks.any() | (head.chunks > config.chunks_max) | shifts)
                )
            ),
            found[Cause.BAD_ALIGNMENT].eq(
                Cat(head[name][:aligned].any() for name in places).any()
                | Cat(head[f"{name}_row_stride"][ROW_STRIDE_BITS:].any() for name in "qkvo").any()
            ),
        ]
        return found
