// Serial multiplier: the product of two unsigned numbers by shift and add, clamped to PRODUCT_W bits.
//
// Purpose: computes products of sizes that are known long before they are needed, without a DSP block.
// Latency: product_o is valid COUNT_W + 1 cycles after start_i and keeps its value.
// Throughput: one product in COUNT_W + 1 cycles.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module serial_multiplier #(
    parameter COUNT_W   = 16,  // bits of the factor that is shifted out, one a cycle
    parameter FACTOR_W  = 16,
    parameter PRODUCT_W = 18
) (
    input  wire logic                 clk_i,
    input  wire logic                 start_i,
    input  wire logic [COUNT_W-1:0]   count_i,   // with start_i
    input  wire logic [FACTOR_W-1:0]  factor_i,  // with start_i
    output wire logic [PRODUCT_W-1:0] product_o
);

`ifndef YOSYS
  initial if (PRODUCT_W < FACTOR_W) $fatal(1, "serial_multiplier: PRODUCT_W %0d must be at least FACTOR_W %0d",
      PRODUCT_W, FACTOR_W);
`endif

  logic [COUNT_W-1:0] count_q;
  logic [PRODUCT_W-1:0] factor_q, sum_q;
  logic large_q;    // the shifted factor has lost bits: the product is clamped
  logic clamped_q;
  logic [PRODUCT_W:0] sum;
  assign sum = {1'b0, sum_q} + {1'b0, factor_q};

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      count_q   <= count_i;
      factor_q  <= PRODUCT_W'(factor_i);
      sum_q     <= '0;
      large_q   <= 1'b0;
      clamped_q <= 1'b0;
    end else begin
      count_q  <= count_q >> 1;
      factor_q <= factor_q << 1;
      large_q  <= large_q || factor_q[PRODUCT_W-1];
      if (count_q[0]) begin
        sum_q     <= sum[PRODUCT_W-1:0];
        clamped_q <= clamped_q || large_q || sum[PRODUCT_W];
      end
    end
  end

  assign product_o = clamped_q ? '1 : sum_q;

endmodule

`default_nettype wire
