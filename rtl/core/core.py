"""The accelerator core: one attention head under one plan, or one linear layer, as streams."""

from typing import NamedTuple

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from paro.config import Config
from paro.config.formats import Operand, Operation, Stage
from rtl import interfaces
from rtl.core.array import PEArray
from rtl.core.blocks import SLOTS, block_layout
from rtl.core.digits import KeyEncoder
from rtl.core.drain import DrainRouter
from rtl.core.layer_output import PAGES, LayerOutput
from rtl.core.logits import LogitBuffer
from rtl.core.normalizer import Normalizer
from rtl.core.operand_buffers import KeyBuffer, QueryBuffer, ValueBuffer
from rtl.core.operand_former import OperandFormer
from rtl.core.operations import by_operation
from rtl.core.output_accumulator import OutputAccumulator
from rtl.core.reciprocal import ReciprocalUnit, reciprocal_layout
from rtl.core.scheduler import BlockScheduler
from rtl.core.sequencer import ArraySequencer, ending_row_layout
from rtl.core.softmax import SoftmaxUnit
from rtl.core.superblock_scheduler import SuperblockScheduler
from rtl.lib.contract import Contracts
from rtl.lib.library import replicate
from rtl.lib.stream_fifo import StreamFIFO

__all__ = ["Core", "core_signature"]


def core_signature(config: Config) -> wiring.Signature:
    """Ports of the core, for those who need to know them without building it."""
    return wiring.Signature(
        {
            "command": In(interfaces.command_signature(config)),
            "codes": In(interfaces.codes_signature(config)),
            "fetch": Out(interfaces.fetch_signature(config)),
            "q": In(interfaces.q_signature(config)),
            "k": In(interfaces.k_signature(config)),
            "v": In(interfaces.v_signature(config)),
            "o": Out(interfaces.o_signature(config)),
            **({"rows": Out(interfaces.rows_signature(config))} if config.query_rows > 1 else {}),
            "busy": Out(1),
            "empty_row": Out(1),
            "activity": Out(interfaces.activity_layout()),
        }
    )


