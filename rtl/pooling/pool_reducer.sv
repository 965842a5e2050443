// Pool reducer: the maximum or the sum over the reads of a window.
//
// Purpose: keeps the running maxima of 32 channels and the running sums of NUM_MODULES channels, of the data or of
// their products with factor_i. Sign and factor come with the data. valid_i and first_i come with the data, too, and
// with products one cycle later.
// Latency: 1 cycle from the last read data of a window to its result, 2 with products; the result stays for one cycle.
// Throughput: one read a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module pool_reducer #(
    parameter NUM_MODULES = 4
) (
    input  wire logic                                      clk_i,
    input  wire logic                                      products_i,  // constant from a cycle before the data
    input  wire logic                                      signed_i,
    input  wire logic [14:0]                               factor_i,
    input  wire logic                                      valid_i,
    input  wire logic                                      first_i,  // of a window
    input  wire logic [7:0][31:0]                          data_i,
    output wire logic [7:0][31:0]                          max_o,
    output wire logic [NUM_MODULES-1:0][cq_pkg::ACC_W-1:0] sum_o
);

`ifndef YOSYS
  initial if (NUM_MODULES != 4 && NUM_MODULES != 8 && NUM_MODULES != 16)
    $fatal(1, "pool_reducer: NUM_MODULES must be 4, 8 or 16, got %0d", NUM_MODULES);
`endif

  localparam int FACTOR_W = 15;
  localparam int PRODUCT_W = 9 + FACTOR_W;

  logic [31:0][7:0] channel;
  assign channel = data_i;

  genvar c;
  generate
    for (c = 0; c < 32; c = c + 1) begin : gen_max
      logic [7:0] max_q;
      logic larger;
      // Signed numbers are in the order of unsigned ones once their top bit is inverted.
      assign larger = {channel[c][7] ^ signed_i, channel[c][6:0]} > {max_q[7] ^ signed_i, max_q[6:0]};
      always_ff @(posedge clk_i) if (valid_i && (first_i || larger)) max_q <= channel[c];
      assign max_o[c/4][8*(c%4)+:8] = max_q;
    end
    for (c = 0; c < NUM_MODULES; c = c + 1) begin : gen_sum
      logic products_q;  // the sum's own copy, placed near to it
      (* keep *) always_ff @(posedge clk_i) products_q <= products_i;
      logic [cq_pkg::ACC_W-1:0] sum_q;
      logic signed [8:0] value;
      logic signed [PRODUCT_W-1:0] product_q, term;
      assign value = {signed_i && channel[c][7], channel[c]};
      assign term  = products_q ? product_q : PRODUCT_W'(value);
      always_ff @(posedge clk_i) begin
        product_q <= value * $signed({1'b0, factor_i});
        if (valid_i) sum_q <= (first_i ? '0 : sum_q) + cq_pkg::ACC_W'(term);
      end
      assign sum_o[c] = sum_q;
    end
  endgenerate

endmodule

`default_nettype wire
