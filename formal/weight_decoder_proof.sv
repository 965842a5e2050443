// Weight decoder behind gated sums: sum_o = partial_i + a * codebook[i] for an activation a with index i.
//
// Products of two free operands are beyond a SAT solver, so there is one decoder for each bit of the sums: each power
// of two, and the sign bit; a run of the solver takes BITS of them from bit FIRST on. The three sums enter through
// multipliers and adders only, which are additive in them, so equality on these holds for every sum of activations.
// In a signed layer 2**OFFSET_BIT is added to each sum.
`default_nettype none

module weight_decoder_proof #(
    parameter FIRST      = 0,
    parameter BITS       = 2,
    parameter OFFSET_BIT = 13
) (
    input wire logic                     clk_i,
    input wire logic [1:0]               idx_i,
    input wire logic [cq_pkg::ACC_W-1:0] partial_i
);

  localparam int W = cq_pkg::ACC_W;
  localparam int LATENCY = 5;
  (* anyconst *) logic [3:1][7:0] codebook;
  (* anyconst *) logic signed_layer;
  logic [2:0] age_q = '0;
  logic [LATENCY-1:0][1:0] idx_q;
  logic [2:0][W-1:0] partial_q;
  always_ff @(posedge clk_i) begin
    idx_q     <= {idx_q[LATENCY-2:0], idx_i};
    partial_q <= {partial_q[1:0], partial_i};
    age_q     <= (age_q == 3'd7) ? age_q : age_q + 3'd1;
  end

  logic [3:0][9:0] weights;
  logic [W-1:0] w;
  assign weights = {{{2{codebook[3][7]}}, codebook[3]}, {{2{codebook[2][7]}}, codebook[2]},
      {{2{codebook[1][7]}}, codebook[1]}, 10'd0};
  assign w = W'($signed(weights[idx_q[LATENCY-1]]));

  genvar k, p;
  generate
    for (k = FIRST; k < FIRST + BITS; k = k + 1) begin : g_bit
      localparam logic [cq_pkg::SUM_W-1:0] A = cq_pkg::SUM_W'(1) << k;
      localparam logic SIGN = k == OFFSET_BIT;  // of the sums of a signed layer
      logic [2:0] gates;
      logic [3*cq_pkg::SUM_W-1:0] sums;
      logic [W-1:0] sum, product;
      assign gates = {&idx_i, idx_i};
      for (p = 0; p < 3; p = p + 1) begin : g_plane
        // plain, or with the offset: the sign bit of a negative sum is then 0
        assign sums[p*cq_pkg::SUM_W+:cq_pkg::SUM_W] = !signed_layer ? (gates[p] ? A : '0) : SIGN ? (gates[p] ? '0 : A) :
            (gates[p] ? A : '0) | cq_pkg::SUM_W'(1) << OFFSET_BIT;
      end
      weight_decoder #(.OFFSET_BIT(OFFSET_BIT)) u_dut (
          .clk_i(clk_i), .signed_i(signed_layer), .sum_i(sums), .partial_i(partial_i), .sum_o(sum),
          .factor_i({weights[3] - weights[1] - weights[2], weights[2], weights[1]})
      );
      assign product = (SIGN && signed_layer) ? -(w << k) : w << k;
      always @(*) if (age_q >= 3'd6) assert (sum == partial_q[2] + product);
    end
  endgenerate
  always @(*) cover (age_q >= 3'd6 && idx_q[LATENCY-1] == 2'd3 && w[7]);

endmodule

`default_nettype wire
