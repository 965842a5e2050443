// Requantization of one lane: turns a 32-bit sum into an 8-bit activation (docs/arithmetic.md).
//
// Purpose: y = clamp(((acc + bias) * mult + round) >> shift, out_min, out_max) with round = 1 << (shift - 1), 0 for
// shift 0. It computes the equal form (p >> shift) + p[shift - 1] with p = (acc + bias) * mult, which takes an adder of
// 10 bits instead of 48. acc and bias are int32 (their sum has 33 bits; sum_o is its low 32), mult is 0..32767, shift
// is 0..31, and out_min <= out_max lie inside [-128, 127] or [0, 255]. The clamps are constants of the layer: they must
// not change while a result is in flight. The product is split into 17 + 16 bits times 15, so that each part fits one
// DSP of either family (25 x 18 and 18 x 18).
// Latency: LATENCY = 7 cycles.
// Throughput: one result a cycle, without stalls.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module requantize #(
    parameter  TAG_W   = 1,  // travels beside the data
    localparam LATENCY = 7
) (
    input  wire logic              clk_i,
    input  wire logic              rst_ni,
    input  wire logic              valid_i,
    input  wire logic [31:0]       acc_i,
    input  wire logic [31:0]       bias_i,
    input  wire logic [14:0]       mult_i,
    input  wire logic [4:0]        shift_i,
    input  wire logic [TAG_W-1:0]  tag_i,
    input  wire logic signed [9:0] out_min_i,
    input  wire logic signed [9:0] out_max_i,
    output wire logic              valid_o,
    output wire logic [7:0]        y_o,
    output wire logic [31:0]       sum_o,
    output wire logic [TAG_W-1:0]  tag_o
);

`ifndef YOSYS
  initial if (TAG_W < 1) $fatal(1, "requantize: TAG_W must be at least 1, got %0d", TAG_W);
`endif

  // ---------------------------------------------------------------- 1: bias
  logic [32:0] sum_q;
  logic [14:0] mult_q;
  always_ff @(posedge clk_i) begin
    sum_q  <= {acc_i[31], acc_i} + {bias_i[31], bias_i};
    mult_q <= mult_i;
  end

  // ---------------------------------------------------------------- 2, 3: multiply in two pieces, add them
  logic [31:0] low_q;
  logic signed [30:0] high_q;
  logic [47:0] product_q;
  always_ff @(posedge clk_i) begin
    low_q     <= {15'b0, sum_q[16:0]} * {17'b0, mult_q};
    high_q    <= $signed({{15{sum_q[32]}}, sum_q[32:17]}) * $signed({16'b0, mult_q});
    product_q <= {high_q + $signed({16'b0, low_q[31:17]}), low_q[16:0]};
  end

  // ---------------------------------------------------------------- 4, 5: shift by eights, then by ones
  logic [4:0] shift;   // beside product_q
  logic [2:0] shift_q; // beside coarse_q
  delay_line #(
      .WIDTH(5),
      .DEPTH(3)
  ) u_shift (
      .clk_i(clk_i),
      .d_i  (shift_i),
      .d_o  (shift)
  );

  // The bit below the result's lowest one is the rounding bit: it starts as a zero below the product.
  logic signed [48:0] coarse_q;
  logic signed [17:0] fine_q;
  logic over_q, negative_q;  // coarse_q does not fit 18 bits: then the result is outside -512..511 for every fine shift
  always_ff @(posedge clk_i) begin
    coarse_q   <= $signed({product_q, 1'b0}) >>> {shift[4:3], 3'b0};
    shift_q    <= shift[2:0];
    fine_q     <= $signed(coarse_q[17:0]) >>> shift_q;
    over_q     <= coarse_q[48:17] != {32{coarse_q[48]}};
    negative_q <= coarse_q[48];
  end

  // ---------------------------------------------------------------- 6, 7: round, clamp
  logic outside;  // -512..511
  logic signed [10:0] rounded_q;
  logic below_q, above_q;
  logic [7:0] y_q;
  assign outside = over_q || fine_q[17:10] != {8{fine_q[17]}};
  always_ff @(posedge clk_i) begin
    rounded_q <= {fine_q[10], fine_q[10:1]} + {10'b0, fine_q[0]};
    below_q   <= outside && negative_q;
    above_q   <= outside && !negative_q;
    if (below_q || (!above_q && rounded_q < $signed({out_min_i[9], out_min_i}))) y_q <= out_min_i[7:0];
    else if (above_q || rounded_q > $signed({out_max_i[9], out_max_i})) y_q <= out_max_i[7:0];
    else y_q <= rounded_q[7:0];
  end
  assign y_o = y_q;

  // ---------------------------------------------------------------- what travels beside the data
  logic [LATENCY-1:0] valid_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= {valid_q[LATENCY-2:0], valid_i};
  end
  assign valid_o = valid_q[LATENCY-1];

  delay_line #(
      .WIDTH(32),
      .DEPTH(LATENCY - 1)
  ) u_sum (
      .clk_i(clk_i),
      .d_i  (sum_q[31:0]),
      .d_o  (sum_o)
  );

  delay_line #(
      .WIDTH(TAG_W),
      .DEPTH(LATENCY)
  ) u_tag (
      .clk_i(clk_i),
      .d_i  (tag_i),
      .d_o  (tag_o)
  );

endmodule

`default_nettype wire
