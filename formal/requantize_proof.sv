// Output stage: y = clamp((p + round) >> shift, out_min, out_max) with p = (acc + bias) * mult, and sum_o = acc + bias.
//
// Two proofs over all values.  CUT = 1: the register of p is a free input, and what follows it equals the contract's
// formula with 64 bits. CUT = 0: the register of p holds 2^17 * (high part of acc + bias) * mult + (low part) * mult,
// which is (acc + bias) * mult.
`default_nettype none

module requantize_proof #(
    parameter CUT = 1
) (
    input wire logic        clk_i,
    input wire logic        rst_ni,
    input wire logic        valid_i,
    input wire logic [31:0] acc_i,
    input wire logic [31:0] bias_i,
    input wire logic [14:0] mult_i,
    input wire logic [4:0]  shift_i,
    input wire logic [2:0]  tag_i
);

  (* anyconst *) logic signed [9:0] out_min;
  (* anyconst *) logic signed [9:0] out_max;
  logic valid;
  logic [7:0] y;
  logic [31:0] sum;
  logic [2:0] tag;

  requantize #(.TAG_W(3)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .valid_i(valid_i), .acc_i(acc_i), .bias_i(bias_i), .mult_i(mult_i),
      .shift_i(shift_i), .tag_i(tag_i),
      .out_min_i(out_min), .out_max_i(out_max), .valid_o(valid), .y_o(y), .sum_o(sum), .tag_o(tag)
  );
  (* hierconn *) logic [47:0] \u_dut.product_q ;
  (* hierconn *) logic [32:0] \u_dut.sum_q ;
  (* hierconn *) logic [14:0] \u_dut.mult_q ;
  (* hierconn *) logic [31:0] \u_dut.low_q ;
  (* hierconn *) logic signed [30:0] \u_dut.high_q ;

  // inputs of 1 to 7 cycles ago, products of 1 to 4 cycles ago
  logic [7*5-1:0] shifts_q;
  logic [7*33-1:0] sums_q;
  logic [7*4-1:0] tags_q;
  logic [14:0] mults_q;
  logic [4*48-1:0] products_q;
  logic [3:0] age_q = '0;
  logic [2:0] calm_q = '0;  // cycles without reset, up to 7
  always_ff @(posedge clk_i) begin
    shifts_q   <= {shifts_q[6*5-1:0], shift_i};
    sums_q     <= {sums_q[6*33-1:0], {acc_i[31], acc_i} + {bias_i[31], bias_i}};
    tags_q     <= {tags_q[6*4-1:0], valid_i, tag_i};
    mults_q    <= mult_i;
    products_q <= {products_q[3*48-1:0], \u_dut.product_q };
    age_q      <= (age_q == 4'd15) ? age_q : age_q + 4'd1;
    calm_q     <= !rst_ni ? '0 : (calm_q == 3'd7) ? calm_q : calm_q + 3'd1;
  end

  logic signed [63:0] p, round, scaled;
  logic [4:0] s;
  assign s      = shifts_q[6*5+:5];
  assign p      = {{16{products_q[4*48-1]}}, products_q[3*48+:48]};
  assign round  = (s == '0) ? 64'sd0 : 64'sd1 <<< (s - 5'd1);
  assign scaled = (p + round) >>> s;

  logic [7:0] expected;
  always @(*) begin
    if (scaled < 64'(out_min)) expected = out_min[7:0];
    else if (scaled > 64'(out_max)) expected = out_max[7:0];
    else expected = scaled[7:0];
  end

  always @(*) begin
    assume (out_min <= out_max);
    assume ((out_min >= -10'sd128 && out_max <= 10'sd127) || (out_min >= 10'sd0 && out_max <= 10'sd255));
  end

  generate
    if (CUT != 0) begin : g_formula
      always @(*) begin
        if (age_q >= 4'd7) assert (y == expected);
        cover (age_q >= 4'd7 && scaled > 64'(out_min) && scaled < 64'(out_max) && s == 5'd31);
        cover (age_q >= 4'd7 && scaled < 64'(out_min));
        cover (age_q >= 4'd7 && scaled > 64'(out_max));
      end
    end else begin : g_product
      // register by register: a solver does not find two multipliers equal that have different operands
      logic [31:0] low_q, past_low_q;
      logic signed [30:0] high_q, past_high_q;
      always_ff @(posedge clk_i) begin
        low_q       <= {15'b0, \u_dut.sum_q [16:0]} * {17'b0, \u_dut.mult_q };
        high_q      <= $signed({{15{\u_dut.sum_q [32]}}, \u_dut.sum_q [32:17]}) * $signed({16'b0, \u_dut.mult_q });
        past_low_q  <= \u_dut.low_q ;
        past_high_q <= \u_dut.high_q ;
      end
      always @(*) begin
        if (age_q >= 4'd1) assert (\u_dut.sum_q == sums_q[32:0] && \u_dut.mult_q == mults_q[14:0]);
        if (age_q >= 4'd1) assert (\u_dut.low_q == low_q && \u_dut.high_q == high_q);
        if (age_q >= 4'd1) assert (\u_dut.product_q == ({{17{past_high_q[30]}}, past_high_q} <<< 17) + {16'b0,
            past_low_q});
        if (age_q >= 4'd7) begin
          assert (sum == sums_q[6*33+:32]);
          assert (tag == tags_q[6*4+:3]);
        end
        if (age_q >= 4'd7 && calm_q == 3'd7) assert (valid == tags_q[6*4+3]);
        cover (age_q >= 4'd7 && calm_q == 3'd7 && valid);
      end
    end
  endgenerate

endmodule

`default_nettype wire
