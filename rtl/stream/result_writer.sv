// Result writer: sends the result stream through a FIFO and a register slice.
//
// Purpose: back-pressure on m_axis never reaches a producer that counts the free entries. room_o counts the entries
// that are free for words that arrive from this cycle on, so a producer may have words in flight. clear_i empties the
// FIFO. A beat offered on m_axis may not be withdrawn, so the register slice keeps its one or two beats.
// Latency: 2 cycles from in_valid_i to m_axis_tvalid (4 with DEPTH > 64, block RAM).
// Throughput: one beat a cycle.
`default_nettype none
`timescale 1ns / 1ps

module result_writer #(
    parameter int DEPTH = 64,
    localparam int ROOM_W = $clog2(DEPTH + 1)
) (
    input  wire logic              clk_i,
    input  wire logic              rst_ni,
    input  wire logic              clear_i,

    input  wire logic              in_valid_i,
    output logic                   in_ready_o,
    input  wire logic [63:0]       in_data_i,
    input  wire logic              in_half_i,   // only quad 0 (bits 31:0) counts: TKEEP 0x0f
    input  wire logic              in_last_i,   // last beat of a tensor: TLAST
    output logic      [ROOM_W-1:0] room_o,

    output logic      [63:0]       m_axis_tdata,
    output logic      [7:0]        m_axis_tkeep,
    output logic                   m_axis_tvalid,
    input  wire logic              m_axis_tready,
    output logic                   m_axis_tlast,

    output logic                   empty_o      // level: nothing inside
);

  logic              rst_n;
  logic              fifo_valid, fifo_ready;
  logic [65:0]       fifo_data;
  logic [ROOM_W-1:0] level;
  logic              half;
  logic [31:0]       upper;

  assign rst_n   = rst_ni && !clear_i;
  assign upper   = in_half_i ? 32'b0 : in_data_i[63:32];
  assign room_o  = ROOM_W'(DEPTH) - level;
  assign empty_o = level == '0 && !m_axis_tvalid;

  sync_fifo #(
      .WIDTH(66),
      .DEPTH(DEPTH)
  ) u_fifo (
      .clk_i      (clk_i),
      .rst_ni     (rst_n),
      .in_valid_i (in_valid_i),
      .in_ready_o (in_ready_o),
      .in_data_i  ({in_last_i, in_half_i, upper, in_data_i[31:0]}),
      .out_valid_o(fifo_valid),
      .out_ready_i(fifo_ready),
      .out_data_o (fifo_data),
      .level_o    (level)
  );

  skid_buffer #(
      .WIDTH(66)
  ) u_skid (
      .clk_i      (clk_i),
      .rst_ni     (rst_ni),
      .in_valid_i (fifo_valid),
      .in_ready_o (fifo_ready),
      .in_data_i  (fifo_data),
      .out_valid_o(m_axis_tvalid),
      .out_ready_i(m_axis_tready),
      .out_data_o ({m_axis_tlast, half, m_axis_tdata})
  );

  assign m_axis_tkeep = half ? 8'h0f : 8'hff;

endmodule

`resetall
`default_nettype wire
