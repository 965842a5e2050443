// Test bench wrapper: weight buffer and weight loader as rtl/clipq_accel.sv connects them.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module weight_path #(
    parameter NUM_MODULES = 4,
    parameter DEPTH       = 256,
    localparam int LEVEL_W = $clog2(DEPTH) + 1
) (
    input  wire logic                                                          clk_i,
    input  wire logic                                                          rst_ni,
    input  wire logic                                                          in_valid_i,
    output wire logic                                                          in_ready_o,
    input  wire logic [63:0]                                                   in_data_i,
    output wire logic [LEVEL_W-1:0]                                            level_o,
    output wire logic                                                          param_we_o,
    output wire logic                                                          param_bank_o,
    output wire logic [8:0]                                                    param_channel_o,
    output wire logic [63:0]                                                   param_data_o,
    input  wire logic                                                          layer_done_i,
    output wire logic                                                          params_ready_o,
    output wire logic                                                          idle_o,
    output wire logic [program_pkg::ARRAYS*NUM_MODULES*2*program_pkg::PES-1:0] idx_o,
    output wire logic                                                          ready_o,
    output wire logic                                                          full_o,
    input  wire logic                                                          take_i,
    input  wire logic                                                          drop_i,
    input  wire logic                                                          switch_i
);

  logic re, rewind, commit;
  logic [63:0] word;

  weight_buffer #(
      .DEPTH(DEPTH)
  ) u_weight_buffer (
      .clk_i     (clk_i),
      .rst_ni    (rst_ni),
      .in_valid_i(in_valid_i),
      .in_ready_o(in_ready_o),
      .in_data_i (in_data_i),
      .re_i      (re),
      .data_o    (word),
      .level_o   (level_o),
      .rewind_i  (rewind),
      .commit_i  (commit)
  );

  weight_loader #(
      .NUM_MODULES(NUM_MODULES),
      .LEVEL_W    (LEVEL_W)
  ) u_weight_loader (
      .clk_i          (clk_i),
      .rst_ni         (rst_ni),
      .level_i        (level_o),
      .re_o           (re),
      .data_i         (word),
      .rewind_o       (rewind),
      .commit_o       (commit),
      .param_we_o     (param_we_o),
      .param_bank_o   (param_bank_o),
      .param_channel_o(param_channel_o),
      .param_data_o   (param_data_o),
      .layer_done_i   (layer_done_i),
      .params_ready_o (params_ready_o),
      .idle_o         (idle_o),
      .idx_o          (idx_o),
      .ready_o        (ready_o),
      .full_o         (full_o),
      .take_i         (take_i),
      .drop_i         (drop_i),
      .switch_i       (switch_i)
  );

endmodule

`default_nettype wire
