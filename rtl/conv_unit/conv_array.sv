// Reconfigurable convolutional array: 25 PEs in three segments of eight (four pairs each) and a single PE.
//
// Purpose: adds its 25 gated activations to the sums of the upstream arrays. The conv mode gives a segment its meaning
// (window_generator): one horizontal tap of eight channels, or one of three output channels. The arrays of a conv
// module form one chain, so the activations of each stage arrive one cycle after those of the stage before.
// window_generator skews them, and load_i with them. Stage 0 is the single PE, which adds to segment 0; stages 1..4 are
// pairs 0..3 of each segment. PEs are numbered 8*segment + channel; PE 24 is the single one. idx_i holds two bits a PE,
// in the order of the PE numbers.
// Latency: 5 cycles from sum_i to sum_o.
// Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module conv_array #(
    parameter PLANES = 3
) (
    input  wire logic                               clk_i,
    input  wire logic [4:0]                         load_i,
    input  wire logic [2*program_pkg::PES-1:0]      idx_i,
    input  wire logic                               signed_i,  // signed layer
    input  wire logic [7:0]                         single_i,  // activation of PE 24
    input  wire logic [11:0][8:0]                   x_i,       // pair 4*segment + k
    input  wire logic [11:0][8:0]                   y_i,
    input  wire logic [11:0][8:0]                   xy_i,
    input  wire logic [2:0][PLANES*cq_pkg::SUM_W-1:0] sum_i,     // [segment], plane 0 in the lowest bits
    output wire logic [2:0][PLANES*cq_pkg::SUM_W-1:0] sum_o
);

  logic [2:0][3:0][8:0] x, y, xy;  // [segment][pair]
  assign x  = x_i;
  assign y  = y_i;
  assign xy = xy_i;

  genvar s;
  generate
    for (s = 0; s < 3; s = s + 1) begin : gen_segment
      conv_segment #(
          .SINGLE((s == 0) ? 1 : 0),
          .PLANES(PLANES)
      ) u_segment (
          .clk_i   (clk_i),
          .load_i  (load_i),
          .idx_i   ({idx_i[49:48], idx_i[16*s+:16]}),
          .signed_i(signed_i),
          .single_i(single_i),
          .x_i     (x[s]),
          .y_i     (y[s]),
          .xy_i    (xy[s]),
          .sum_i   (sum_i[s]),
          .sum_o   (sum_o[s])
      );
    end
  endgenerate

endmodule

`default_nettype wire
