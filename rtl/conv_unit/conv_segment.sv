// Conv segment: four pairs of PEs in a chain; in segment 0 the array's single PE comes before them.
//
// Purpose: accumulates onto the upstream array's partial sums. Segments without the single PE register the sum once, so
// all three have equal latency. The widths of the sums grow along the chain.
// Latency: 5 cycles from sum_i to sum_o.
// Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module conv_segment #(
    parameter SINGLE = 1,  // with the single PE
    parameter ARRAY  = 0   // position of the array in the chain
) (
    input  wire logic                              clk_i,
    input  wire logic [4:0]                        load_i,    // per stage
    input  wire logic [17:0]                       idx_i,     // {single PE, PEs 7..0}
    input  wire logic [8:0]                        single_i,
    input  wire logic [3:0][8:0]                   x_i,
    input  wire logic [3:0][8:0]                   y_i,
    input  wire logic [3:0][9:0]                   xy_i,
    input  wire logic [2:0][cq_pkg::SUM_W-1:0]     sum_i,     // per plane, sign-extended
    output wire logic [2:0][cq_pkg::SUM_W-1:0]     sum_o
);

  localparam int PER_ARRAY = 9;  // PEs of segment 0 in an array; the widest segment sets the widths
  localparam int W0 = cq_pkg::sum_width((ARRAY == 0) ? 1 : PER_ARRAY * ARRAY);
  localparam int W1 = cq_pkg::sum_width(PER_ARRAY * ARRAY + 1);
  localparam int W2 = cq_pkg::sum_width(PER_ARRAY * ARRAY + 3);
  localparam int W3 = cq_pkg::sum_width(PER_ARRAY * ARRAY + 5);
  localparam int W4 = cq_pkg::sum_width(PER_ARRAY * ARRAY + 7);
  localparam int W5 = cq_pkg::sum_width(PER_ARRAY * ARRAY + 9);

  logic [2:0][W0-1:0] sum0;
  logic [2:0][W1-1:0] sum1;
  logic [2:0][W2-1:0] sum2;
  logic [2:0][W3-1:0] sum3;
  logic [2:0][W4-1:0] sum4;
  logic [2:0][W5-1:0] sum5;

  genvar p;
  generate
    for (p = 0; p < 3; p = p + 1) begin : gen_width
      assign sum0[p]  = sum_i[p][W0-1:0];
      assign sum_o[p] = cq_pkg::SUM_W'($signed(sum5[p]));
    end

    if (SINGLE != 0) begin : gen_single
      pe #(
          .SUM_I_W(W0),
          .SUM_O_W(W1)
      ) u_pe (
          .clk_i (clk_i),
          .load_i(load_i[0]),
          .idx_i (idx_i[17:16]),
          .x_i   (single_i),
          .sum_i (sum0),
          .sum_o (sum1)
      );
    end else begin : gen_delay
      logic unused_single;
      assign unused_single = load_i[0] & (&idx_i[17:16]) & (&single_i);
      for (p = 0; p < 3; p = p + 1) begin : gen_plane
        logic [W1-1:0] sum_q;
        always_ff @(posedge clk_i) sum_q <= W1'($signed(sum0[p]));
        assign sum1[p] = sum_q;
      end
    end
  endgenerate

  pe_pair #(
      .SUM_I_W(W1),
      .SUM_O_W(W2)
  ) u_pair0 (
      .clk_i (clk_i),
      .load_i(load_i[1]),
      .idx_i (idx_i[3:0]),
      .x_i   (x_i[0]),
      .y_i   (y_i[0]),
      .xy_i  (xy_i[0]),
      .sum_i (sum1),
      .sum_o (sum2)
  );
  pe_pair #(
      .SUM_I_W(W2),
      .SUM_O_W(W3)
  ) u_pair1 (
      .clk_i (clk_i),
      .load_i(load_i[2]),
      .idx_i (idx_i[7:4]),
      .x_i   (x_i[1]),
      .y_i   (y_i[1]),
      .xy_i  (xy_i[1]),
      .sum_i (sum2),
      .sum_o (sum3)
  );
  pe_pair #(
      .SUM_I_W(W3),
      .SUM_O_W(W4)
  ) u_pair2 (
      .clk_i (clk_i),
      .load_i(load_i[3]),
      .idx_i (idx_i[11:8]),
      .x_i   (x_i[2]),
      .y_i   (y_i[2]),
      .xy_i  (xy_i[2]),
      .sum_i (sum3),
      .sum_o (sum4)
  );
  pe_pair #(
      .SUM_I_W(W4),
      .SUM_O_W(W5)
  ) u_pair3 (
      .clk_i (clk_i),
      .load_i(load_i[4]),
      .idx_i (idx_i[15:12]),
      .x_i   (x_i[3]),
      .y_i   (y_i[3]),
      .xy_i  (xy_i[3]),
      .sum_i (sum4),
      .sum_o (sum5)
  );

endmodule

`default_nettype wire
