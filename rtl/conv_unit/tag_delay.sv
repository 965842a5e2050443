// Tag delay: delays a word by the number of cycles given with it.
//
// Purpose: the tags of the pass walker trail their slots by 0..4 cycles. A word enters the delay line at the register
// that is its delay away from the end; the sender ensures that this register is free. done_i passes through the whole
// line, so it never overtakes a word.
// Latency: delay_i + 1 cycles; done_o 5 cycles.
// Throughput: one word a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module tag_delay #(
    parameter WIDTH = 8
) (
    input  wire logic             clk_i,
    input  wire logic             rst_ni,
    input  wire logic             valid_i,
    input  wire logic [2:0]       delay_i,  // 0..4
    input  wire logic [WIDTH-1:0] tag_i,
    input  wire logic             done_i,
    output wire logic             valid_o,
    output wire logic [WIDTH-1:0] tag_o,
    output wire logic             done_o,
    output wire logic             busy_o
);

  logic [4:0] here, valid_q, done_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      valid_q <= '0;
      done_q  <= '0;
    end else begin
      valid_q <= here | {1'b0, valid_q[4:1]};
      done_q  <= {done_i, done_q[4:1]};
    end
  end

  logic [5:0][WIDTH-1:0] tag;
  assign tag[5] = tag_i;
  genvar i;
  generate
    for (i = 0; i < 5; i = i + 1) begin : gen_tag
      logic [WIDTH-1:0] tag_q;
      assign here[i] = valid_i && delay_i == 3'(i);
      always_ff @(posedge clk_i) tag_q <= here[i] ? tag_i : tag[i+1];
      assign tag[i] = tag_q;
    end
  endgenerate

  assign valid_o = valid_q[0];
  assign tag_o   = tag[0];
  assign done_o  = done_q[0];
  assign busy_o  = valid_q != '0 || done_q != '0;

endmodule

`default_nettype wire
