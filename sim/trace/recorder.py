"""Verilog that records a run while it is simulated, from the signals of the design itself.

It stands in a harness, reads signals through the hierarchy and changes none. It writes a line of
`RECORDING_FILE` when something happens, not one a cycle: kind, source, cycle, payload in hex. A
source is a core, or after them the memory port.

=====  ===========================================================================
kind   meaning
=====  ===========================================================================
``a``  the activity of the source changed: three bits a stage, see `rtl.interfaces`
``c``  the core takes a command
``f``  it asks for operands
``b``  its scheduler issues a block
``q``  its array begins QK of the next block, or the next block of a layer
``p``  its array begins PV of the next block
``r``  reset: nothing before counts
``s``  an accelerator begins to work through a queue
``e``  it ends: the last cycle that counts
=====  ===========================================================================
"""

from collections.abc import Sequence

from amaranth.hdl import Shape

from rtl.interfaces import activity_layout

__all__ = ["RECORDING_FILE", "accelerator_recorder", "core_recorder"]

#: Name of the file, in the folder in which the simulation runs.
RECORDING_FILE = "recording.txt"
_ACTIVITY_BITS = Shape.cast(activity_layout()).width


def core_recorder(core: str) -> str:
    """Text for the harness of a core, an instance named ``core``; wants ``clk`` and ``rst``."""
    return _recorder([core])


def accelerator_recorder(accelerator: str, cores: int) -> str:
    """As `core_recorder`, of an accelerator with so many cores: also its memory port and queue."""
    paths = [f"{accelerator}.engine_0.core_{core}" for core in range(cores)]
    return (
        _recorder(paths)
        + _PORT.format(top=accelerator, engine=f"{accelerator}.engine_0")
        + (_ACTIVITY.format(source=cores, activity="{trace_write, trace_read}", msb=5))
    )


def _recorder(cores: Sequence[str]) -> str:
    parts = [_FILE.format(name=RECORDING_FILE)]
    for source, core in enumerate(cores):
        parts.append(
            _ACTIVITY.format(source=source, activity=f"{core}.activity", msb=_ACTIVITY_BITS - 1)
        )
        parts.append(_BLOCKS.format(source=source, core=core))
    return "".join(parts)


_FILE = """
  // What the trace is made of.
  integer trace_file;
  initial trace_file = $fopen("{name}", "w");
  reg [31:0] trace_cycle = 0;
  wire trace_on = rst === 1'b0;
  always @(posedge clk) begin
    trace_cycle <= trace_cycle + 1;
    if (~trace_on) $fdisplay(trace_file, "r 0 %0d 0", trace_cycle);
  end
"""

_ACTIVITY = """\
  reg [{msb}:0] trace_before_{source} = 0;
  always @(posedge clk) begin
    trace_before_{source} <= trace_on ? {activity} : 0;
    if (trace_on & ({activity} !== trace_before_{source}))
      $fdisplay(trace_file, "a {source} %0d %h", trace_cycle, {activity});
  end
"""

_BLOCKS = """\
  always @(posedge clk)
    if (trace_on) begin
      if ({core}.command__valid & {core}.command__ready)
        $fdisplay(trace_file, "c {source} %0d 0", trace_cycle);
      if ({core}.fetch__valid & {core}.fetch__ready)
        $fdisplay(trace_file, "f {source} %0d %h", trace_cycle, {core}.fetch__payload);
      if ({core}.scheduler.blocks__valid)
        $fdisplay(trace_file, "b {source} %0d %h", trace_cycle, {core}.scheduler.blocks__payload);
      if ({core}.sequencer.start_qk) $fdisplay(trace_file, "q {source} %0d 0", trace_cycle);
      if ({core}.sequencer.start_pv) $fdisplay(trace_file, "p {source} %0d 0", trace_cycle);
    end
"""

_PORT = """\
  // The memory port. Busy: a beat moves; blocked: one is offered and not taken; starved: bursts are
  // open, and neither.
  wire [2:0] trace_read, trace_write;
  reg [31:0] trace_reads = 0;
  reg [31:0] trace_writes = 0;
  wire trace_reading = {top}.m_axi_rvalid & {top}.m_axi_rready;
  wire trace_writing = {top}.m_axi_wvalid & {top}.m_axi_wready;
  assign trace_read = {{
    {top}.m_axi_rvalid & ~{top}.m_axi_rready, ~{top}.m_axi_rvalid & |trace_reads, trace_reading
  }};
  assign trace_write = {{
    {top}.m_axi_wvalid & ~{top}.m_axi_wready, ~{top}.m_axi_wvalid & |trace_writes, trace_writing
  }};
  reg trace_working = 0;
  always @(posedge clk) begin
    trace_reads <= ~trace_on ? 0 : trace_reads
      + {{31'd0, {top}.m_axi_arvalid & {top}.m_axi_arready}}
      - {{31'd0, trace_reading & {top}.m_axi_rlast}};
    trace_writes <= ~trace_on ? 0 : trace_writes
      + {{31'd0, {top}.m_axi_awvalid & {top}.m_axi_awready}}
      - {{31'd0, {top}.m_axi_bvalid & {top}.m_axi_bready}};
    trace_working <= trace_on & ({engine}.start | (trace_working & ~{engine}.done));
    if (trace_on & {engine}.start) $fdisplay(trace_file, "s 0 %0d 0", trace_cycle);
    if (trace_on & trace_working & {engine}.done) $fdisplay(trace_file, "e 0 %0d 0", trace_cycle);
  end
"""
