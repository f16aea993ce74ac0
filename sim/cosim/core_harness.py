"""Verilog around the core that moves beats at the simulator's speed.

The cocotb bench decides which beats go where; the harness does all that would cost a Python call in
every clock:

* an input stream has a *player*: it sends the beats ``first`` .. ``first + count - 1`` of a memory
  that is read from ``<stream>.hex``, from cycle ``after`` on, then reports ``done``;
* an output stream has a *recorder*: it counts beats and, for ``o``, writes them to ``o.hex``;
* both sides of every stream have random geometric stalls, the same under every simulator;
* the contract of the core's output streams is watched: an offered beat stays, and has no X;
* the cycles in which each stage of the core is busy, starved or blocked are counted;
* ``status`` has a bit for everything that the bench must react to, and ``wake`` is their OR.
"""

from typing import Any

from amaranth.hdl import Shape

from gen.names import CORE, module_name
from gen.ports import describe_ports
from paro.config import Config
from rtl.interfaces import activity_layout
from sim.cycles.stalls import RANDOM_MODULE, ROWS, salt
from sim.trace.recorder import core_recorder

__all__ = ["BENCH_TOP", "harness_verilog", "status_bits", "visible_ports"]

#: Flags of `rtl.interfaces.activity_layout`, each of which has a counter in the harness.
ACTIVITIES = Shape.cast(activity_layout()).width
COUNTER_BITS = 32
#: Top module of a co-simulation.
BENCH_TOP = "paro_bench"


def status_bits(config: Config) -> dict[str, int]:
    """Bit numbers of ``status``: one a stream (player done, fetch taken), then the others."""
    streams = [entry["name"] for entry in describe_ports(config)["streams"] if entry["name"] != "o"]
    return {
        name: bit
        for bit, name in enumerate(
            [*streams, "output_goal", "hung", "alarm", "broken", "empty_row"]
        )
    }


def visible_ports(config: Config) -> list[str]:
    """Ports of the harness that the bench uses."""
    return [name for name, _, _ in _bench_ports(config)]


def _bench_ports(config: Config) -> list[tuple[str, str, int]]:
    """Name, direction and width of the harness's ports."""
    streams = describe_ports(config)["streams"]
    ports = [("clk", "input", 1), ("rst", "input", 1), ("stall_seed", "input", 32)]
    for entry in streams:
        name = entry["name"]
        ports.append((f"{name}_stall_rate", "input", 8))
        if entry["direction"] == "in":
            ports += [(f"{name}_{part}", "input", 32) for part in ("first", "count", "after")]
    if ROWS in (entry["name"] for entry in streams):
        ports.append(("row", "output", _width(streams, ROWS)))
    ports += [
        ("output_goal", "input", 32),
        ("idle_limit", "input", 32),
        ("alarm_at", "input", 32),
        ("cycle", "output", 32),
        ("o_beats", "output", 32),
        ("request", "output", _width(streams, "fetch")),
        ("busy", "output", 1),
        ("activity_counts", "output", ACTIVITIES * COUNTER_BITS),
        ("status", "output", len(status_bits(config))),
        ("wake", "output", 1),
    ]
    return ports


def _width(streams: list[dict[str, Any]], name: str) -> int:
    return next(entry["payload"]["width"] for entry in streams if entry["name"] == name)


def harness_verilog(config: Config, depth: int, *, trace: bool = False) -> str:
    """Text of module `BENCH_TOP`, with players of ``depth`` beats, a power of two.

    With ``trace`` it records what `sim.trace` makes a trace of.
    """
    streams = describe_ports(config)["streams"]
    declarations = [
        f"  {direction} {f'[{width - 1}:0] ' if width > 1 else ''}{name}"
        for name, direction, width in _bench_ports(config)
    ]
    connections = [
        f"    .{port}({port})" for port in ("clk", "rst", "busy", "empty_row", "activity")
    ]
    body = []
    for entry in streams:
        name, width = entry["name"], entry["payload"]["width"]
        connections += [
            f"    .{name}__{part}({name}_{part})" for part in ("payload", "valid", "ready")
        ]
        body.append(_STALLS.format(name=name, salt=f"32'h{salt(name):08x}"))
        template = _PLAYER if entry["direction"] == "in" else _RECORDER
        body.append(
            template.format(
                name=name, msb=width - 1, last=depth - 1, address=(depth - 1).bit_length() - 1
            )
        )
    moves = " | ".join(f"{entry['name']}_move" for entry in streams)
    sources = {
        **{entry["name"]: f"{entry['name']}_done" for entry in streams if entry["name"] != "o"},
        "output_goal": "o_move & (o_count + 32'd1 == output_goal)",
        "hung": "idle == idle_limit",
        "alarm": "cycle == alarm_at",
        "broken": "fetch_broken | o_broken",
        "empty_row": "empty_row",
    }
    bits = status_bits(config)
    if ROWS in bits:
        sources["broken"] += f" | {ROWS}_broken"
        body.append(f"  assign row = {ROWS}_payload;")
    status = [f"  assign status[{bits[name]}] = {value};" for name, value in sources.items()]
    return RANDOM_MODULE + _HARNESS.format(
        top=BENCH_TOP,
        core=module_name(config, CORE),
        activities=ACTIVITIES,
        ports=",\n".join(declarations),
        body="\n".join(body),
        moves=moves,
        status="\n".join(status),
        connections=",\n".join(connections),
        recorder=core_recorder("core") if trace else "",
    )


