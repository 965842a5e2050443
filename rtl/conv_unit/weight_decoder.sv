// Weight decoder: applies the layer's codebook to the three plane sums of a segment and adds a partial sum.
//
// Purpose: weight index i selects codebook entry w_i (w_0 = 0). The PEs add the activations by index bit: S0 where bit
// 0 is set, S1 where bit 1 is set, S2 where both are. The weighted sum is therefore w1*S0 + w2*S1 + (w3 - w1 - w2)*S2.
// With PLANES = 2 there is no S2: w3 is w1 + w2.
// In a signed layer each plane sum is too large by 2**OFFSET_BIT (cq_pkg): that bit flipped is a two's complement sum.
// One multiply-add a plane, in a chain, with the registers of a DSP slice: operand, product, sum.
// Latency: 5 cycles from sum_i to sum_o, 3 from partial_i, which comes 2 cycles after sum_i.
// Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module weight_decoder #(
    parameter OFFSET_BIT = 12,
    parameter PLANES     = 3
) (
    input  wire logic                             clk_i,
    input  wire logic                             signed_i,   // signed layer
    input  wire logic [PLANES-1:0][cq_pkg::FACTOR_W-1:0] factor_i,  // w3 - w1 - w2, w2, w1 (signed)
    input  wire logic [PLANES-1:0][cq_pkg::SUM_W-1:0] sum_i,      // S2, S1, S0; less than 2**(OFFSET_BIT + 1)
    input  wire logic [cq_pkg::ACC_W-1:0]         partial_i,
    output wire logic [cq_pkg::ACC_W-1:0]         sum_o
);

`ifndef YOSYS
  initial if (PLANES != 2 && PLANES != 3) $fatal(1, "weight_decoder: PLANES must be 2 or 3, got %0d", PLANES);
  initial if (OFFSET_BIT < 1 || OFFSET_BIT >= cq_pkg::SUM_W) $fatal(1,
      "weight_decoder: OFFSET_BIT must be 1..%0d, got %0d", cq_pkg::SUM_W - 1, OFFSET_BIT);
`endif

  localparam int A_W = OFFSET_BIT + 2;
  localparam int M_W = A_W + cq_pkg::FACTOR_W;

  logic [PLANES:0][cq_pkg::ACC_W-1:0] chain;
  assign chain[0] = partial_i;

  genvar p;
  generate
    for (p = 0; p < PLANES; p = p + 1) begin : gen_plane
      logic signed [A_W-1:0] operand, operand_q;
      logic signed [M_W-1:0] product_q;
      logic [cq_pkg::ACC_W-1:0] sum_q;
      delay_line #(
          .WIDTH(A_W),
          .DEPTH(p)
      ) u_delay (
          .clk_i(clk_i),
          .d_i  ({signed_i && !sum_i[p][OFFSET_BIT], sum_i[p][OFFSET_BIT] ^ signed_i, sum_i[p][OFFSET_BIT-1:0]}),
          .d_o  (operand)
      );
      always_ff @(posedge clk_i) begin
        operand_q <= operand;
        product_q <= M_W'(operand_q) * M_W'($signed(factor_i[p]));
        sum_q     <= chain[p] + cq_pkg::ACC_W'(product_q);
      end
      assign chain[p+1] = sum_q;
    end
  endgenerate

  delay_line #(
      .WIDTH(cq_pkg::ACC_W),
      .DEPTH(3 - PLANES)
  ) u_sum (
      .clk_i(clk_i),
      .d_i  (chain[PLANES]),
      .d_o  (sum_o)
  );

endmodule

`default_nettype wire
