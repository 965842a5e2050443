// Conv module: four reconfigurable arrays in a chain, the weight decoders of the three segments, and the partial sums.
//
// Purpose: computes one output channel of a tile (modes 1 and 2: the segments are added) or three (mode 0: one a
// segment).
// Latency: 20 cycles from the activations of stage 0 to the segment sums, 6 more to the product that enters the
// partial-sum memory.
// Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module conv_module (
    input  wire logic                                                   clk_i,
    input  wire logic [1:0]                                             mode_i,
    input  wire logic [2:0][7:0]                                        codebook_i,
    input  wire logic [cq_pkg::STAGES-1:0]                              load_i,
    input  wire logic [program_pkg::ARRAYS-1:0][2*program_pkg::PES-1:0] idx_i,
    input  wire logic [program_pkg::ARRAYS-1:0][8:0]                    single_i,
    input  wire logic [program_pkg::ARRAYS-1:0][11:0][8:0]              x_i,
    input  wire logic [program_pkg::ARRAYS-1:0][11:0][8:0]              y_i,
    input  wire logic [program_pkg::ARRAYS-1:0][11:0][9:0]              xy_i,
    input  wire logic                                                   acc_ren_i,
    input  wire logic                                                   acc_buf_i,
    input  wire logic [program_pkg::TILE_W-1:0]                         acc_addr_i,
    input  wire logic                                                   acc_first_i,
    input  wire logic [program_pkg::TILE_W-1:0]                         drain_addr_i,
    output wire logic [1:0][2:0][cq_pkg::ACC_W-1:0]                     drain_o
);

  logic [program_pkg::ARRAYS:0][2:0][2:0][cq_pkg::SUM_W-1:0] chain;
  assign chain[0] = '0;

  logic [2:0][cq_pkg::PRODUCT_W-1:0] segment, segment_q, product_q;
  logic [cq_pkg::PRODUCT_W-1:0] two_q;

  genvar a, s;
  generate
    for (a = 0; a < program_pkg::ARRAYS; a = a + 1) begin : gen_array
      conv_array #(
          .ARRAY(a)
      ) u_array (
          .clk_i   (clk_i),
          .load_i  (load_i[5*a+:5]),
          .idx_i   (idx_i[a]),
          .single_i(single_i[a]),
          .x_i     (x_i[a]),
          .y_i     (y_i[a]),
          .xy_i    (xy_i[a]),
          .sum_i   (chain[a]),
          .sum_o   (chain[a+1])
      );
    end
    for (s = 0; s < 3; s = s + 1) begin : gen_decoder
      weight_decoder u_decoder (
          .clk_i     (clk_i),
          .codebook_i(codebook_i),
          .sum_i     (chain[program_pkg::ARRAYS][s]),
          .product_o (segment[s])
      );
    end
  endgenerate

  // Modes 1 and 2 add the segments; mode 0 keeps them apart, one a lane.
  always_ff @(posedge clk_i) begin
    segment_q <= segment;
    two_q <= segment[0] + segment[1];
    product_q[0] <= (mode_i == program_pkg::MODE_1) ? segment_q[0] : two_q + segment_q[2];
    product_q[1] <= segment_q[1];
    product_q[2] <= segment_q[2];
  end

  psum_memory u_psum_memory (
      .clk_i       (clk_i),
      .acc_ren_i   (acc_ren_i),
      .acc_buf_i   (acc_buf_i),
      .acc_addr_i  (acc_addr_i),
      .acc_first_i (acc_first_i),
      .acc_lanes_i ((mode_i == program_pkg::MODE_1) ? 3'b111 : 3'b001),
      .product_i   (product_q),
      .drain_addr_i(drain_addr_i),
      .drain_o     (drain_o)
  );

endmodule

`default_nettype wire
