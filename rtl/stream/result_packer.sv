// Result packer: packs 32-bit results and tensors of the feature buffer into beats of the result stream.
//
// Purpose: a step of NUM_MODULES 32-bit results becomes NUM_MODULES / 2 beats. The last beat of such a tensor is known
// only when the layer has ended. One beat is therefore held until another follows or flush_i says that none will.
// room_o tells the producer that MARGIN more steps fit, those in flight included. Beats of the tensor reader pass
// through; both sources never send at the same time.
// Latency: 2 cycles from a step of 32-bit results; tensor beats pass through in the same cycle.
// Throughput: one beat a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module result_packer #(
    parameter NUM_MODULES = 4,
    parameter MARGIN      = 24,
    parameter DEPTH       = 64
) (
    input  wire logic                                      clk_i,
    input  wire logic                                      rst_ni,
    input  wire logic                                      raw_valid_i,
    input  wire logic [NUM_MODULES-1:0][cq_pkg::ACC_W-1:0] raw_i,
    output wire logic                                      room_o,
    input  wire logic                                      flush_i,
    input  wire logic                                      tensor_valid_i,
    input  wire logic [63:0]                               tensor_data_i,
    input  wire logic                                      tensor_half_i,
    input  wire logic                                      tensor_last_i,
    output wire logic                                      beat_valid_o,
    input  wire logic                                      beat_ready_i,
    output wire logic [63:0]                               beat_data_o,
    output wire logic                                      beat_half_o,
    output wire logic                                      beat_last_o,
    output wire logic                                      empty_o
);

  localparam int BEATS = NUM_MODULES / 2;
  localparam int LEVEL_W = $clog2(DEPTH + 1);

`ifndef YOSYS
  initial if (DEPTH <= MARGIN) $fatal(1, "result_packer: DEPTH %0d must exceed MARGIN %0d", DEPTH, MARGIN);
`endif

  logic fifo_valid, fifo_ready, unused_fifo_in_ready;
  logic [BEATS-1:0][63:0] fifo_data;
  logic [LEVEL_W-1:0] level;

  sync_fifo #(
      .WIDTH(NUM_MODULES * cq_pkg::ACC_W),
      .DEPTH(DEPTH)
  ) u_fifo (
      .clk_i      (clk_i),
      .rst_ni     (rst_ni),
      .in_valid_i (raw_valid_i),
      .in_ready_o (unused_fifo_in_ready),
      .in_data_i  (raw_i),
      .out_valid_o(fifo_valid),
      .out_ready_i(fifo_ready),
      .out_data_o (fifo_data),
      .level_o    (level)
  );

  // level < DEPTH - MARGIN, as a register
  localparam logic [LEVEL_W-1:0] LIMIT = LEVEL_W'(DEPTH - MARGIN);
  logic room_q, pop;
  assign pop = fifo_valid && fifo_ready;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) room_q <= 1'b1;
    else if (raw_valid_i && !pop) room_q <= level < LIMIT - 1'b1;
    else if (pop && !raw_valid_i) room_q <= level <= LIMIT;
  end
  assign room_o = room_q;

  logic [2:0] beat_q;
  logic held_q, flush_q, raw_out, take, last_beat;
  logic [63:0] held_data_q;

  // The held beat leaves when another one follows it, or at the end of the layer.
  assign last_beat  = beat_q == 3'(BEATS - 1);
  assign raw_out    = held_q && (fifo_valid || flush_q);
  assign take       = fifo_valid && (!held_q || (beat_ready_i && !tensor_valid_i));
  assign fifo_ready = take && last_beat;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      held_q  <= 1'b0;
      flush_q <= 1'b0;
      beat_q  <= '0;
    end else begin
      if (take) begin
        held_q <= 1'b1;
        beat_q <= last_beat ? '0 : beat_q + 3'd1;
      end else if (raw_out && beat_ready_i && !tensor_valid_i) begin
        held_q <= 1'b0;
      end
      if (flush_i) flush_q <= 1'b1;
      else if (!held_q && !fifo_valid) flush_q <= 1'b0;
    end
    if (take) held_data_q <= fifo_data[beat_q[$clog2(BEATS)-1:0]];
  end

  assign beat_valid_o = tensor_valid_i || raw_out;
  assign beat_data_o  = tensor_valid_i ? tensor_data_i : held_data_q;
  assign beat_half_o  = tensor_valid_i && tensor_half_i;
  assign beat_last_o  = tensor_valid_i ? tensor_last_i : !fifo_valid;
  assign empty_o      = !held_q && !fifo_valid;

endmodule

`default_nettype wire
