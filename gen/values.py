"""Values that follow from a configuration, and formats, for those who write a host or a bench."""

from paro.config import Config, formats
from rtl.bus import axi, read_master, write_master

__all__ = ["derived_values", "formats_markdown", "port_markdown"]

#: Properties of `Config` that a host or a bench needs, and what they are.
_DERIVED = {
    "load_tokens": "tokens side by side in a beat of Q and K; scales lie in groups of so many",
    "load_bytes": "bytes of a beat of Q, K or V; codes lie in whole units of so many",
    "output_words": "words of a beat of O",
    "layer_tokens": "tokens of a layer that make a block",
    "chunks_max": "most chunks of `head_dim` input channels of a layer",
    "wave_rows": "block rows in progress in all cores: those that share loads of K and V",
    "key_scale_shift": "YS: right shift of a score times its key's scale",
}
#: Signals and reset of the accelerator, alone and in the shell.
_PLAIN = (
    "* Signals that are not there: AxLOCK, AxQOS, AxREGION (tie 0), WID, and all AxUSER.",
    "* `s_axil`: AXI4-Lite, no AxPROT (any access is served alike).",
    "* `rst` is active high and synchronous; `paro generate --aresetn` has `aresetn` in its place, "
    "and all signals.",
)
_SHELL = (
    "* Every signal of AXI4 is there but AxUSER, WUSER, RUSER and BUSER; AxLOCK, AxQOS and "
    "AxREGION are 0.",
    "* `s_axil`: AXI4-Lite; AxPROT is ignored (any access is served alike).",
    "* `aresetn` falls at any time: all VALID that go out, and READY of `s_axil`, fall with it. "
    "They can rise three cycles after it rose, in step with `aclk`.",
    "* Attributes X_INTERFACE_INFO and X_INTERFACE_PARAMETER tell Vivado's packager of IP which "
    "port belongs to which interface; others ignore them.",
)


def derived_values(config: Config) -> dict[str, tuple[int, str]]:
    """Value and meaning, by name."""
    return {name: (getattr(config, name), meaning) for name, meaning in _DERIVED.items()}


def formats_markdown(config: Config) -> list[str]:
    """Lines of a page: derived values, then what the numbers in memory and streams mean."""
    widths = ", ".join(
        f"{code}: {bits} bit" if bits else f"{code}: skipped"
        for code, bits in enumerate(formats.CODE_BITS)
    )
    return [
        "## Values",
        "",
        "| name | value | meaning |",
        "|---|---|---|",
        *(
            f"| {name} | {value} | {meaning} |"
            for name, (value, meaning) in derived_values(config).items()
        ),
        "",
        "## Formats",
        "",
        f"* Code of a block: {widths}.",
        f"* Q, K, V, a layer's inputs and weights: INT8, -{formats.OPERAND_MAX} .. "
        f"{formats.OPERAND_MAX}.",
        f"* Scale of a query `mq`: {formats.QUERY_SCALE_BITS} bits unsigned, at least 1; of a key "
        f"`mk`: {formats.KEY_SCALE_BITS} bits unsigned, at least 1; in memory a word of "
        f"{formats.SCALE_BYTES} bytes each. With S = Q . K and >> a shift that rounds half up, "
        f"((S * mk >> {config.key_scale_shift}) * mq) >> {formats.QUERY_SCALE_SHIFT} is the base-2 "
        f"logit, with {formats.LOGIT_FRAC} fractional bits.",
        f"* O of a head: signed, {formats.OUT_BITS} bits, {formats.OUT_FRAC} of them fractional, "
        "in units of the scale of V, which the device does not know.",
        f"* A layer's output: ((A >> sum_shift) * (mx * mw >> {formats.LAYER_SCALE_SHIFT}) >> "
        "out_shift) + bias, saturated to 16 bits, A the sum of inputs times weights; only the "
        f"third shift rounds. `mx` is a token's scale ({formats.QUERY_SCALE_BITS} bits), `mw` an "
        f"output channel's ({formats.KEY_SCALE_BITS} bits), and above it in the same word its "
        f"bias, signed, {formats.OUT_BITS} bits.",
        "* Order of fetches: Q of a block row before its first block (of a layer: with each "
        "block), K of a block, then its V; in the core's order of blocks.",
    ]


def port_markdown(config: Config, *, aresetn: bool = False) -> list[str]:
    """Lines of a page: how the accelerator's buses behave."""
    beat = config.axi_bits // 8
    return [
        "## AXI",
        "",
        f"* `m_axi`: AXI4, beats of {beat} bytes (AxSIZE = {beat.bit_length() - 1}), AxBURST = INCR"
        f", AxID = 0, AxCACHE = 0b{axi.CACHE_BUFFERABLE:04b}, AxPROT = 0. Bursts do not cross "
        f"4 KiB: reads of up to {read_master.BURST_BEATS} beats, {read_master.OUTSTANDING} under "
        f"way at most; writes of up to {write_master.BURST_BEATS} beats, "
        f"{write_master.OUTSTANDING}. Data of a write is there when its address is offered. "
        "Reads may be answered as late as the memory likes, in order.",
        *(_SHELL if aresetn else _PLAIN),
    ]
