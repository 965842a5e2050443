// Output stage: turns NUM_MODULES 32-bit sums a cycle into 8-bit activations, each with the parameters of its channel.
//
// Purpose: looks up bias, multiplier and shift of a parameter word (NUM_MODULES channels) and requantizes. sum_o is acc
// + bias, for layers whose output is int32. A tag (the destination of the results) travels with the data. The clamps
// are constants of the layer: they must not change while a result is in flight.
// Latency: LATENCY = 9 cycles: 1 in the memory, 1 in the register behind it (block RAM has a long clock-to-output
// delay), 7 in requantize.
// Throughput: one step of NUM_MODULES results a cycle, without stalls.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module output_stage #(
    parameter  NUM_MODULES = 4,
    parameter  TAG_W       = 18,
    localparam LANE_W      = $clog2(NUM_MODULES),
    localparam WORD_W      = $clog2(512 / NUM_MODULES),
    localparam LATENCY     = 9
) (
    input  wire logic                         clk_i,
    input  wire logic                         rst_ni,
    // parameters from the weight loader
    input  wire logic                         param_we_i,
    input  wire logic                         param_bank_i,
    input  wire logic [8:0]                   param_channel_i,
    input  wire logic [63:0]                  param_data_i,
    // sums
    input  wire logic                         valid_i,
    input  wire logic [NUM_MODULES-1:0][31:0] acc_i,
    input  wire logic [WORD_W:0]              param_word_i,  // {bank, channel / NUM_MODULES}
    input  wire logic [9:0]                   out_min_i,
    input  wire logic [9:0]                   out_max_i,
    input  wire logic [TAG_W-1:0]             tag_i,
    // results
    output wire logic                         valid_o,
    output wire logic [NUM_MODULES-1:0][7:0]  y_o,
    output wire logic [NUM_MODULES-1:0][31:0] sum_o,
    output wire logic [TAG_W-1:0]             tag_o
);

  localparam int REQUANTIZE = 7;
  localparam int LOOKUP = LATENCY - REQUANTIZE;  // memory and the register behind it

`ifndef YOSYS
  initial if (NUM_MODULES != 4 && NUM_MODULES != 8 && NUM_MODULES != 16)
    $fatal(1, "output_stage: NUM_MODULES must be 4, 8 or 16, got %0d", NUM_MODULES);
`endif

  logic [NUM_MODULES-1:0][31:0] bias, bias_q, acc;
  logic [NUM_MODULES-1:0][14:0] mult, mult_q;
  logic [NUM_MODULES-1:0][4:0]  shift, shift_q;

  parameter_memory #(
      .NUM_MODULES(NUM_MODULES)
  ) u_parameter_memory (
      .clk_i  (clk_i),
      .we_i   (param_we_i),
      .bank_i (param_bank_i),
      .lane_i (param_channel_i[LANE_W-1:0]),
      .word_i (param_channel_i[8:LANE_W]),
      .data_i (param_data_i),
      .re_i   (valid_i),
      .addr_i (param_word_i),
      .bias_o (bias),
      .mult_o (mult),
      .shift_o(shift)
  );

  always_ff @(posedge clk_i) {bias_q, mult_q, shift_q} <= {bias, mult, shift};

  delay_line #(
      .WIDTH(32 * NUM_MODULES),
      .DEPTH(LOOKUP)
  ) u_acc (
      .clk_i(clk_i),
      .d_i  (acc_i),
      .d_o  (acc)
  );

  // ---------------------------------------------------------------- lanes; lane 0 takes the tag along
  logic [LOOKUP-1:0] valid_q;
  logic [TAG_W-1:0] tag;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= {valid_q[LOOKUP-2:0], valid_i};
  end

  delay_line #(
      .WIDTH(TAG_W),
      .DEPTH(LOOKUP)
  ) u_tag (
      .clk_i(clk_i),
      .d_i  (tag_i),
      .d_o  (tag)
  );

  requantize #(
      .TAG_W(TAG_W)
  ) u_lane_0 (
      .clk_i    (clk_i),
      .rst_ni   (rst_ni),
      .valid_i  (valid_q[LOOKUP-1]),
      .acc_i    (acc[0]),
      .bias_i   (bias_q[0]),
      .mult_i   (mult_q[0]),
      .shift_i  (shift_q[0]),
      .tag_i    (tag),
      .out_min_i(out_min_i),
      .out_max_i(out_max_i),
      .valid_o  (valid_o),
      .y_o      (y_o[0]),
      .sum_o    (sum_o[0]),
      .tag_o    (tag_o)
  );

  logic [NUM_MODULES-1:1] unused_valid, unused_tag;
  genvar m;
  generate
    for (m = 1; m < NUM_MODULES; m = m + 1) begin : gen_lane
      requantize u_lane (
          .clk_i    (clk_i),
          .rst_ni   (rst_ni),
          .valid_i  (1'b0),
          .acc_i    (acc[m]),
          .bias_i   (bias_q[m]),
          .mult_i   (mult_q[m]),
          .shift_i  (shift_q[m]),
          .tag_i    (1'b0),
          .out_min_i(out_min_i),
          .out_max_i(out_max_i),
          .valid_o  (unused_valid[m]),
          .y_o      (y_o[m]),
          .sum_o    (sum_o[m]),
          .tag_o    (unused_tag[m])
      );
    end
  endgenerate

endmodule

`default_nettype wire
