// Feature-buffer port multiplexer: selects the unit that uses the feature buffer's ports and the writable region.
//
// Purpose: the conv unit, the pooling unit and the tensor reader read; the image loader, the pooling unit and the
// output stage write; the residual stage reads through the write port. The main controller activates one reader and one
// writer at a time, so there is no arbiter. The number of quads a read takes follows from the layer: a convolution
// reads its group of quads (with vertical taps, those of several rows), an average pool or a sum the quads of
// NUM_MODULES channels, a max pool eight quads.
// Latency: combinational; 1 cycle from the layer to the number of quads.
// Throughput: one read and one write a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module feature_port_mux #(
    parameter NUM_MODULES = 4
) (
    input  wire logic                                clk_i,
    input  wire logic [program_pkg::RECORD_WORDS-1:0][63:0] desc_i,
    // image
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] image_base_i,
    input  wire logic [program_pkg::QUAD_ADDR_W:0]   image_end_addr_i,
    // readers
    input  wire logic                                conv_busy_i,
    input  wire logic                                conv_rd_valid_i,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] conv_rd_addr_i,
    input  wire logic                                pool_rd_valid_i,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] pool_rd_addr_i,
    input  wire logic                                emit_rd_valid_i,  // tensor reader: two quads
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] emit_rd_addr_i,
    // writers
    input  wire logic                                image_wr_valid_i,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] image_wr_addr_i,
    input  wire logic [7:0]                          image_wr_mask_i,
    input  wire logic [7:0][31:0]                    image_wr_data_i,
    input  wire logic                                pool_wr_valid_i,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] pool_wr_addr_i,
    input  wire logic [7:0]                          pool_wr_mask_i,
    input  wire logic [7:0][31:0]                    pool_wr_data_i,
    input  wire logic                                other_rd_valid_i, // residual stage: through the write port
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] other_rd_addr_i,
    input  wire logic                                stage_wr_valid_i,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] stage_wr_addr_i,
    input  wire logic [7:0]                          stage_wr_mask_i,
    input  wire logic [7:0][31:0]                    stage_wr_data_i,
    // feature buffer
    output wire logic                                rd_valid_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] rd_addr_o,
    output wire logic [3:0]                          rd_count_o,
    output wire logic [program_pkg::VSTEP_W-1:0]     rd_vstep_o,
    output wire logic                                rd_pair_o,
    output wire logic                                wr_valid_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] wr_addr_o,
    output wire logic [7:0]                          wr_mask_o,
    output wire logic [7:0][31:0]                    wr_data_o,
    output wire logic                                wr_read_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] wr_base_o,
    output wire logic [program_pkg::QUAD_ADDR_W:0]   wr_end_o
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;

  logic [3:0] op, read_quads, unit_count, unit_count_q;
  assign op         = program_pkg::descriptor_op(desc_i);
  assign read_quads = program_pkg::descriptor_read_quads(desc_i);
  always_comb begin
    case (op)
      program_pkg::OP_CONV:                        unit_count = read_quads;
      program_pkg::OP_AVGPOOL, program_pkg::OP_ADD: unit_count = 4'(NUM_MODULES / 4);
      default:                                     unit_count = 4'd8;
    endcase
  end
  always_ff @(posedge clk_i) unit_count_q <= unit_count;
  assign rd_valid_o = conv_rd_valid_i || pool_rd_valid_i || emit_rd_valid_i;
  assign rd_addr_o  = conv_rd_valid_i ? conv_rd_addr_i : (pool_rd_valid_i ? pool_rd_addr_i : emit_rd_addr_i);
  assign rd_count_o = emit_rd_valid_i ? 4'd2 : unit_count_q;
  assign rd_pair_o  = program_pkg::descriptor_pair(desc_i);
  assign rd_vstep_o = conv_busy_i ? program_pkg::descriptor_vstep(desc_i) : '0;

  logic [A_W-1:0] wr_addr;
  logic [7:0] wr_mask;
  logic [7:0][31:0] wr_data;
  always_comb begin
    if (image_wr_valid_i) {wr_addr, wr_mask, wr_data} = {image_wr_addr_i, image_wr_mask_i, image_wr_data_i};
    else if (pool_wr_valid_i) {wr_addr, wr_mask, wr_data} = {pool_wr_addr_i, pool_wr_mask_i, pool_wr_data_i};
    else {wr_addr, wr_mask, wr_data} = {stage_wr_addr_i, stage_wr_mask_i, stage_wr_data_i};
    if (wr_read_o) wr_addr = other_rd_addr_i;
  end
  assign wr_valid_o = image_wr_valid_i || pool_wr_valid_i || stage_wr_valid_i;
  assign wr_read_o  = other_rd_valid_i && !wr_valid_o;
  assign wr_addr_o  = wr_addr;
  assign wr_mask_o  = wr_mask;
  assign wr_data_o  = wr_data;
  // By the write itself: the loader may be closed while its last beat is on its way.
  assign wr_base_o  = image_wr_valid_i ? image_base_i : program_pkg::descriptor_out_base(desc_i);
  assign wr_end_o   = image_wr_valid_i ? image_end_addr_i : program_pkg::descriptor_out_end(desc_i);

endmodule

`default_nettype wire
