// Weight buffer: a FIFO that can replay words.
//
// Purpose: holds the weight stream ahead of its use. A word stays in the buffer until commit_i; rewind_i moves the read
// pointer back to the last commit. The weights of an output-channel group are thus received once and serve every tile.
// Latency: 2 cycles from re_i to the data, the second one in the block RAM's output register; level_o counts the words
// that have not been read.
// Throughput: one word in and one word out a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module weight_buffer #(
    parameter DEPTH = 2048  // power of two
) (
    input  wire logic                      clk_i,
    input  wire logic                      rst_ni,
    input  wire logic                      in_valid_i,
    output wire logic                      in_ready_o,
    input  wire logic [63:0]               in_data_i,
    input  wire logic                      re_i,       // only while level_o > 0
    output wire logic [63:0]               data_o,
    output wire logic [$clog2(DEPTH):0]    level_o,
    input  wire logic                      rewind_i,   // not together with re_i
    input  wire logic                      commit_i    // frees all words read; not together with re_i
);

  localparam int A_W = $clog2(DEPTH);

`ifndef YOSYS
  initial if (DEPTH < 2 || DEPTH != (1 << A_W)) $fatal(1, "weight_buffer: DEPTH must be a power of two, got %0d",
      DEPTH);
`endif

  logic [A_W-1:0] write_q, read_q, base_q;
  logic [A_W:0] level_q, held_q;  // words that are not read, that are not freed
  logic push;
  logic [63:0] rdata, data_q;

  assign in_ready_o = !held_q[A_W];
  assign push       = in_valid_i && in_ready_o;
  assign level_o    = level_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      write_q <= '0;
      read_q  <= '0;
      base_q  <= '0;
      level_q <= '0;
      held_q  <= '0;
    end else begin
      if (push) write_q <= write_q + 1'b1;
      if (rewind_i) read_q <= base_q;
      else if (re_i) read_q <= read_q + 1'b1;
      if (commit_i) base_q <= read_q;
      level_q <= (rewind_i ? held_q : level_q) + (A_W + 1)'(push) - (A_W + 1)'(re_i);
      held_q  <= (commit_i ? level_q : held_q) + (A_W + 1)'(push);
    end
  end

  ram_1r1w #(
      .WIDTH(64),
      .DEPTH(DEPTH),
      .READ_OLD(0)
  ) u_ram (
      .clk_i  (clk_i),
      .we_i   (push),
      .waddr_i(write_q),
      .wdata_i(in_data_i),
      .re_i   (re_i),
      .raddr_i(read_q),
      .rdata_o(rdata)
  );
  always_ff @(posedge clk_i) data_q <= rdata;
  assign data_o = data_q;

endmodule

`default_nettype wire
