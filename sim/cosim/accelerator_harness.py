"""Verilog around the accelerator: a memory that has latency, stalls and faults.

cocotbext-axi has the master of the registers. Between memory (`sim.cosim.axi_memory`) and
accelerator the harness delays read addresses and write responses, each by a random number of
cycles, in order and without losing throughput; every channel has random geometric stalls, those of
the registers too; one chosen response becomes an error. At the memory nothing random begins before
the first address after reset, so that the cycle model can follow.
"""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import wiring

from gen.names import ACCELERATOR, module_name
from paro.config import Config
from paro.config.registers import MEMORY_ADDRESS_BITS
from rtl.accelerator.accelerator import accelerator_signature
from sim.cosim.axi_memory import AXI_MEMORY, BURSTS_FILE, CONTENTS_FILE
from sim.cycles.memory import Memory
from sim.cycles.stalls import CHANNELS, RANDOM_MODULE, REGISTER_CHANNELS, salt
from sim.trace.recorder import accelerator_recorder

__all__ = ["BENCH_TOP", "SETTINGS", "harness_verilog", "visible_ports"]

#: Top module of a co-simulation of the accelerator.
BENCH_TOP = "paro_axi_bench"

#: Ports of `AXI_MEMORY`'s modules that are signals of the port.
_MEMORY_PORTS = (
    *("arid", "araddr", "arlen", "arvalid", "arready"),
    *("rid", "rdata", "rresp", "rlast", "rvalid", "rready"),
    *("awid", "awaddr", "awlen", "awvalid", "awready"),
    *("wdata", "wstrb", "wlast", "wvalid", "wready"),
    *("bid", "bresp", "bvalid", "bready"),
)
_MONITOR_PORTS = tuple(
    f"{channel}{part}"
    for channel, parts in {
        **dict.fromkeys(("ar", "aw"), ("addr", "len", "size", "burst", "valid", "ready")),
        "w": ("data", "strb", "last", "valid", "ready"),
    }.items()
    for part in parts
)

#: Inputs of the harness beside the accelerator's ports. Latencies are in cycles; a stall begins,
#: and goes on, with a probability of the rate / 256; the read beat, and the write response, of that
#: number since reset (0: none) becomes the error ``error_response``. The bench exchanges words of
#: the memory, and tells how many there are, see `AXI_MEMORY`, and at which address they begin.
SETTINGS = {
    "latency_low": 16,
    "latency_span": 16,
    "stall_seed": 32,
    **{f"{channel}_stall_rate": 8 for channel in (*CHANNELS, *REGISTER_CHANNELS)},
    "read_error_at": 32,
    "write_error_at": 32,
    "error_response": 2,
    **dict.fromkeys(("memory_load", "memory_save"), 1),
    **dict.fromkeys(("memory_first", "memory_last", "memory_words"), 32),
    "memory_base": MEMORY_ADDRESS_BITS,
}

#: Output of the harness: a rule of AXI4 that the accelerator broke, see `VIOLATIONS`.
_VIOLATION = "violation"


def _ports(config: Config) -> list[tuple[str, str, int]]:
    """Name, direction and width of the accelerator's ports but ``clk`` and ``rst``."""
    return [
        (
            name,
            "input" if member.flow is wiring.In else "output",
            Shape.cast(member.shape).width,
        )
        for name, member in accelerator_signature(config).members.items()
    ]


def visible_ports(config: Config) -> list[str]:
    """Ports of the harness that the bench uses."""
    return ["clk", "rst", *SETTINGS, _VIOLATION, *(name for name, _, _ in _host_ports(config))]


def _host_ports(config: Config) -> list[tuple[str, str, int]]:
    """Those of `_ports` that do not lead to the memory."""
    return [port for port in _ports(config) if not port[0].startswith("m_axi")]


