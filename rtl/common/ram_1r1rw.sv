// Dual-port memory: one read port, one port that reads or writes, one clock.
//
// Purpose: a word that the second port writes while the first one reads it is read as X. The array has no reset, as
// block RAM has none, so a word that was never written reads as X in simulation.
// Latency: 1 cycle from a port's re_i to its data, which keep their value while it is low.
// Throughput: one read, and one write or read, a cycle. A write wins over a read of its port.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module ram_1r1rw #(
    parameter  int WIDTH  = 32,
    parameter  int DEPTH  = 512,
    localparam int ADDR_W = (DEPTH > 1) ? $clog2(DEPTH) : 1
) (
    input  wire logic              clk_i,
    input  wire logic              re_i,
    input  wire logic [ADDR_W-1:0] raddr_i,
    output wire logic [WIDTH-1:0]  rdata_o,
    input  wire logic              port_we_i,
    input  wire logic              port_re_i,
    input  wire logic [ADDR_W-1:0] port_addr_i,
    input  wire logic [WIDTH-1:0]  port_wdata_i,
    output wire logic [WIDTH-1:0]  port_rdata_o
);

`ifndef YOSYS
  initial if (WIDTH < 1 || DEPTH < 1) $fatal(1, "ram_1r1rw: WIDTH %0d and DEPTH %0d must be positive", WIDTH, DEPTH);
`endif

  logic [WIDTH-1:0] mem[DEPTH];
  logic [WIDTH-1:0] rdata_q, port_rdata_q;

  always_ff @(posedge clk_i) begin
    if (re_i) begin
      if (port_we_i && port_addr_i == raddr_i) rdata_q <= 'x;
      else rdata_q <= mem[raddr_i];
    end
  end

  always_ff @(posedge clk_i) begin
    if (port_we_i) mem[port_addr_i] <= port_wdata_i;
    else if (port_re_i) port_rdata_q <= mem[port_addr_i];
  end

  assign rdata_o      = rdata_q;
  assign port_rdata_o = port_rdata_q;

endmodule

`default_nettype wire
