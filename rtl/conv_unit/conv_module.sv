// Conv module: four reconfigurable arrays in a chain and the weight decoders of the three segments.
//
// Purpose: computes one output channel of a tile (modes 1 and 2: the segments are added) or three (mode 0: one a
// segment), each added to its partial sum.
// Latency: 20 cycles from the activations of stage 0 to the segment sums, 7 more to sum_o; partial_i comes 5 cycles
// before sum_o.
// Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module conv_module #(
    parameter PLANES = 3
) (
    input  wire logic                                                   clk_i,
    input  wire logic [1:0]                                             mode_i,
    input  wire logic                                                   signed_i,   // signed layer
    input  wire logic [PLANES-1:0][cq_pkg::FACTOR_W-1:0]                factor_i,   // of each plane (weight_decoder)
    input  wire logic [cq_pkg::STAGES-1:0]                              load_i,
    input  wire logic [program_pkg::ARRAYS-1:0][2*program_pkg::PES-1:0] idx_i,
    input  wire logic [program_pkg::ARRAYS-1:0][7:0]                    single_i,
    input  wire logic [program_pkg::ARRAYS-1:0][11:0][8:0]              x_i,
    input  wire logic [program_pkg::ARRAYS-1:0][11:0][8:0]              y_i,
    input  wire logic [program_pkg::ARRAYS-1:0][11:0][8:0]              xy_i,
    input  wire logic [2:0][cq_pkg::ACC_W-1:0]                          partial_i,  // lanes 1, 2: 0 if not in use
    output wire logic [2:0][cq_pkg::ACC_W-1:0]                          sum_o       // lanes 1, 2: in mode 0
);

  logic [program_pkg::ARRAYS:0][2:0][PLANES*cq_pkg::SUM_W-1:0] chain;
  logic [cq_pkg::SUM_W-1:0] begin_0;
  assign begin_0  = signed_i ? cq_pkg::SUM_W'(cq_pkg::SUM_BEGIN_0) : '0;
  assign chain[0] = {{(2 * PLANES * cq_pkg::SUM_W) {1'b0}}, {PLANES{begin_0}}};

  logic [2:0][cq_pkg::ACC_W-1:0] segment, segment_q;

  genvar a, s;
  generate
    for (a = 0; a < program_pkg::ARRAYS; a = a + 1) begin : gen_array
      conv_array #(
          .PLANES(PLANES)
      ) u_array (
          .clk_i   (clk_i),
          .load_i  (load_i[5*a+:5]),
          .idx_i   (idx_i[a]),
          .signed_i(signed_i),
          .single_i(single_i[a]),
          .x_i     (x_i[a]),
          .y_i     (y_i[a]),
          .xy_i    (xy_i[a]),
          .sum_i   (chain[a]),
          .sum_o   (chain[a+1])
      );
    end
    for (s = 0; s < 3; s = s + 1) begin : gen_decoder
      weight_decoder #(
          .OFFSET_BIT($clog2((s == 0) ? cq_pkg::SUM_OFFSET_0 : cq_pkg::SUM_OFFSET)),
          .PLANES    (PLANES)
      ) u_decoder (
          .clk_i    (clk_i),
          .signed_i (signed_i),
          .factor_i (factor_i),
          .sum_i    (chain[program_pkg::ARRAYS][s]),
          .partial_i(partial_i[s]),
          .sum_o    (segment[s])
      );
    end
  endgenerate

  // Modes 1 and 2 add the segments; mode 0 keeps them apart, one a lane.
  logic [cq_pkg::PRODUCT_W-1:0] others_q;
  logic [2:0][cq_pkg::ACC_W-1:0] sum_q;
  always_ff @(posedge clk_i) begin
    if (mode_i == program_pkg::MODE_1) others_q <= '0;
    else others_q <= segment[1][cq_pkg::PRODUCT_W-1:0] + segment[2][cq_pkg::PRODUCT_W-1:0];
    segment_q <= segment;
    sum_q[0]  <= segment_q[0] + cq_pkg::ACC_W'($signed(others_q));
    sum_q[1]  <= segment_q[1];
    sum_q[2]  <= segment_q[2];
  end
  assign sum_o = sum_q;

endmodule

`default_nettype wire
