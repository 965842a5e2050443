"""Puts a block between shift registers, so that it is placed and routed without hundreds of pins.

The harness has four pins. A shift register of flip-flops drives every input of the block; a
second one takes every output and shifts it out. All paths of the block thus begin and end at
flip-flops, and its own paths bound the clock.
"""

from __future__ import annotations

from dataclasses import dataclass

NAME = "synth_harness"
_TEMPLATE = """\
module {name} (input wire clk_i, input wire serial_i, input wire take_i, output wire serial_o);
  reg [{n_in}:0] in_q;
  reg [{n_out}:0] out_q;
  wire [{n_out}:0] outputs;
  always @(posedge clk_i) begin
    in_q  <= {{in_q[{n_in}-1:0], serial_i}};
    out_q <= take_i ? outputs : {{out_q[{n_out}-1:0], 1'b0}};
  end
  assign serial_o = out_q[{n_out}];
  assign outputs[{n_out}] = 1'b0;
  {module} u_block (
{connections}
  );
endmodule
"""


@dataclass(frozen=True)
class Port:
    """A port of a block: direction `input` or `output`, width in bits."""

    name: str
    direction: str
    width: int


def harness(module: str, ports: list[Port], clock: str) -> str:
    """Verilog of the harness around `module`, all of whose flip-flops run on `clock`."""
    at = {"input": 0, "output": 0}
    connections = []
    for port in ports:
        if port.name == clock:
            connections.append(f"    .{port.name}(clk_i)")
            continue
        first = at[port.direction]
        at[port.direction] += port.width
        net = "in_q" if port.direction == "input" else "outputs"
        connections.append(f"    .{port.name}({net}[{first}+:{port.width}])")
    return _TEMPLATE.format(
        name=NAME,
        module=module,
        n_in=max(at["input"], 1),
        n_out=max(at["output"], 1),
        connections=",\n".join(connections),
    )
