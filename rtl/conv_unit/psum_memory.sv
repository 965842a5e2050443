// Partial-sum memory: three lanes (one per output channel) of every conv module, two tile buffers.
//
// Purpose: keeps the sums of a tile from pass to pass while the other buffer is drained. All lanes are one wide word,
// which block RAMs of 36 bits hold with few bits to spare. Accumulation and drain read a copy each, so neither waits
// for the other. The same pixel must not return within SUM_DELAY cycles (pass_walker).
// Latency: the partial sums of a position follow its acc_ren_i after 2 cycles; sum_i follows after 7 cycles and is
// written 1 cycle later; drain data comes 2 cycles after drain_buf_i and drain_addr_i.
// Throughput: one position and one drain read a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module psum_memory #(
    parameter NUM_MODULES = 4
) (
    input  wire logic                                           clk_i,
    input  wire logic                                           acc_ren_i,
    input  wire logic                                           acc_buf_i,
    input  wire logic [program_pkg::TILE_W-1:0]                 acc_addr_i,
    input  wire logic                                           acc_first_i,  // with acc_ren_i: nothing to add to yet
    input  wire logic                                           three_i,      // all lanes in use, not the first only
    output wire logic [NUM_MODULES-1:0][2:0][cq_pkg::ACC_W-1:0] partial_o,    // lanes not in use: 0
    input  wire logic [NUM_MODULES-1:0][2:0][cq_pkg::ACC_W-1:0] sum_i,
    input  wire logic                                           drain_buf_i,
    input  wire logic [program_pkg::TILE_W-1:0]                 drain_addr_i,
    output wire logic [NUM_MODULES-1:0][2:0][cq_pkg::ACC_W-1:0] drain_o
);

  localparam int LANES = 3 * NUM_MODULES;

  logic we, write_buf;
  logic [program_pkg::TILE_W-1:0] write_addr;
  delay_line #(
      .WIDTH(2 + program_pkg::TILE_W),
      .DEPTH(cq_pkg::SUM_DELAY)
  ) u_delay (
      .clk_i(clk_i),
      .d_i  ({acc_ren_i, acc_buf_i, acc_addr_i}),
      .d_o  ({we, write_buf, write_addr})
  );

  logic [LANES-1:0][cq_pkg::ACC_W-1:0] acc_read, drain_read, drain_q;
  ram_1r1w #(
      .WIDTH(LANES * cq_pkg::ACC_W),
      .DEPTH(2 * program_pkg::TILE_PIXELS),
      .READ_OLD(0)
  ) u_acc_ram (
      .clk_i  (clk_i),
      .we_i   (we),
      .waddr_i({write_buf, write_addr}),
      .wdata_i(sum_i),
      .re_i   (1'b1),
      .raddr_i({acc_buf_i, acc_addr_i}),
      .rdata_o(acc_read)
  );
  ram_1r1w #(
      .WIDTH(LANES * cq_pkg::ACC_W),
      .DEPTH(2 * program_pkg::TILE_PIXELS),
      .READ_OLD(0)
  ) u_drain_ram (
      .clk_i  (clk_i),
      .we_i   (we),
      .waddr_i({write_buf, write_addr}),
      .wdata_i(sum_i),
      .re_i   (1'b1),
      .raddr_i({drain_buf_i, drain_addr_i}),
      .rdata_o(drain_read)
  );
  always_ff @(posedge clk_i) drain_q <= drain_read;
  assign drain_o = drain_q;

  logic first_q;
  always_ff @(posedge clk_i) first_q <= acc_first_i;
  genvar l;
  generate
    for (l = 0; l < LANES; l = l + 1) begin : gen_lane
      logic [cq_pkg::ACC_W-1:0] partial_q;
      always_ff @(posedge clk_i) begin
        if (first_q || (l % 3 != 0 && !three_i)) partial_q <= '0;
        else partial_q <= acc_read[l];
      end
      assign partial_o[l/3][l%3] = partial_q;
    end
  endgenerate

endmodule

`default_nettype wire
