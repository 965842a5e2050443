// Feature-buffer port multiplexer: selects the unit that uses the feature buffer's ports and the writable region.
//
// Purpose: the conv unit, the pooling unit and the tensor reader read; the image loader, the pooling unit and the
// output stage write; the residual stage reads through the write port. The main controller activates one reader and one
// writer at a time, so there is no arbiter. The number of quads a read takes follows from the layer: a convolution
// reads its group of quads (with vertical taps, those of several rows), an average pool or a sum the quads of
// NUM_MODULES channels, a max pool eight quads.
// Latency: 1 cycle; 1 more from the layer to the number of quads. rd_vstep_o and rd_pair_o are combinational.
// Throughput: one read and one write a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module feature_port_mux #(
    parameter NUM_MODULES = 4
) (
    input  wire logic                                clk_i,
    input  wire logic                                rst_ni,
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

  logic rd_valid_q;
  logic [A_W-1:0] rd_addr_q;
  logic [3:0] rd_count_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) rd_valid_q <= 1'b0;
    else rd_valid_q <= conv_rd_valid_i || pool_rd_valid_i || emit_rd_valid_i;
    rd_addr_q  <= conv_rd_valid_i ? conv_rd_addr_i : (pool_rd_valid_i ? pool_rd_addr_i : emit_rd_addr_i);
    rd_count_q <= emit_rd_valid_i ? 4'd2 : unit_count_q;
  end
  assign rd_valid_o = rd_valid_q;
  assign rd_addr_o  = rd_addr_q;
  assign rd_count_o = rd_count_q;
  assign rd_pair_o  = program_pkg::descriptor_pair(desc_i);
  assign rd_vstep_o = conv_busy_i ? program_pkg::descriptor_vstep(desc_i) : '0;

  logic wr_valid, wr_read, wr_valid_q, wr_read_q;
  logic [A_W-1:0] wr_addr, wr_addr_q, wr_base_q;
  logic [A_W:0] wr_end_q;
  logic [7:0] wr_mask, wr_mask_q;
  logic [7:0][31:0] wr_data, wr_data_q;
  assign wr_valid = image_wr_valid_i || pool_wr_valid_i || stage_wr_valid_i;
  assign wr_read  = other_rd_valid_i && !wr_valid;
  always_comb begin
    if (image_wr_valid_i) {wr_addr, wr_mask, wr_data} = {image_wr_addr_i, image_wr_mask_i, image_wr_data_i};
    else if (pool_wr_valid_i) {wr_addr, wr_mask, wr_data} = {pool_wr_addr_i, pool_wr_mask_i, pool_wr_data_i};
    else {wr_addr, wr_mask, wr_data} = {stage_wr_addr_i, stage_wr_mask_i, stage_wr_data_i};
    if (wr_read) wr_addr = other_rd_addr_i;
  end
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      wr_valid_q <= 1'b0;
      wr_read_q  <= 1'b0;
    end else begin
      wr_valid_q <= wr_valid;
      wr_read_q  <= wr_read;
    end
    wr_addr_q <= wr_addr;
    wr_mask_q <= wr_mask;
    wr_data_q <= wr_data;
    // By the write itself: the loader may be closed while its last beat is on its way.
    wr_base_q <= image_wr_valid_i ? image_base_i : program_pkg::descriptor_out_base(desc_i);
    wr_end_q  <= image_wr_valid_i ? image_end_addr_i : program_pkg::descriptor_out_end(desc_i);
  end
  assign wr_valid_o = wr_valid_q;
  assign wr_read_o  = wr_read_q;
  assign wr_addr_o  = wr_addr_q;
  assign wr_mask_o  = wr_mask_q;
  assign wr_data_o  = wr_data_q;
  assign wr_base_o  = wr_base_q;
  assign wr_end_o   = wr_end_q;

endmodule

`default_nettype wire
