// Simple dual-port memory: one write port, one read port, one clock.
//
// Purpose: a read of the address that is written in the same cycle returns the old word with READ_OLD = 1 and an
// undefined one (X) with READ_OLD = 0. Users that never do so set 0: ECP5 block RAM has no old-data mode between its
// ports, and its emulation costs about two flip-flops and a LUT a bit. The array has no reset, as block RAM has none,
// so a word that was never written reads as X in simulation.
// Latency: 1 cycle from re_i to the data; rdata_o keeps its value while re_i is low.
// Throughput: one read and one write a cycle.
`default_nettype none
`timescale 1ns / 1ps

module ram_1r1w #(
    parameter int WIDTH = 64,
    parameter int DEPTH = 512,
    parameter int READ_OLD = 1,
    localparam int ADDR_W = (DEPTH > 1) ? $clog2(DEPTH) : 1
) (
    input  wire logic              clk_i,
    input  wire logic              we_i,
    input  wire logic [ADDR_W-1:0] waddr_i,
    input  wire logic [WIDTH-1:0]  wdata_i,
    input  wire logic              re_i,
    input  wire logic [ADDR_W-1:0] raddr_i,
    output logic      [WIDTH-1:0]  rdata_o
);

`ifndef YOSYS
  initial if (WIDTH < 1 || DEPTH < 1) $fatal(1, "ram_1r1w: WIDTH %0d and DEPTH %0d must be positive", WIDTH, DEPTH);
`endif

  logic [WIDTH-1:0] mem[DEPTH];

  always_ff @(posedge clk_i) begin
    if (we_i) mem[waddr_i] <= wdata_i;
    if (re_i) begin
      if (READ_OLD == 0 && we_i && waddr_i == raddr_i) rdata_o <= 'x;
      else rdata_o <= mem[raddr_i];
    end
  end

endmodule

`resetall
`default_nettype wire
