// Loop counter: a down counter that announces the last iteration of a loop.
//
// Purpose: last_o is a register, so several nested loops can be decided in one cycle. load_i starts count_i iterations
// (1 or more; it wins over step_i), and step_i ends one. last_o is high during the last iteration. one_i tells that
// count_i is 1: the caller knows this earlier than it selects count_i.
// Latency: 1 cycle.
// Throughput: one iteration a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module loop_counter #(
    parameter WIDTH = 16
) (
    input  wire logic             clk_i,
    input  wire logic             load_i,
    input  wire logic [WIDTH-1:0] count_i,
    input  wire logic             one_i,    // count_i is 1
    input  wire logic             step_i,
    output wire logic             last_o
);

`ifndef YOSYS
  initial if (WIDTH < 2) $fatal(1, "loop_counter: WIDTH must be at least 2, got %0d", WIDTH);
`endif

  logic [WIDTH-1:0] left_q;
  logic last_q;
  always_ff @(posedge clk_i) begin
    if (load_i) begin
      left_q <= count_i;
      last_q <= one_i;
    end else if (step_i) begin
      left_q <= left_q - 1'b1;
      last_q <= left_q == WIDTH'(2);
    end
  end
  assign last_o = last_q;

endmodule

`default_nettype wire