_HARNESS = """\

module {top} (
{ports}
);
  reg [31:0] cycles = 0;
  reg [31:0] idle = 0;
  assign cycle = cycles;
  assign wake = |status;
  always @(posedge clk) begin
    cycles <= cycles + 1;
    idle <= rst | {moves} ? 0 : idle + 1;
  end

{body}
  integer o_file;
  initial o_file = $fopen("o.hex", "w");
  reg [31:0] o_count = 0;
  assign o_beats = o_count;
  assign request = fetch_payload;
  always @(posedge clk)
    if (o_move) begin
      o_count <= o_count + 1;
      $fdisplay(o_file, "%h", o_payload);
    end

{status}

  // Cycles in which each stage was busy, starved, blocked.
  wire empty_row;
  wire [{activities}-1:0] activity;
  genvar i;
  generate
    for (i = 0; i < {activities}; i = i + 1) begin : counters
      reg [31:0] count = 0;
      assign activity_counts[32 * i +: 32] = count;
      always @(posedge clk) count <= rst ? 0 : count + {{31'd0, activity[i]}};
    end
  endgenerate

  {core} core (
{connections}
  );
{recorder}endmodule
"""

_STALLS = """\
  // Stream {name}: a stall begins, and goes on, with probability {name}_stall_rate / 256.
  wire {name}_valid, {name}_ready;
  wire {name}_move = {name}_valid & {name}_ready & ~rst;
  wire [31:0] {name}_random;
  wire {name}_stalls = {name}_random[15:8] < {name}_stall_rate;
  paro_random {name}_generator (
    .clk(clk), .run(~rst), .seed(stall_seed ^ {salt}), .value({name}_random)
  );
"""

_PLAYER = """\
  reg [{msb}:0] {name}_memory [0:{last}];
  initial $readmemh("{name}.hex", {name}_memory);
  reg [31:0] {name}_at = 0;
  reg {name}_stalled = 0;
  wire [31:0] {name}_address = {name}_first + {name}_at;
  wire [{msb}:0] {name}_payload = {name}_memory[{name}_address[{address}:0]];
  wire {name}_arrived = $signed(cycles - {name}_after) >= 0;
  assign {name}_valid = ({name}_at < {name}_count) & {name}_arrived & ~{name}_stalled;
  wire {name}_done = {name}_move & ({name}_at + 32'd1 == {name}_count);
  always @(posedge clk) begin
    if (rst) {name}_at <= 0;
    else if ({name}_move) {name}_at <= {name}_done ? 0 : {name}_at + 1;
    // An offered beat is not withdrawn.
    {name}_stalled <= ~rst & ({name}_move | {name}_stalled) & {name}_stalls;
  end
"""

_RECORDER = """\
  wire [{msb}:0] {name}_payload;
  reg {name}_stalled = 0;
  reg {name}_held = 0;
  reg {name}_broken = 0;
  reg [{msb}:0] {name}_offered = 0;
  assign {name}_ready = ~{name}_stalled;
  wire {name}_done = {name}_move;
  always @(posedge clk) begin
    {name}_stalled <= ~rst & {name}_stalls;
    {name}_held <= {name}_valid & ~{name}_ready & ~rst;
    {name}_offered <= {name}_payload;
    if (~rst & {name}_held & (~{name}_valid | ({name}_payload !== {name}_offered)))
      {name}_broken <= 1;
    if ((rst === 1'b0) & ({name}_move !== 1'b0) & (^{name}_payload === 1'bx)) {name}_broken <= 1;
  end
"""
