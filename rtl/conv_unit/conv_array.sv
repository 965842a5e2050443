// Reconfigurable convolutional array: 25 PEs in three segments of eight (four pairs each) and one single PE.
//
// Purpose: adds its 25 gated activations to the sums of the arrays before it.  What a segment stands for depends on the conv mode
// (window_generator): a horizontal tap of eight channels, or one of three output channels.  The arrays of a conv module form one
// chain, so each stage's activations arrive one cycle later than those of the stage before (window_generator skews them, and
// load_i with them).
// Stages: 0 = single PE (PE 24, added to segment 0), 1..4 = pairs 0..3 of each segment.
// PE numbering: PE 8*segment + channel, PE 24 the single one; idx_i holds two bits a PE in that order.
// Latency: 5 cycles from sum_i to sum_o.  Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module conv_array #(
    parameter ARRAY = 0  // position in the chain; sets the widths of the sums
) (
    input  wire logic                                  clk_i,
    input  wire logic [4:0]                            load_i,
    input  wire logic [2*cq_pkg::PES-1:0]              idx_i,
    input  wire logic [8:0]                            single_i,  // activation of PE 24
    input  wire logic [11:0][8:0]                      x_i,       // pair 4*segment + k
    input  wire logic [11:0][8:0]                      y_i,
    input  wire logic [11:0][9:0]                      xy_i,
    input  wire logic [2:0][2:0][cq_pkg::SUM_W-1:0]    sum_i,     // [segment][plane], sign-extended
    output wire logic [2:0][2:0][cq_pkg::SUM_W-1:0]    sum_o
);

  localparam int PER_ARRAY = 9;  // PEs of segment 0 in an array; the widest segment sets the width
  localparam int W0 = cq_pkg::sum_width((ARRAY == 0) ? 1 : PER_ARRAY * ARRAY);
  localparam int W1 = cq_pkg::sum_width(PER_ARRAY * ARRAY + 1);
  localparam int W2 = cq_pkg::sum_width(PER_ARRAY * ARRAY + 3);
  localparam int W3 = cq_pkg::sum_width(PER_ARRAY * ARRAY + 5);
  localparam int W4 = cq_pkg::sum_width(PER_ARRAY * ARRAY + 7);
  localparam int W5 = cq_pkg::sum_width(PER_ARRAY * ARRAY + 9);

  genvar s, p;
  generate
    for (s = 0; s < 3; s = s + 1) begin : gen_segment
      logic [2:0][W0-1:0] sum0;
      logic [2:0][W1-1:0] sum1;
      logic [2:0][W2-1:0] sum2;
      logic [2:0][W3-1:0] sum3;
      logic [2:0][W4-1:0] sum4;
      logic [2:0][W5-1:0] sum5;

      for (p = 0; p < 3; p = p + 1) begin : gen_width
        assign sum0[p] = sum_i[s][p][W0-1:0];
        assign sum_o[s][p] = cq_pkg::SUM_W'($signed(sum5[p]));
      end

      if (s == 0) begin : gen_single
        pe #(
            .SUM_I_W(W0),
            .SUM_O_W(W1)
        ) u_pe (
            .clk_i (clk_i),
            .load_i(load_i[0]),
            .idx_i (idx_i[49:48]),
            .x_i   (single_i),
            .sum_i (sum0),
            .sum_o (sum1)
        );
      end else begin : gen_delay
        for (p = 0; p < 3; p = p + 1) begin : gen_plane
          logic [W1-1:0] sum_q;
          always_ff @(posedge clk_i) sum_q <= W1'($signed(sum0[p]));
          assign sum1[p] = sum_q;
        end
      end

      pe_pair #(
          .SUM_I_W(W1),
          .SUM_O_W(W2)
      ) u_pair0 (
          .clk_i (clk_i),
          .load_i(load_i[1]),
          .idx_i (idx_i[16*s+:4]),
          .x_i   (x_i[4*s]),
          .y_i   (y_i[4*s]),
          .xy_i  (xy_i[4*s]),
          .sum_i (sum1),
          .sum_o (sum2)
      );
      pe_pair #(
          .SUM_I_W(W2),
          .SUM_O_W(W3)
      ) u_pair1 (
          .clk_i (clk_i),
          .load_i(load_i[2]),
          .idx_i (idx_i[16*s+4+:4]),
          .x_i   (x_i[4*s+1]),
          .y_i   (y_i[4*s+1]),
          .xy_i  (xy_i[4*s+1]),
          .sum_i (sum2),
          .sum_o (sum3)
      );
      pe_pair #(
          .SUM_I_W(W3),
          .SUM_O_W(W4)
      ) u_pair2 (
          .clk_i (clk_i),
          .load_i(load_i[3]),
          .idx_i (idx_i[16*s+8+:4]),
          .x_i   (x_i[4*s+2]),
          .y_i   (y_i[4*s+2]),
          .xy_i  (xy_i[4*s+2]),
          .sum_i (sum3),
          .sum_o (sum4)
      );
      pe_pair #(
          .SUM_I_W(W4),
          .SUM_O_W(W5)
      ) u_pair3 (
          .clk_i (clk_i),
          .load_i(load_i[4]),
          .idx_i (idx_i[16*s+12+:4]),
          .x_i   (x_i[4*s+3]),
          .y_i   (y_i[4*s+3]),
          .xy_i  (xy_i[4*s+3]),
          .sum_i (sum4),
          .sum_o (sum5)
      );
    end
  endgenerate

endmodule

`default_nettype wire
