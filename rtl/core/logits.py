"""Logit unit: scores from the array to base-2 logits and row maxima, buffered for the softmax."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from paro.config import Config, formats
from rtl.core.blocks import SLOTS
from rtl.core.drain import drained_layout
from rtl.lib.arithmetic import log2, round_shift
from rtl.lib.contract import Contracts
from rtl.lib.delay import delayed
from rtl.lib.library import replicate

__all__ = ["LogitBuffer"]


class LogitLane(wiring.Component):
    """One score times its key scale and its query scale; section 3 of `docs/numerics.md`.

    It also tracks the maxima of its queries, one for each part of the array's columns: the scores
    of a key come part by part, all of them, so that the maxima take turns by themselves.

    Members
    -------
    score : In, signed(score_bits)
    key_scale, query_scale : In
        Mantissas, one cycle after ``score``.
    valid, first, present : In
        `LATENCY` cycles after ``score``: it counts; it is its query's first; its key is a token, so
        that it enters the maximum. The first key always is one.
    logit : Out, signed(LOGIT_BITS)
        Base-2 logit with LOGIT_FRAC fractional bits.
    ceiling : Out, signed(MAX_BITS)
        Ceiling of its query's maximum so far, one cycle after ``logit``.

    Latency
    -------
    `LATENCY` cycles from ``score``.
    """

    DATA_ONLY = True

    LATENCY = 8

    def __init__(self, config: Config):
        self._config = config
        self._parts = config.cols // config.drain_words
        super().__init__(
            {
                "score": In(signed(config.score_bits)),
                "key_scale": In(unsigned(formats.KEY_SCALE_BITS)),
                "query_scale": In(unsigned(formats.QUERY_SCALE_BITS)),
                "valid": In(1),
                "first": In(1),
                "present": In(1),
                "logit": Out(signed(formats.LOGIT_BITS)),
                "ceiling": Out(signed(formats.MAX_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        score_bits = self._config.score_bits

        # 1, 2: operands of the multipliers come out of registers and their products go into some.
        score_1, score_2 = (Signal(signed(score_bits), name=f"score_{i}") for i in (1, 2))
        key_scale = Signal.like(self.key_scale)
        m.d.sync += [
            score_1.eq(self.score),
            score_2.eq(score_1),
            key_scale.eq(self.key_scale),
        ]
        query_scale = delayed(m, self.query_scale, 4, "query_scale", first=2)

        # 3, 4, 5: times the key scale, in two halves that a multiplier of 18 bits takes.
        half = score_bits // 2
        low = Signal(unsigned(half + formats.KEY_SCALE_BITS))
        high = Signal(signed(score_bits - half + formats.KEY_SCALE_BITS))
        by_key = Signal(signed(score_bits + formats.KEY_SCALE_BITS))
        scaled = Signal(signed(formats.SCALED_SCORE_BITS))
        m.d.sync += [
            low.eq(score_2[:half] * key_scale),
            high.eq(score_2[half:].as_signed() * key_scale),
            by_key.eq(low + (high << half)),
            scaled.eq(round_shift(by_key, self._config.key_scale_shift)),
        ]

        # 6, 7, 8: times the query scale.
        by_query = Signal(signed(formats.SCALED_SCORE_BITS + formats.QUERY_SCALE_BITS))
        rounded = Signal(signed(len(by_query) - formats.QUERY_SCALE_SHIFT + 1))
        m.d.sync += [
            by_query.eq(scaled * query_scale),
            rounded.eq(round_shift(by_query, formats.QUERY_SCALE_SHIFT)),
        ]
        # Rounding up is monotone: the ceiling of a maximum is the maximum of the ceilings.
        top = Signal(signed(formats.MAX_BITS))
        top_max = formats.LOGIT_MAX >> formats.LOGIT_FRAC
        with m.If(rounded > formats.LOGIT_MAX):
            m.d.sync += [self.logit.eq(formats.LOGIT_MAX), top.eq(top_max)]
        with m.Elif(rounded < -formats.LOGIT_MAX):
            m.d.sync += [self.logit.eq(-formats.LOGIT_MAX), top.eq(-top_max)]
        with m.Else():
            m.d.sync += [
                self.logit.eq(rounded),
                top.eq((rounded + ((1 << formats.LOGIT_FRAC) - 1)) >> formats.LOGIT_FRAC),
            ]

        # 9: the maxima, the latest in front.
        maxima = [
            Signal(signed(formats.MAX_BITS), name=f"maximum_{part}") for part in range(self._parts)
        ]
        lead = Signal(signed(formats.MAX_BITS + 1))
        m.d.comb += lead.eq(maxima[-1] - top)
        rises = self.present & (self.first | (lead < 0))
        with m.If(self.valid):
            m.d.sync += [
                maxima[0].eq(Mux(rises, top, maxima[-1])),
                *(new.eq(old) for old, new in pairwise(maxima)),
            ]
        m.d.comb += self.ceiling.eq(maxima[0])
        return m


class LogitBuffer(wiring.Component):
    """Scales drained scores, tracks each query's maximum, keeps both for the softmax unit.

    The buffer is a ring of groups: one group holds the logits of C queries against the keys of a
    block. It has room for two blocks, which is as far as QK runs ahead of PV.

    Members
    -------
    input, input_valid : In
        Scores from the drain router.
    keys_valid : In, 1
        ``input`` was multiplied by K or by a layer's weights.
    key_scale_address, query_scale_address : Out
    key_scale, query_scales : In
        Read ports of the operand buffers' scales (latency 1).
    key_release, query_release : Out, 1
        The scales of a K slot, of a Q slot were read for the last time.
    key_release_slot, query_release_slot : Out
    groups : Out
        Complete groups in the ring.
    release : In, 1
        The oldest group was read.
    read_key, read_part : In
        Key and group of drain_words queries of the oldest group to be read.
    logits : Out, drain_words x signed(LOGIT_BITS)
    maxima : Out, drain_words x signed(MAX_BITS)
        `READ_LATENCY` cycles after the address: logits, and the ceilings of their queries' maxima.
    """

    READ_LATENCY = 2
    #: Cycles from a block's last scores to ``key_release``.
    RELEASE_LATENCY = 1
    #: Cycles from a group's last scores to the cycle in which ``groups`` counts it.
    GROUP_LATENCY = LogitLane.LATENCY + 2

    def __init__(self, config: Config):
        self._config = config
        self._parts = config.cols // config.drain_words
        self._ring = SLOTS * config.block // config.cols
        super().__init__(
            {
                "input": In(drained_layout(config)),
                "input_valid": In(1),
                "keys_valid": In(1),
                "key_scale_address": Out(range(config.key_slots * config.block)),
                "key_scale": In(unsigned(formats.KEY_SCALE_BITS)),
                "query_scale_address": Out(
                    range(config.row_slots * config.block // config.drain_words)
                ),
                "query_scales": In(
                    data.ArrayLayout(unsigned(formats.QUERY_SCALE_BITS), config.drain_words)
                ),
                "key_release": Out(1),
                "query_release": Out(1),
                "key_release_slot": Out(range(config.key_slots)),
                "query_release_slot": Out(range(config.row_slots)),
                "groups": Out(range(self._ring + 1)),
                "release": In(1),
                "read_key": In(range(config.block)),
                "read_part": In(range(self._parts)),
                "logits": Out(data.ArrayLayout(signed(formats.LOGIT_BITS), config.drain_words)),
                "maxima": Out(data.ArrayLayout(signed(formats.MAX_BITS), config.drain_words)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        tile = self.input.tile
        key = Signal(range(config.block))
        m.d.comb += [
            key.eq(Cat(self.input.row, tile.row_group)),
            self.key_scale_address.eq(Cat(key, tile.slot)),
            self.query_scale_address.eq(
                Cat(
                    self.input.part,
                    tile.col_group[: log2(config.block // config.cols)],
                    tile.block.query_slot,
                )
            ),
        ]
        block_done = self.keys_valid & self.input.last & tile.last
        m.d.sync += [
            self.key_release.eq(block_done & ~tile.block.keeps),
            self.key_release_slot.eq(tile.slot),
            self.query_release.eq(block_done & (tile.block.last | tile.block.linear)),
            self.query_release_slot.eq(tile.block.query_slot),
        ]

        # The place of the scores travels beside the lanes.
        beside = data.StructLayout(
            {
                "valid": 1,
                "key": range(config.block),
                "part": range(self._parts),
                "present": 1,  # the key is a token
            }
        )
        place = Signal(beside)
        m.d.comb += [
            place.valid.eq(self.input_valid),
            place.key.eq(key),
            place.part.eq(self.input.part),
            place.present.eq(key < tile.block.keys),
        ]
        place = delayed(m, place, LogitLane.LATENCY, "place")

        logits = Signal(self.logits.shape())
        ceilings = Signal(self.maxima.shape())
        lanes = replicate(m, platform, "logit_lane", lambda: LogitLane(config), config.drain_words)
        for index, lane in enumerate(lanes):
            word = self.input.words[index]
            # In 2-bit blocks K comes out of the array four times too large (rtl/core/digits.py).
            m.d.comb += [
                lane.score.eq(Mux(tile.block.code == 1, word >> 2, word)),
                lane.key_scale.eq(self.key_scale),
                lane.query_scale.eq(self.query_scales[index]),
                lane.valid.eq(place.valid),
                lane.first.eq(place.key == 0),
                lane.present.eq(place.present),
                logits[index].eq(lane.logit),
                ceilings[index].eq(lane.ceiling),
            ]

        # The ring.
        write_group, read_group = (Signal(range(self._ring), name=n) for n in ("write", "read"))
        group_done = Signal()
        committed = Signal()
        last_key = place.key == config.block - 1
        m.d.comb += group_done.eq(place.valid & last_key & (place.part == self._parts - 1))
        m.d.sync += [
            write_group.eq(write_group + group_done),
            read_group.eq(read_group + self.release),
            committed.eq(group_done),
            self.groups.eq(self.groups + committed - self.release),
        ]
        contracts = Contracts(m, platform, self)
        contracts.asks(~self.release | self.groups.any(), "only a complete group is released")
        contracts.holds(
            ~place.valid | (self.groups + committed < self._ring),
            "no score is written over a group that waits",
        )
        m.submodules.logit_memory = logit_memory = Memory(
            shape=self.logits.shape(), depth=self._ring * config.block * self._parts, init=[]
        )
        write, read = logit_memory.write_port(), logit_memory.read_port()
        m.d.comb += [
            write.en.eq(place.valid),
            write.addr.eq(Cat(place.part, place.key, write_group)),
            write.data.eq(logits),
            read.addr.eq(Cat(self.read_part, self.read_key, read_group)),
        ]
        m.d.sync += self.logits.eq(read.data)
        m.submodules.maximum_memory = maximum_memory = Memory(
            shape=self.maxima.shape(), depth=self._ring * self._parts, init=[]
        )
        write, read = maximum_memory.write_port(), maximum_memory.read_port()
        write_maximum = Signal()
        m.d.sync += [
            write_maximum.eq(place.valid & last_key),
            write.addr.eq(Cat(place.part, write_group)),
        ]
        m.d.comb += [
            write.data.eq(ceilings),
            write.en.eq(write_maximum),
            read.addr.eq(Cat(self.read_part, read_group)),
        ]
        m.d.sync += self.maxima.eq(read.data)
        return m
