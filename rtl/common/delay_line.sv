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

  genvar s;
  generate
    if (DEPTH == 0) begin : gen_wire
      assign d_o = d_i;
    end else begin : gen_shift
      // A register a stage: Verilator would copy one register of all of them twice a cycle.
      logic [(DEPTH+1)*WIDTH-1:0] stage;
      assign stage[WIDTH-1:0] = d_i;
      for (s = 0; s < DEPTH; s = s + 1) begin : gen_stage
        logic [WIDTH-1:0] word_q;
        always_ff @(posedge clk_i) word_q <= stage[s*WIDTH+:WIDTH];
        assign stage[(s+1)*WIDTH+:WIDTH] = word_q;
      end
      assign d_o = stage[DEPTH*WIDTH+:WIDTH];
    end
  endgenerate

endmodule

`default_nettype wire
