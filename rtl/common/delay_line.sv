// Delay line: delays a word by DEPTH cycles (DEPTH = 0 is a wire).
//
// Purpose: aligns activations, masks and tags with the adder chain. It has no reset and no taps, so that it maps to
// shift-register LUTs.
// Latency: DEPTH cycles.
// Throughput: one word a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module delay_line #(
    parameter WIDTH = 8,
    parameter DEPTH = 1
) (
    input  wire logic             clk_i,
    input  wire logic [WIDTH-1:0] d_i,
    output wire logic [WIDTH-1:0] d_o
);

  generate
    if (DEPTH == 0) begin : gen_wire
      assign d_o = d_i;
    end else begin : gen_shift
      logic [DEPTH*WIDTH-1:0] shift_q;  // oldest word on top
      always_ff @(posedge clk_i) shift_q <= (DEPTH * WIDTH)'({shift_q, d_i});
      assign d_o = shift_q[(DEPTH-1)*WIDTH+:WIDTH];
    end
  endgenerate

endmodule

`default_nettype wire
