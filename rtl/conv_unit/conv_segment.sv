// Conv segment: four pairs of PEs in a chain; in segment 0 the array's single PE comes before them.
//
// Purpose: accumulates onto the upstream array's partial sums. Segments without the single PE register the sum once, so
// all three have equal latency.
// Latency: 5 cycles from sum_i to sum_o.
// Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module conv_segment #(
    parameter SINGLE = 1,  // with the single PE
    parameter PLANES = 3
) (
    input  wire logic                       clk_i,
    input  wire logic [4:0]                 load_i,    // per stage
    input  wire logic [17:0]                idx_i,     // {single PE, PEs 7..0}
    input  wire logic                       signed_i,  // signed layer
    input  wire logic [7:0]                 single_i,
    input  wire logic [3:0][8:0]            x_i,
    input  wire logic [3:0][8:0]            y_i,
    input  wire logic [3:0][8:0]            xy_i,
    input  wire logic [PLANES*cq_pkg::SUM_W-1:0] sum_i,     // plane 0 in the lowest bits
    output wire logic [PLANES*cq_pkg::SUM_W-1:0] sum_o
);

  logic [PLANES*cq_pkg::SUM_W-1:0] sum1, sum2, sum3, sum4;

  generate
    if (SINGLE != 0) begin : gen_single
      pe #(
          .PLANES(PLANES)
      ) u_pe (
          .clk_i   (clk_i),
          .load_i  (load_i[0]),
          .idx_i   (idx_i[17:16]),
          .signed_i(signed_i),
          .x_i     (single_i),
          .sum_i   (sum_i),
          .sum_o   (sum1)
      );
    end else begin : gen_delay
      logic unused_single;
      assign unused_single = load_i[0] & (&idx_i[17:16]) & (&single_i);
      delay_line #(
          .WIDTH(PLANES * cq_pkg::SUM_W),
          .DEPTH(1)
      ) u_delay (
          .clk_i(clk_i),
          .d_i  (sum_i),
          .d_o  (sum1)
      );
    end
  endgenerate

  pe_pair #(
      .PLANES(PLANES)
  ) u_pair0 (
      .clk_i   (clk_i),
      .load_i  (load_i[1]),
      .idx_i   (idx_i[3:0]),
      .signed_i(signed_i),
      .x_i     (x_i[0]),
      .y_i     (y_i[0]),
      .xy_i    (xy_i[0]),
      .sum_i   (sum1),
      .sum_o   (sum2)
  );
  pe_pair #(
      .PLANES(PLANES)
  ) u_pair1 (
      .clk_i   (clk_i),
      .load_i  (load_i[2]),
      .idx_i   (idx_i[7:4]),
      .signed_i(signed_i),
      .x_i     (x_i[1]),
      .y_i     (y_i[1]),
      .xy_i    (xy_i[1]),
      .sum_i   (sum2),
      .sum_o   (sum3)
  );
  pe_pair #(
      .PLANES(PLANES)
  ) u_pair2 (
      .clk_i   (clk_i),
      .load_i  (load_i[3]),
      .idx_i   (idx_i[11:8]),
      .signed_i(signed_i),
      .x_i     (x_i[2]),
      .y_i     (y_i[2]),
      .xy_i    (xy_i[2]),
      .sum_i   (sum3),
      .sum_o   (sum4)
  );
  pe_pair #(
      .PLANES(PLANES)
  ) u_pair3 (
      .clk_i   (clk_i),
      .load_i  (load_i[4]),
      .idx_i   (idx_i[15:12]),
      .signed_i(signed_i),
      .x_i     (x_i[3]),
      .y_i     (y_i[3]),
      .xy_i    (xy_i[3]),
      .sum_i   (sum4),
      .sum_o   (sum_o)
  );

endmodule

`default_nettype wire