def harness_verilog(config: Config, capacity: int, *, trace: bool = False) -> str:
    """Text of module `BENCH_TOP`.

    Parameters
    ----------
    config : Config
        The accelerator.
    capacity : int
        Bytes of the largest memory.
    trace : bool
        Record what `sim.trace` makes a trace of.
    """
    ports = _ports(config)
    declarations = ["  input clk", "  input rst"]
    declarations += [f"  input [{width - 1}:0] {name}" for name, width in SETTINGS.items()]
    declarations += [f"  output [2:0] {_VIOLATION}"]
    declarations += [
        f"  {flow} [{width - 1}:0] {name}" for name, flow, width in _host_ports(config)
    ]
    payload = [name for name, _, _ in ports if name.startswith("m_axi_ar")]
    payload = [name for name in payload if not name.endswith(("valid", "ready"))]
    inner = {*payload, "m_axi_rresp", "m_axi_bresp", "m_axi_bid"}
    inner |= {
        f"{bus}_{channel}{part}"
        for bus in ("m_axi", "s_axil")
        for channel in CHANNELS
        for part in ("valid", "ready")
    }
    wires = [f"  wire [{width - 1}:0] inner_{name};" for name, _, width in ports if name in inner]
    wires += [f"  wire [{width - 1}:0] {name};" for name, _, width in ports if name[0] == "m"]
    connections = ["    .clk(clk)", "    .rst(rst)"]
    connections += [
        f"    .{name}({'inner_' if name in inner else ''}{name})" for name, _, _ in ports
    ]
    widths = {name: width for name, _, width in ports}
    stalls = [
        _STALLS.format(channel=channel, salt=_salt(channel), run="running", **ends)
        for channel, ends in {
            "ar": {"source": 0, "before": "inner_m_axi_ar", "after": "stalled_ar"},
            "r": {"source": 1, "before": "m_axi_r", "after": "inner_m_axi_r"},
            "aw": {"source": 0, "before": "inner_m_axi_aw", "after": "m_axi_aw"},
            "w": {"source": 0, "before": "inner_m_axi_w", "after": "m_axi_w"},
            "b": {"source": 1, "before": "delayed_b", "after": "inner_m_axi_b"},
        }.items()
    ]
    stalls += [
        _STALLS.format(channel=channel, salt=_salt(channel), run="~rst", source=1, **ends)
        for channel, ends in {
            "s_ar": {"before": "s_axil_ar", "after": "inner_s_axil_ar"},
            "s_r": {"before": "inner_s_axil_r", "after": "s_axil_r"},
            "s_aw": {"before": "s_axil_aw", "after": "inner_s_axil_aw"},
            "s_w": {"before": "s_axil_w", "after": "inner_s_axil_w"},
            "s_b": {"before": "inner_s_axil_b", "after": "s_axil_b"},
        }.items()
    ]
    data_bytes = config.axi_bits // 8
    return (
        RANDOM_MODULE
        + AXI_MEMORY
        + _HARNESS.format(
            memory=_instance(
                "paro_axi_memory",
                "memory",
                {
                    "BYTES": data_bytes,
                    "WORDS": capacity // data_bytes,
                    "ADDRESS": MEMORY_ADDRESS_BITS,
                    "OPEN_BURSTS": Memory.OPEN_BURSTS,
                    "EARLY_BEATS": Memory.EARLY_BEATS,
                    "CONTENTS": f'"{CONTENTS_FILE}"',
                    "BURSTS": f'"{BURSTS_FILE}"',
                },
                {
                    **{
                        name: f"memory_{name}"
                        for name in ("load", "save", "first", "last", "words")
                    },
                    **{name: f"m_axi_{name}" for name in _MEMORY_PORTS},
                    **{name: f"m_axi_{name} - memory_base" for name in ("araddr", "awaddr")},
                    "violation": "memory_violation",
                },
            ),
            monitor=_instance(
                "paro_axi_monitor",
                "monitor",
                {"BYTES": data_bytes, "ADDRESS": MEMORY_ADDRESS_BITS},
                {
                    **{
                        name: f"{'inner_' if f'm_axi_{name}' in inner else ''}m_axi_{name}"
                        for name in _MONITOR_PORTS
                    },
                    "violation": "monitor_violation",
                },
            ),
            top=BENCH_TOP,
            accelerator=module_name(config, ACCELERATOR),
            ports=",\n".join(declarations),
            wires="\n".join(wires),
            ar_width=sum(widths[name] for name in payload),
            ar_inner=", ".join(f"inner_{name}" for name in payload),
            ar_outer=", ".join(payload),
            b_width=widths["m_axi_bid"] + widths["m_axi_bresp"],
            stalls="\n".join(stalls),
            read_salt=_salt("read_delay"),
            write_salt=_salt("write_delay"),
            connections=",\n".join(connections),
            recorder=accelerator_recorder("accelerator", config.cores) if trace else "",
        )
    )


def _instance(
    module: str, name: str, parameters: Mapping[str, Any], ports: Mapping[str, str]
) -> str:
    """Instance of a module of `AXI_MEMORY`."""
    values = ", ".join(f".{key}({value})" for key, value in parameters.items())
    wires = "".join(f",\n    .{port}({wire})" for port, wire in ports.items())
    return f"  {module} #({values}) {name} (\n    .clk(clk),\n    .rst(rst){wires}\n  );"


def _salt(name: str) -> str:
    return f"32'h{salt(name):08x}"


