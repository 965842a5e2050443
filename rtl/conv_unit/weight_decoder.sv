// Weight decoder: applies the layer's codebook to the three plane sums of a segment.
//
// Purpose: weight index i selects codebook entry w_i (w_0 = 0). The PEs add the activations by index bit: S0 where bit
// 0 is set, S1 where bit 1 is set, S2 where both are. The weighted sum is therefore w1*S0 + w2*S1 + (w3 - w1 - w2)*S2.
// Latency: 4 cycles from sum_i to product_o (two in the multipliers); codebook_i must be stable two cycles before the
// first sum.
// Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module weight_decoder (
    input  wire logic                              clk_i,
    input  wire logic [2:0][7:0]                   codebook_i,  // w3, w2, w1 (signed)
    input  wire logic [2:0][cq_pkg::SUM_W-1:0]     sum_i,       // S2, S1, S0 (signed)
    output wire logic [cq_pkg::PRODUCT_W-1:0]      product_o    // signed
);

  // At most 36 activations of 255 in a segment: 9180 * 383 and the sums of three such products fit.
  localparam int FULL_W = cq_pkg::PRODUCT_W;

  logic signed [9:0] both_q;  // w3 - w1 - w2: -382..383
  logic signed [FULL_W-1:0] m0_q, m1_q, m2_q, r0_q, r1_q, r2_q;
  logic [cq_pkg::PRODUCT_W-1:0] a_q, b_q, y_q;

  always_ff @(posedge clk_i) begin
    both_q <= 10'($signed(codebook_i[2])) - 10'($signed(codebook_i[0])) - 10'($signed(codebook_i[1]));
    m0_q <= FULL_W'($signed(sum_i[0])) * FULL_W'($signed(codebook_i[0]));
    m1_q <= FULL_W'($signed(sum_i[1])) * FULL_W'($signed(codebook_i[1]));
    m2_q <= FULL_W'($signed(sum_i[2])) * FULL_W'(both_q);
    r0_q <= m0_q;
    r1_q <= m1_q;
    r2_q <= m2_q;
    a_q <= r0_q + r1_q;
    b_q <= r2_q;
    y_q <= a_q + b_q;
  end

  assign product_o = y_q;

endmodule

`default_nettype wire
