// Down counter of one loop: tells beforehand which round is the last one.
//
// Purpose: last_o comes out of a register, so that several nested loops can be decided within one cycle.
// The caller also says whether there is just one round, which it can find out earlier than count_i is chosen.
// Latency: 1 cycle.  load_i starts count_i rounds (1 or more; it wins over step_i), step_i ends one; last_o is high
// during the last round.
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