class Core(wiring.Component):
    """Block-sparse mixed-precision attention, and linear layers: scheduler, array, softmax, output.

    From the operand buffers to the output stream no stage ever waits for a later one: a block
    enters only when all of them have room for it. The streams may stall at any time; the results do
    not depend on it.

    Parameters
    ----------
    config : Config
        Shape of the core.

    Members
    -------
    command, codes, fetch, q, k, v, o, rows : streams
        See `rtl.interfaces`. A command may be given while the one before is still at work.
    busy : Out, 1
        A run is in progress.
    empty_row : Out, 1
        A block row without a live block came: the run cannot end, reset the core.
    activity : Out, `rtl.interfaces.activity_layout`
        Activity of each stage in this cycle.

    Contract
    --------
    Operands arrive in the order in which they were fetched, each on its own stream.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(core_signature(config))

    def elaborate(self, platform):
        m = Module()
        config = self.config
        contracts = Contracts(m, platform, self)
        self._promise(contracts)
        scheduler_type = BlockScheduler if config.query_rows == 1 else SuperblockScheduler
        m.submodules.scheduler = scheduler = scheduler_type(config)
        m.submodules.query_buffer = query_buffer = QueryBuffer(config)
        m.submodules.key_buffer = key_buffer = KeyBuffer(config)
        m.submodules.value_buffer = value_buffer = ValueBuffer(config)
        m.submodules.sequencer = sequencer = ArraySequencer(config)
        m.submodules.array = array = PEArray(config)
        m.submodules.drain = drain = DrainRouter(config)
        m.submodules.logits = logits = LogitBuffer(config)
        m.submodules.softmax = softmax = SoftmaxUnit(config)
        m.submodules.accumulator = accumulator = OutputAccumulator(config)
        m.submodules.reciprocal = reciprocal = ReciprocalUnit(config)
        m.submodules.normalizer = normalizer = Normalizer(config)
        m.submodules.layer_output = layer_output = LayerOutput(config)

        # Boundary.
        for name, port in (
            ("command", scheduler.command),
            ("codes", scheduler.codes),
            ("fetch", scheduler.fetch),
            ("q", query_buffer.input),
            ("k", key_buffer.input),
            ("v", value_buffer.input),
        ):
            connect(m, flipped(getattr(self, name)), port)

        if isinstance(scheduler, SuperblockScheduler):
            self._tell_rows(m, contracts, scheduler)

        # Loads.
        for operand, buffer, load in (
            (Operand.Q, query_buffer, sequencer.query_load),
            (Operand.K, key_buffer, sequencer.key_load),
            (Operand.V, value_buffer, sequencer.value_load),
        ):
            m.d.comb += [
                buffer.request.payload.eq(scheduler.load),
                buffer.request.valid.eq(scheduler.load_valid[operand]),
                buffer.release.eq(scheduler.release[operand]),
                load.full.eq(buffer.full),
                load.loaded.eq(buffer.loaded),
            ]
        m.d.comb += [
            scheduler.release[Operand.Q].eq(logits.query_release),
            scheduler.release[Operand.K].eq(logits.key_release),
            scheduler.release[Operand.V].eq(sequencer.value_release),
            scheduler.released_query_slot.eq(logits.query_release_slot),
            query_buffer.release_slot.eq(logits.query_release_slot),
            key_buffer.release_slot.eq(logits.key_release_slot),
            value_buffer.release_slot.eq(sequencer.value_release_slot),
        ]

        # Blocks.
        m.submodules.blocks = blocks = StreamFIFO(
            block_layout(config), depth=config.key_slots * config.query_rows
        )
        # A K slot is not free before the blocks that it serves have left.
        contracts.has_room(blocks.input, "all blocks that have a slot of K")
        m.d.comb += [
            blocks.input.payload.eq(scheduler.blocks.payload),
            blocks.input.valid.eq(scheduler.blocks.valid),
        ]
        connect(m, blocks.output, sequencer.scheduled)
        connect(m, sequencer.started, softmax.started)
        connect(m, softmax.weighted, sequencer.weighted)

        # Edges of the array.
        m.d.comb += [
            query_buffer.address.eq(sequencer.query_address),
            key_buffer.address.eq(sequencer.key_address),
            value_buffer.address.eq(sequencer.value_address),
            softmax.weight_address.eq(sequencer.weight_address),
        ]
        for col, former in enumerate(
            replicate(m, platform, "operand_former", OperandFormer, config.cols)
        ):
            m.d.comb += [
                former.queries.eq(query_buffer.words[col]),
                former.values.as_value().eq(Cat(key[col] for key in value_buffer.words)),
                former.operation.eq(sequencer.former_operation),
                former.code.eq(sequencer.former_code),
                former.phase.eq(sequencer.former_phase),
                array.operands[col].eq(former.operands),
            ]
        encoders = replicate(m, platform, "key_encoder", KeyEncoder, config.rows)
        words = Signal(array.words.shape())
        for row, encoder in enumerate(encoders):
            m.d.comb += [
                encoder.channels.eq(key_buffer.words[row]),
                encoder.code.eq(sequencer.key_code),
                encoder.phase.eq(sequencer.key_phase),
            ]
            m.d.sync += words[row].eq(
                by_operation(
                    sequencer.former_operation,
                    {Operation.QK: encoder.word, Operation.PV: softmax.weights[row]},
                )
            )
        m.d.comb += [array.words.eq(words), array.step.eq(sequencer.step)]

        # Tiles.
        m.d.comb += [
            drain.tile.eq(sequencer.tile),
            drain.drained.eq(array.drained),
            drain.drained_first.eq(array.drained_first),
            logits.input.eq(drain.output),
            logits.input_valid.eq(drain.score_valid),
            logits.keys_valid.eq(drain.keys_valid),
            key_buffer.scale_address.eq(logits.key_scale_address),
            logits.key_scale.eq(key_buffer.scales[0]),
            query_buffer.scale_address.eq(logits.query_scale_address),
            logits.query_scales.eq(query_buffer.scales),
            accumulator.input.eq(drain.output),
            accumulator.input_valid.eq(drain.partial_valid),
            layer_output.drained.eq(drain.output),
            layer_output.drained_valid.eq(drain.keys_valid & drain.partial_valid),
            layer_output.key_scale.eq(key_buffer.scales[0]),
            layer_output.query_scales.eq(query_buffer.scales),
        ]

        # Softmax.
        m.d.comb += [
            softmax.groups.eq(logits.groups),
            softmax.logits.eq(logits.logits),
            softmax.maxima.eq(logits.maxima),
            logits.release.eq(softmax.release),
            logits.read_key.eq(softmax.read_key),
            logits.read_part.eq(softmax.read_part),
            softmax.rescale_slot.eq(accumulator.rescale_slot),
            softmax.rescale_query.eq(accumulator.rescale_query),
            accumulator.rescale.eq(softmax.rescale),
        ]

        m.submodules.prepared = prepared = StreamFIFO(reciprocal_layout(config), depth=config.block)
        connect(m, softmax.chunks, reciprocal.chunks)
        connect(m, reciprocal.output, prepared.input)
        connect(m, prepared.output, normalizer.queries)
        output = _Output(accumulator, normalizer, layer_output)
        row_done = self._share_output(m, contracts, output, sequencer)
        self._send(m, output)
        # A row is in flight from its beginning until its last word is read.
        rows = Signal(range(config.key_slots * config.query_rows + 3 * config.row_slots + 1))
        contracts.holds(~row_done | rows.any(), "a row that ends has begun")
        m.d.sync += rows.eq(rows + scheduler.row_begun - row_done)
        m.d.comb += [
            self.busy.eq(~scheduler.idle | rows.any() | ~normalizer.idle | ~layer_output.idle),
            self.empty_row.eq(scheduler.empty_row),
            # There is always room, see `layer_output.rows_max`.
            layer_output.rows.payload.eq(scheduler.layer_rows.payload),
            layer_output.rows.valid.eq(scheduler.layer_rows.valid),
        ]
        for stage, activity in (
            (Stage.SCHEDULER, scheduler.activity),
            (Stage.LOAD_Q, query_buffer.activity),
            (Stage.LOAD_K, key_buffer.activity),
            (Stage.LOAD_V, value_buffer.activity),
            (Stage.QK, sequencer.qk_activity),
            (Stage.PV, sequencer.pv_activity),
            (Stage.SOFTMAX, softmax.activity),
        ):
            m.d.comb += self.activity[stage].eq(activity)
        return m

    def _promise(self, contracts: Contracts) -> None:
        """Add the contracts of the core's ports."""
        contracts.asks_to_keep(self.command, "command")
        contracts.asks_to_keep(self.codes, "codes")
        contracts.keeps(self.o, "o")
        if self.config.query_rows > 1:
            contracts.keeps(self.rows, "rows")
        for stage in Stage:
            states = self.activity[stage].as_value()
            one = ~(states & (states - 1)).any()
            contracts.holds(one, f"{stage.name} is in one state at a time")

    def _share_output(
        self, m: Module, contracts: Contracts, output: "_Output", sequencer: ArraySequencer
    ) -> Value:
        """Let normaliser and layer output read the accumulator, row by row as the rows end.

        Returns whether the last word of a row is read.
        """
        accumulator, normalizer, layer = output
        m.submodules.ending_rows = ending = StreamFIFO(
            ending_row_layout(self.config), depth=self.config.row_slots
        )
        read_slot = ending.output.payload.slot
        reads_layer = ending.output.payload.linear
        row_done = normalizer.row_done | layer.row_done
        reads, offers = normalizer.read & layer.read, normalizer.o.valid & layer.o.valid
        contracts.holds(~reads & ~offers, "normaliser and layer output work by turns")
        contracts.has_room(ending.input, "all rows that have an output slot")
        m.d.comb += [
            # There is always room: each has an output slot.
            ending.input.payload.eq(sequencer.ending_rows.payload),
            ending.input.valid.eq(sequencer.ending_rows.valid),
            ending.output.ready.eq(row_done),
            normalizer.groups_complete.eq(accumulator.groups_complete),
            layer.tiles_complete.eq(accumulator.layer_tiles_complete),
            normalizer.turn.eq(ending.output.valid & ~reads_layer & layer.idle),
            layer.turn.eq(ending.output.valid & reads_layer & normalizer.idle),
            layer.slot.eq(read_slot),
            accumulator.read_slot.eq(read_slot),
            accumulator.read_query.eq(Mux(reads_layer, layer.read_output, normalizer.read_query)),
            accumulator.read_part.eq(Mux(reads_layer, layer.read_part, normalizer.read_part)),
            normalizer.read_ready.eq(accumulator.read_ready),
            layer.read_ready.eq(accumulator.read_ready),
            normalizer.numerators.eq(accumulator.numerators),
            normalizer.layer.eq(layer.scales),
            layer.words.eq(normalizer.layer_words),
            sequencer.output_free.eq(row_done),
            sequencer.output_free_slot.eq(read_slot),
        ]
        return row_done

    def _tell_rows(self, m: Module, contracts: Contracts, scheduler: SuperblockScheduler) -> None:
        """Queue the rows in the order in which they end."""
        # There is room for all that are issued and not put out: those of the blocks of all K slots,
        # two between QK and PV, those of all output slots, those of a layer's pages; and for some
        # whose outputs wait.
        config = self.config
        depth = config.key_slots * config.query_rows + SLOTS + config.row_slots + 2 * PAGES
        payload = interfaces.rows_signature(config).members["payload"].shape
        m.submodules.ended_rows = ended = StreamFIFO(payload, depth=depth)
        m.d.comb += [
            ended.input.payload.eq(scheduler.ended_rows.payload),
            ended.input.valid.eq(scheduler.ended_rows.valid),
        ]
        contracts.has_room(ended.input, "all rows that are issued and not put out")
        connect(m, ended.output, flipped(self.rows))

    def _send(self, m: Module, output: "_Output") -> None:
        """Send the beats of normaliser and layer output, of which only one has any."""
        _, normalizer, layer = output
        activity = self.activity[Stage.OUTPUT]
        m.d.comb += [
            self.o.valid.eq(normalizer.o.valid | layer.o.valid),
            self.o.payload.eq(Mux(layer.o.valid, layer.o.payload, normalizer.o.payload)),
            normalizer.o.ready.eq(self.o.ready),
            layer.o.ready.eq(self.o.ready),
            activity.busy.eq(self.o.valid & self.o.ready),
            activity.blocked.eq(self.o.valid & ~self.o.ready),
            activity.starved.eq(~self.o.valid),
        ]


class _Output(NamedTuple):
    """Components between the array and the output stream."""

    accumulator: OutputAccumulator
    normalizer: Normalizer
    layer: LayerOutput
