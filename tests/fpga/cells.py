"""A library of a few standard cells."""


def _output(function: str, *inputs: str) -> str:
    """An output pin that every input reaches after the same time."""
    values = (f'{name}(scalar) {{ values ("0.1"); }}' for name in ("cell_rise", "cell_fall"))
    slopes = (f'{name}_transition(scalar) {{ values ("0.1"); }}' for name in ("rise", "fall"))
    times = "\n      ".join((*values, *slopes))
    paths = "".join(
        f'\n      timing() {{\n      related_pin : "{name}";\n      {times}\n      }}'
        for name in inputs
    )
    return f'pin(Y) {{ direction : output;\n      function : "{function}";{paths}\n    }}'


#: Few cells: a flip-flop is as large as 20 inverters.
LIBERTY = f"""
library(few) {{
  time_unit : "1ns";
  capacitive_load_unit (1, pf);
  cell("INV") {{
    area : 1;
    pin(A) {{ direction : input; capacitance : 0.001; }}
    {_output("(!A)", "A")}
  }}
  cell(BIG_BUF) {{
    area : 9;
    pin(A) {{ direction : input; capacitance : 0.009; }}
    {_output("A", "A")}
  }}
  cell(BUF) {{
    area : 2;
    pin(A) {{ direction : input;
      capacitance : 0.002; }}
    {_output("(A)", "A")}
  }}
  cell(NAND) {{
    area : 2;
    pin(A) {{ direction : input; capacitance : 0.001; }}
    pin(B) {{ direction : input; capacitance : 0.001; }}
    {_output("(!(A * B))", "A", "B")}
  }}
  cell(DFF) {{
    area : 20;
    ff(IQ, IQN) {{ clocked_on : "C"; next_state : "D"; }}
    pin(C) {{ direction : input; clock : true; capacitance : 0.001; }}
    pin(D) {{ direction : input; capacitance : 0.001; }}
    pin(Q) {{ direction : output; function : "IQ"; }}
  }}
}}
"""
