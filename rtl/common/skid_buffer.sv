// Skid buffer: register slice for a valid/ready channel.
//
// Purpose: removes every combinational path between the two sides, in both directions. As in AXI, out_valid_o does not
// wait for out_ready_i, and out_data_o is stable until it is taken.
// Latency: 1 cycle.
// Throughput: one word a cycle, also directly after a stall (two words of storage).
`default_nettype none
`timescale 1ns / 1ps

module skid_buffer #(
    parameter int WIDTH = 64
) (
    input  wire logic             clk_i,
    input  wire logic             rst_ni,
    input  wire logic             in_valid_i,
    output logic                  in_ready_o,
    input  wire logic [WIDTH-1:0] in_data_i,
    output logic                  out_valid_o,
    input  wire logic             out_ready_i,
    output logic      [WIDTH-1:0] out_data_o
);

`ifndef YOSYS
  initial if (WIDTH < 1) $fatal(1, "skid_buffer: WIDTH %0d must be positive", WIDTH);
`endif

  logic             ready_q;  // equals "the skid register is free", except in reset
  logic             out_valid_q;
  logic [WIDTH-1:0] out_data_q;
  logic [WIDTH-1:0] skid_data_q;
  logic             skid_valid_q;
  logic             out_free;

  assign in_ready_o  = ready_q;
  assign out_valid_o = out_valid_q;
  assign out_data_o  = out_data_q;
  assign out_free    = !out_valid_q || out_ready_i;

  // In the first cycle of a reset ready may still be high: what is offered there is lost. Then it is low.
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      ready_q      <= 1'b0;
      out_valid_q  <= 1'b0;
      skid_valid_q <= 1'b0;
    end else if (out_free) begin
      ready_q      <= 1'b1;
      out_valid_q  <= skid_valid_q || (in_valid_i && ready_q);
      skid_valid_q <= 1'b0;
    end else if (in_valid_i && ready_q) begin
      ready_q      <= 1'b0;
      skid_valid_q <= 1'b1;
    end else begin
      ready_q <= !skid_valid_q;
    end
  end

  always_ff @(posedge clk_i) begin
    if (out_free) out_data_q <= skid_valid_q ? skid_data_q : in_data_i;
    if (ready_q) skid_data_q <= in_data_i;
  end

endmodule

`resetall
`default_nettype wire
