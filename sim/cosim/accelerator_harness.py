"""Verilog around the accelerator that gives its memory port latency, stalls and faults.

cocotbext-axi has the memory itself, and the master of the registers. Between the memory and the
accelerator the harness delays read addresses and write responses, each by a random number of
cycles, in order and without losing throughput; every channel has random geometric stalls; one
chosen response becomes an error. Nothing random begins before the first address after reset, so
that the cycle model can follow.
"""

from amaranth.hdl import Shape
from amaranth.lib import wiring

from gen.names import ACCELERATOR, module_name
from paro.config import Config
from rtl.accelerator.accelerator import accelerator_signature
from sim.cycles.stalls import CHANNELS, RANDOM_MODULE, salt
from sim.trace.recorder import accelerator_recorder

__all__ = ["BENCH_TOP", "harness_verilog", "visible_ports"]

#: Top module of a co-simulation of the accelerator.
BENCH_TOP = "paro_axi_bench"

#: Inputs of the harness beside the accelerator's ports. Latencies are in cycles; a stall begins,
#: and goes on, with a probability of the rate / 256; the read beat, and the write response, of that
#: number since reset (0: none) becomes the error ``error_response``.
_SETTINGS = {
    "latency_low": 16,
    "latency_span": 16,
    "stall_seed": 32,
    **{f"{channel}_stall_rate": 8 for channel in CHANNELS},
    "read_error_at": 32,
    "write_error_at": 32,
    "error_response": 2,
}


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
    return ["clk", "rst", *_SETTINGS, *(name for name, _, _ in _ports(config))]


def harness_verilog(config: Config, *, trace: bool = False) -> str:
    """Text of module `BENCH_TOP`; with ``trace`` it records what `sim.trace` makes a trace of."""
    ports = _ports(config)
    declarations = ["  input clk", "  input rst"]
    declarations += [f"  input [{width - 1}:0] {name}" for name, width in _SETTINGS.items()]
    declarations += [f"  {flow} [{width - 1}:0] {name}" for name, flow, width in ports]
    payload = [name for name, _, _ in ports if name.startswith("m_axi_ar")]
    payload = [name for name in payload if not name.endswith(("valid", "ready"))]
    inner = {*payload, "m_axi_rresp", "m_axi_bresp", "m_axi_bid"}
    inner |= {f"m_axi_{channel}{part}" for channel in CHANNELS for part in ("valid", "ready")}
    wires = [f"  wire [{width - 1}:0] inner_{name};" for name, _, width in ports if name in inner]
    connections = ["    .clk(clk)", "    .rst(rst)"]
    connections += [
        f"    .{name}({'inner_' if name in inner else ''}{name})" for name, _, _ in ports
    ]
    widths = {name: width for name, _, width in ports}
    stalls = [
        _STALLS.format(channel=channel, salt=_salt(channel), **ends)
        for channel, ends in {
            "ar": {"source": 0, "before": "inner_m_axi_ar", "after": "stalled_ar"},
            "r": {"source": 1, "before": "m_axi_r", "after": "inner_m_axi_r"},
            "aw": {"source": 0, "before": "inner_m_axi_aw", "after": "m_axi_aw"},
            "w": {"source": 0, "before": "inner_m_axi_w", "after": "m_axi_w"},
            "b": {"source": 1, "before": "delayed_b", "after": "inner_m_axi_b"},
        }.items()
    ]
    return RANDOM_MODULE + _HARNESS.format(
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


def _salt(name: str) -> str:
    return f"32'h{salt(name):08x}"


_STALLS = """\
  paro_stalls #(.SOURCE({source})) {channel}_stalls (
    .clk(clk),
    .run(running),
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

  {accelerator} accelerator (
{connections}
  );
{recorder}endmodule
"""
