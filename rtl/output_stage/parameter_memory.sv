// Parameter memory: bias, multiplier and shift of every output channel, for NUM_MODULES lanes at once.
//
// Purpose: channel o is in lane o mod NUM_MODULES, word o / NUM_MODULES. There are two banks of 512 channels: the
// running layer reads one while the weight loader fills the other for the next layer. Words arrive in the order of the
// weight stream. A word that is written and read in the same cycle reads as X; the banks prevent that.
// Latency: 1 cycle from re_i to the parameters, which keep their value while re_i is low.
// Throughput: one read and one write a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module parameter_memory #(
    parameter  NUM_MODULES = 4,
    localparam LANE_W      = $clog2(NUM_MODULES),
    localparam WORD_W      = $clog2(512 / NUM_MODULES)
) (
    input  wire logic                         clk_i,
    input  wire logic                         we_i,
    input  wire logic                         bank_i,
    input  wire logic [LANE_W-1:0]            lane_i,
    input  wire logic [WORD_W-1:0]            word_i,
    input  wire logic [63:0]                  data_i,
    input  wire logic                         re_i,
    input  wire logic [WORD_W:0]              addr_i,  // {bank, word}
    output wire logic [NUM_MODULES-1:0][31:0] bias_o,
    output wire logic [NUM_MODULES-1:0][14:0] mult_o,
    output wire logic [NUM_MODULES-1:0][4:0]  shift_o
);

`ifndef YOSYS
  initial if (NUM_MODULES != 4 && NUM_MODULES != 8 && NUM_MODULES != 16)
    $fatal(1, "parameter_memory: NUM_MODULES must be 4, 8 or 16, got %0d", NUM_MODULES);
`endif

  genvar m;
  generate
    for (m = 0; m < NUM_MODULES; m = m + 1) begin : gen_lane
      ram_1r1w #(
          .WIDTH   (52),
          .DEPTH   (2 << WORD_W),
          .READ_OLD(0)
      ) u_ram (
          .clk_i  (clk_i),
          .we_i   (we_i && lane_i == LANE_W'(m)),
          .waddr_i({bank_i, word_i}),
          .wdata_i({
            program_pkg::parameter_shift(data_i), program_pkg::parameter_mult(data_i),
            program_pkg::parameter_bias(data_i)
          }),
          .re_i   (re_i),
          .raddr_i(addr_i),
          .rdata_o({shift_o[m], mult_o[m], bias_o[m]})
      );
    end
  endgenerate

endmodule

`default_nettype wire
