// Weight decoder behind gated sums: for an activation a with index i, product_o = a * codebook[i], codebook[0] = 0.
//
// Products of two free operands are beyond a SAT solver, so there is one decoder for each bit of the sums: each power
// of two, and the sign bit; a run of the solver takes BITS of them from bit FIRST on. The three sums enter through
// multipliers and adders only, which are additive in them, so equality on these holds for every sum of activations.
`default_nettype none

module weight_decoder_proof #(
    parameter FIRST = 0,
    parameter BITS  = 3
) (
    input wire logic       clk_i,
    input wire logic [1:0] idx_i
);

  localparam int W = cq_pkg::PRODUCT_W;
  (* anyconst *) logic [2:0][7:0] codebook;
  logic [2:0] age_q = '0;
  logic [3:0][1:0] idx_q;
  always_ff @(posedge clk_i) begin
    idx_q <= {idx_q[2:0], idx_i};
    age_q <= (age_q == 3'd7) ? age_q : age_q + 3'd1;
  end

  logic [7:0] w;
  always @(*) begin
    case (idx_q[3])
      2'd0: w = '0;
      2'd1: w = codebook[0];
      2'd2: w = codebook[1];
      default: w = codebook[2];
    endcase
  end

  genvar k;
  generate
    for (k = FIRST; k < FIRST + BITS; k = k + 1) begin : g_bit
      localparam logic [cq_pkg::SUM_W-1:0] A = cq_pkg::SUM_W'(1) << k;
      logic [3*cq_pkg::SUM_W-1:0] sums;
      logic [W-1:0] product, expected;
      assign sums = {{cq_pkg::SUM_W{&idx_i}} & A, {cq_pkg::SUM_W{idx_i[1]}} & A, {cq_pkg::SUM_W{idx_i[0]}} & A};
      weight_decoder u_dut (.clk_i(clk_i), .codebook_i(codebook), .sum_i(sums), .product_o(product));
      assign expected = (k == cq_pkg::SUM_W - 1) ? -({{(W - 8){w[7]}}, w} << k) : {{(W - 8){w[7]}}, w} << k;
      always @(*) if (age_q >= 3'd5) assert (product == expected);
    end
  endgenerate
  always @(*) cover (age_q >= 3'd5 && idx_q[3] == 2'd3 && w[7]);

endmodule

`default_nettype wire