_STALLS = """\
  paro_stalls #(.SOURCE({source})) {channel}_stalls (
    .clk(clk),
    .run({run}),
    .rate({channel}_stall_rate),
    .seed(stall_seed ^ {salt}),
    .in_valid({before}valid),
    .in_ready({before}ready),
    .out_valid({after}valid),
    .out_ready({after}ready)
  );"""

_HARNESS = """\

module paro_stalls #(
  parameter SOURCE = 0
) (
  input clk,
  input run,
  input [7:0] rate,
  input [31:0] seed,
  input in_valid,
  output in_ready,
  output out_valid,
  input out_ready
);
  wire [31:0] random;
  paro_random generator (.clk(clk), .run(run), .seed(seed), .value(random));
  reg stalled = 0;
  assign out_valid = in_valid & ~stalled;
  assign in_ready = out_ready & ~stalled;
  // A source does not withdraw an offer: its stalls begin after a transfer.
  wire begins = SOURCE == 0 | (out_valid & out_ready);
  always @(posedge clk) stalled <= run & (begins | stalled) & (random[15:8] < rate);
endmodule

module paro_delay #(
  parameter WIDTH = 1
) (
  input clk,
  input rst,
  input run,
  input [15:0] low,
  input [15:0] span,
  input [31:0] seed,
  input [WIDTH-1:0] in_payload,
  input in_valid,
  output in_ready,
  output [WIDTH-1:0] out_payload,
  output out_valid,
  input out_ready
);
  wire [31:0] random;
  paro_random generator (.clk(clk), .run(run), .seed(seed), .value(random));
  reg [WIDTH-1:0] payloads [0:255];
  reg [31:0] due [0:255];
  reg [7:0] head = 0;
  reg [7:0] tail = 0;
  reg [31:0] cycle = 0;
  wire [7:0] following = tail + 8'd1;
  wire [31:0] range = {{16'd0, span}} + 32'd1;
  assign in_ready = ~rst & (following != head);
  assign out_valid = ~rst & (head != tail) & ($signed(cycle - due[head]) >= 0);
  assign out_payload = payloads[head];
  always @(posedge clk) begin
    cycle <= cycle + 1;
    if (rst) begin
      head <= 0;
      tail <= 0;
    end else begin
      if (in_valid & in_ready) begin
        payloads[tail] <= in_payload;
        due[tail] <= cycle + {{16'd0, low}} + (random >> 8) % range;
        tail <= following;
      end
      if (out_valid & out_ready) head <= head + 8'd1;
    end
  end
endmodule

module {top} (
{ports}
);
{wires}

  // Since the first address.
  reg begun = 0;
  wire running = ~rst & (begun | inner_m_axi_arvalid);
  always @(posedge clk) begun <= running;

  wire stalled_arvalid, stalled_arready, delayed_bvalid, delayed_bready;
{stalls}
  paro_delay #(.WIDTH({ar_width})) read_delay (
    .clk(clk),
    .rst(rst),
    .run(running),
    .low(latency_low),
    .span(latency_span),
    .seed(stall_seed ^ {read_salt}),
    .in_payload({{{ar_inner}}}),
    .in_valid(stalled_arvalid),
    .in_ready(stalled_arready),
    .out_payload({{{ar_outer}}}),
    .out_valid(m_axi_arvalid),
    .out_ready(m_axi_arready)
  );
  wire [1:0] delayed_bresp;
  paro_delay #(.WIDTH({b_width})) write_delay (
    .clk(clk),
    .rst(rst),
    .run(running),
    .low(latency_low),
    .span(latency_span),
    .seed(stall_seed ^ {write_salt}),
    .in_payload({{m_axi_bid, m_axi_bresp}}),
    .in_valid(m_axi_bvalid),
    .in_ready(m_axi_bready),
    .out_payload({{inner_m_axi_bid, delayed_bresp}}),
    .out_valid(delayed_bvalid),
    .out_ready(delayed_bready)
  );

  // Beats and responses since reset.
  reg [31:0] reads = 0;
  reg [31:0] writes = 0;
  assign inner_m_axi_rresp = reads + 32'd1 == read_error_at ? error_response : m_axi_rresp;
  assign inner_m_axi_bresp = writes + 32'd1 == write_error_at ? error_response : delayed_bresp;
  always @(posedge clk) begin
    reads <= rst ? 0 : reads + {{31'd0, m_axi_rvalid & m_axi_rready}};
    writes <= rst ? 0 : writes + {{31'd0, inner_m_axi_bvalid & inner_m_axi_bready}};
  end

  wire [2:0] memory_violation, monitor_violation;
  assign violation = monitor_violation != 0 ? monitor_violation : memory_violation;
{memory}
{monitor}

  {accelerator} accelerator (
{connections}
  );
{recorder}endmodule
"""
