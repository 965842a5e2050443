// PE pair: two processing elements (PEs) that share one adder per plane.
//
// Purpose: a PE gates its activation with its 2-bit weight index. The codebook is applied after the adder chain
// (weight_decoder), so a PE has no multiplier. The index of a PE yields three planes: bit 0, bit 1, and both. In each
// plane a pair adds 0, x, y or x + y to the running sum; x + y is computed once for all conv modules. In a signed layer
// it adds 256 more, whatever the indices are (bit 8 of the term is flipped), so no term is negative and the planes are
// lanes of one word that never carry into each other. The sum is registered in every stage, so synthesis folds
// multiplexer and adder into one LUT6 a bit.
// Latency: 1 cycle from x_i/y_i/xy_i/sum_i to sum_o; an index loaded with load_i takes effect in the next cycle.
// Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module pe_pair #(
    parameter PLANES = 3  // 2: without the plane of both bits
) (
    input  wire logic                       clk_i,
    input  wire logic                       load_i,
    input  wire logic [3:0]                 idx_i,     // {index of y, index of x}
    input  wire logic                       signed_i,  // signed layer
    input  wire logic [8:0]                 x_i,       // activations, signed in a signed layer
    input  wire logic [8:0]                 y_i,
    input  wire logic [8:0]                 xy_i,      // x + y
    input  wire logic [PLANES*cq_pkg::SUM_W-1:0] sum_i,     // plane 0 in the lowest bits
    output wire logic [PLANES*cq_pkg::SUM_W-1:0] sum_o
);

  localparam int W = cq_pkg::SUM_W;

  logic [PLANES*W-1:0] gate_x_q, gate_y_q, x, y, xy, offset, sum_q;
  assign x      = {PLANES{W'(x_i)}};
  assign y      = {PLANES{W'(y_i)}};
  assign xy     = {PLANES{W'(xy_i)}};
  assign offset = {PLANES{W'({signed_i, 8'b0})}};

  always_ff @(posedge clk_i) begin
    if (load_i) begin
      gate_x_q <= (PLANES * W)'({{W{&idx_i[1:0]}}, {W{idx_i[1]}}, {W{idx_i[0]}}});
      gate_y_q <= (PLANES * W)'({{W{&idx_i[3:2]}}, {W{idx_i[3]}}, {W{idx_i[2]}}});
    end
    sum_q <= sum_i +
        (offset ^ (gate_x_q & ((gate_y_q & xy) | (~gate_y_q & x)) | (~gate_x_q & gate_y_q & y)));
  end
  assign sum_o = sum_q;

endmodule

`default_nettype wire
