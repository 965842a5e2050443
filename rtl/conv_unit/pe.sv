// Single processing element (PE): the 25th of an array, which has no partner.
//
// Purpose: does the same as pe_pair for one activation.
// Latency: 1 cycle from x_i/sum_i to sum_o; an index loaded with load_i takes effect in the next cycle.
// Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module pe #(
    parameter SUM_I_W = 9,
    parameter SUM_O_W = 10
) (
    input  wire logic                    clk_i,
    input  wire logic                    load_i,
    input  wire logic [1:0]              idx_i,
    input  wire logic [8:0]              x_i,
    input  wire logic [2:0][SUM_I_W-1:0] sum_i,
    output wire logic [2:0][SUM_O_W-1:0] sum_o
);

  logic [2:0] gate_q;

  always_ff @(posedge clk_i) if (load_i) gate_q <= {&idx_i, idx_i};

  genvar p;
  generate
    for (p = 0; p < 3; p = p + 1) begin : gen_plane
      logic [SUM_O_W-1:0] sum_q;
      always_ff @(posedge clk_i) begin
        sum_q <= SUM_O_W'($signed(sum_i[p])) +
            (gate_q[p] ? SUM_O_W'($signed(x_i)) : '0);
      end
      assign sum_o[p] = sum_q;
    end
  endgenerate

endmodule

`default_nettype wire
