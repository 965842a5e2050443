// Single processing element (PE): the 25th of an array, which has no partner.
//
// Purpose: does the same as pe_pair for one activation. In a signed layer it adds 128 more.
// Latency: 1 cycle from x_i/sum_i to sum_o; an index loaded with load_i takes effect in the next cycle.
// Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module pe #(
    parameter PLANES = 3  // 2: without the plane of both bits
) (
    input  wire logic                       clk_i,
    input  wire logic                       load_i,
    input  wire logic [1:0]                 idx_i,
    input  wire logic                       signed_i,  // signed layer
    input  wire logic [7:0]                 x_i,
    input  wire logic [PLANES*cq_pkg::SUM_W-1:0] sum_i,     // plane 0 in the lowest bits
    output wire logic [PLANES*cq_pkg::SUM_W-1:0] sum_o
);

  localparam int W = cq_pkg::SUM_W;

  logic [PLANES*W-1:0] gate_q, offset, sum_q;
  assign offset = {PLANES{W'({signed_i, 7'b0})}};

  always_ff @(posedge clk_i) begin
    if (load_i) gate_q <= (PLANES * W)'({{W{&idx_i}}, {W{idx_i[1]}}, {W{idx_i[0]}}});
    sum_q <= sum_i + (offset ^ (gate_q & {PLANES{W'(x_i)}}));
  end
  assign sum_o = sum_q;

endmodule

`default_nettype wire
