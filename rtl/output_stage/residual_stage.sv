// Residual stage: adds a second tensor to the results of a convolution before they are written.
//
// Purpose: asks the feature buffer for the second tensor's quads at the place of each step of results, multiplies
// both by their factors, and requantizes the sum (docs/arithmetic.md, Add). Half of the lanes serve a step in two
// cycles: the lower half of its results first. The requests go through the feature buffer's write port. They never
// meet a write: steps come in cycles of one parity, and LATENCY is odd.
// Latency: LATENCY = 21 cycles from a result to its sum; rd_valid_o comes with the result.
// Throughput: a step of NUM_MODULES results in two cycles.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module residual_stage #(
    parameter  NUM_MODULES = 4,
    localparam QUADS       = NUM_MODULES / 4,
    localparam A_W         = program_pkg::QUAD_ADDR_W,
    localparam LATENCY     = cq_pkg::RESIDUAL
) (
    input  wire logic                                       clk_i,
    input  wire logic                                       rst_ni,
    input  wire logic [program_pkg::RECORD_WORDS-1:0][63:0] desc_i,    // constant while results are in flight
    // results of the convolution and their place in the output
    input  wire logic                                       valid_i,   // never in two cycles that follow each other
    input  wire logic [NUM_MODULES-1:0][7:0]                y_i,
    input  wire logic [A_W-1:0]                             addr_i,
    input  wire logic [QUADS-1:0]                           mask_i,
    // feature buffer
    output wire logic                                       rd_valid_o,
    output wire logic [A_W-1:0]                             rd_addr_o,
    input  wire logic [NUM_MODULES-1:0][7:0]                rd_data_i, // cq_pkg::PORT_LATENCY cycles later
    // sums
    output wire logic                                       valid_o,
    output wire logic [NUM_MODULES-1:0][7:0]                y_o,
    output wire logic [A_W-1:0]                             addr_o,
    output wire logic [QUADS-1:0]                           mask_o
);

  localparam int HALF = NUM_MODULES / 2;  // lanes
  localparam int READ = cq_pkg::PORT_LATENCY + 1;  // into the register behind the feature buffer's data

`ifndef YOSYS
  initial if (NUM_MODULES != 4 && NUM_MODULES != 8 && NUM_MODULES != 16)
    $fatal(1, "residual_stage: NUM_MODULES must be 4, 8 or 16, got %0d", NUM_MODULES);
`endif

  // ---------------------------------------------------------------- the layer
  logic own_signed, other_signed;  // a tensor is signed if its lower clamp is negative
  logic [14:0] factor, other_factor;
  logic signed [9:0] out_min;
  logic [A_W-1:0] out_base, other_base, offset_q;  // from the output to the second tensor
  assign out_min      = program_pkg::descriptor_out_min(desc_i);
  assign own_signed   = out_min < 0;
  assign other_signed = program_pkg::descriptor_other_signed(desc_i);
  assign factor       = program_pkg::descriptor_mult(desc_i);
  assign other_factor = program_pkg::descriptor_other_mult(desc_i);
  assign out_base     = program_pkg::descriptor_out_base(desc_i);
  assign other_base   = program_pkg::descriptor_other_base(desc_i);
  always_ff @(posedge clk_i) offset_q <= other_base - out_base;

  assign rd_valid_o = valid_i;
  assign rd_addr_o  = addr_i + offset_q;

  // ---------------------------------------------------------------- what travels beside the sums
  logic [LATENCY-1:0] valid_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= {valid_q[LATENCY-2:0], valid_i};
  end
  assign valid_o = valid_q[LATENCY-1];

  delay_line #(
      .WIDTH(A_W + QUADS),
      .DEPTH(LATENCY)
  ) u_place (
      .clk_i(clk_i),
      .d_i  ({mask_i, addr_i}),
      .d_o  ({mask_o, addr_o})
  );

  logic [NUM_MODULES-1:0][7:0] rd_data_q, y;  // with the second tensor's data
  always_ff @(posedge clk_i) rd_data_q <= rd_data_i;
  delay_line #(
      .WIDTH(8 * NUM_MODULES),
      .DEPTH(READ)
  ) u_y (
      .clk_i(clk_i),
      .d_i  (y_i),
      .d_o  (y)
  );

  // ---------------------------------------------------------------- lanes
  logic low;  // the lower half of a step; the upper half follows
  assign low = valid_q[READ-1];

  logic [HALF-1:0] unused_valid, unused_tag;
  logic [HALF-1:0][31:0] unused_sum;
  logic [HALF-1:0][7:0] sum, low_q;
  logic [NUM_MODULES-1:0][7:0] y_q;
  genvar m;
  generate
    for (m = 0; m < HALF; m = m + 1) begin : gen_lane
      logic [7:0] high_q, other_high_q, own_q, other_q;
      logic signed [cq_pkg::PRODUCT_W-1:0] product_q, other_product_q;
      always_ff @(posedge clk_i) begin
        high_q          <= y[HALF+m];
        other_high_q    <= rd_data_q[HALF+m];
        own_q           <= low ? y[m] : high_q;
        other_q         <= low ? rd_data_q[m] : other_high_q;
        product_q       <= $signed({own_signed && own_q[7], own_q}) * $signed({1'b0, factor});
        other_product_q <= $signed({other_signed && other_q[7], other_q}) * $signed({1'b0, other_factor});
      end

      requantize u_requantize (
          .clk_i    (clk_i),
          .rst_ni   (rst_ni),
          .valid_i  (1'b0),
          .acc_i    (32'(product_q)),
          .bias_i   (32'(other_product_q)),
          .mult_i   (15'd1),
          .shift_i  (program_pkg::descriptor_sum_shift(desc_i)),
          .tag_i    (1'b0),
          .out_min_i(program_pkg::descriptor_sum_min(desc_i)),
          .out_max_i(program_pkg::descriptor_sum_max(desc_i)),
          .valid_o  (unused_valid[m]),
          .y_o      (sum[m]),
          .sum_o    (unused_sum[m]),
          .tag_o    (unused_tag[m])
      );
    end
  endgenerate

  always_ff @(posedge clk_i) begin
    low_q <= sum;
    y_q   <= {sum, low_q};
  end
  assign y_o = y_q;

endmodule

`default_nettype wire
