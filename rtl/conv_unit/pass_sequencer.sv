// Pass sequencer: runs a conv layer pass by pass, one pixel read a cycle, each with the tag of its output position.
//
// Purpose: pass_planner prepares the passes, pass_walker reads the pixels of one, and tag_delay delays the tags of the
// output positions until their windows are complete, d = 0..4 slots later.
// Latency: 13 cycles from start_i to the first read when nothing stalls; d + 1 cycles from the read of a slot to its
// tag.
// Throughput: one slot a cycle; the set-up of a pass takes 12 cycles.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module pass_sequencer (
    input  wire logic                                clk_i,
    input  wire logic                                rst_ni,
    input  wire logic                                start_i,          // configuration stable until busy_o falls
    output wire logic                                busy_o,
    output wire logic                                starved_o,        // waiting for weights
    output wire logic                                blocked_o,        // waiting for a partial-sum buffer
    input  wire logic [program_pkg::RECORD_WORDS-1:0][63:0] desc_i,
    // weights
    input  wire logic                                weights_ready_i,  // complete before the first position needs them
    input  wire logic                                weights_full_i,   // complete
    output wire logic                                weights_take_o,
    output wire logic                                weights_drop_o,   // the pass has no position: skip its weights
    // partial-sum buffers
    input  wire logic                                tile_free_i,
    output wire logic                                tile_take_o,
    // feature buffer
    output wire logic                                rd_valid_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] rd_addr_o,
    // tag of the output position whose window is complete with the slot read tag-delay cycles ago
    output wire logic                                tag_valid_o,
    output wire logic                                tag_load_o,       // first position of a pass
    output wire logic                                tag_first_o,      // first contribution to the pixel
    output wire logic                                tag_buf_o,
    output wire logic [program_pkg::TILE_W-1:0]      tag_pixel_o,
    output wire logic [4:0]                          tag_col_mask_o,
    output wire logic [7:0]                          tag_row_mask_o,
    output wire logic                                tag_tile_done_o   // not before the last position of a tile
);

  localparam int S_W = program_pkg::DIM_W + 2;  // signed row and column numbers
  localparam int TAG_W = 1 + 1 + 1 + program_pkg::TILE_W + 5 + 8;

  // ---------------------------------------------------------------- passes
  logic pass_ready, pass_consumed, more;
  logic pass_empty, pass_tile_first, pass_tile_last, pass_near, pass_first_row, pass_first_rest, pass_buf;
  logic [program_pkg::TILE_W-1:0] pass_pixel;
  logic [program_pkg::QUAD_ADDR_W-1:0] pass_addr;
  logic [S_W-1:0] pass_rows, pass_cols_rest, pass_slots_rest, pass_col, pass_mask_row;
  logic pass_row_last, pass_slot_last;
  logic [2:0] pass_delay;
  logic [4:0] pass_col_mask;
  logic [7:0] pass_row_mask;

  pass_planner u_planner (
      .clk_i       (clk_i),
      .rst_ni      (rst_ni),
      .start_i     (start_i),
      .more_o      (more),
      .desc_i      (desc_i),
      .ready_o     (pass_ready),
      .consumed_i  (pass_consumed),
      .empty_o     (pass_empty),
      .tile_first_o(pass_tile_first),
      .tile_last_o (pass_tile_last),
      .near_o      (pass_near),
      .first_row_o (pass_first_row),
      .first_rest_o(pass_first_rest),
      .buf_o       (pass_buf),
      .pixel_o     (pass_pixel),
      .addr_o      (pass_addr),
      .rows_o      (pass_rows),
      .row_last_o  (pass_row_last),
      .cols_rest_o (pass_cols_rest),
      .slots_rest_o(pass_slots_rest),
      .slot_last_o (pass_slot_last),
      .delay_o     (pass_delay),
      .col_o       (pass_col),
      .col_mask_o  (pass_col_mask),
      .row_mask_o  (pass_row_mask),
      .mask_row_o  (pass_mask_row)
  );

  // ---------------------------------------------------------------- slots and their output positions
  logic walking, position, load, first, slot_buf, tile_end;
  logic [2:0] delay;
  logic [program_pkg::TILE_W-1:0] pixel;
  logic [4:0] col_mask;
  logic [7:0] row_mask;

  pass_walker u_walker (
      .clk_i            (clk_i),
      .rst_ni           (rst_ni),
      .desc_i           (desc_i),
      .starved_o        (starved_o),
      .blocked_o        (blocked_o),
      .busy_o           (walking),
      .pass_ready_i     (pass_ready),
      .pass_consumed_o  (pass_consumed),
      .pass_empty_i     (pass_empty),
      .pass_tile_first_i(pass_tile_first),
      .pass_tile_last_i (pass_tile_last),
      .pass_near_i      (pass_near),
      .pass_first_row_i (pass_first_row),
      .pass_first_rest_i(pass_first_rest),
      .pass_buf_i       (pass_buf),
      .pass_pixel_i     (pass_pixel),
      .pass_addr_i      (pass_addr),
      .pass_rows_i      (pass_rows),
      .pass_row_last_i  (pass_row_last),
      .pass_cols_rest_i (pass_cols_rest),
      .pass_slots_rest_i(pass_slots_rest),
      .pass_slot_last_i (pass_slot_last),
      .pass_delay_i     (pass_delay),
      .pass_col_i       (pass_col),
      .pass_col_mask_i  (pass_col_mask),
      .pass_row_mask_i  (pass_row_mask),
      .pass_mask_row_i  (pass_mask_row),
      .weights_ready_i  (weights_ready_i),
      .weights_full_i   (weights_full_i),
      .weights_take_o   (weights_take_o),
      .weights_drop_o   (weights_drop_o),
      .tile_free_i      (tile_free_i),
      .tile_take_o      (tile_take_o),
      .tile_end_o       (tile_end),
      .rd_valid_o       (rd_valid_o),
      .rd_addr_o        (rd_addr_o),
      .position_o       (position),
      .delay_o          (delay),
      .load_o           (load),
      .first_o          (first),
      .buf_o            (slot_buf),
      .pixel_o          (pixel),
      .col_mask_o       (col_mask),
      .row_mask_o       (row_mask)
  );

  logic tags_busy;
  tag_delay #(
      .WIDTH(TAG_W)
  ) u_tag_delay (
      .clk_i  (clk_i),
      .rst_ni (rst_ni),
      .valid_i(position),
      .delay_i(delay),
      .tag_i  ({load, first, slot_buf, pixel, col_mask, row_mask}),
      .done_i (tile_end),
      .valid_o(tag_valid_o),
      .tag_o  ({tag_load_o, tag_first_o, tag_buf_o, tag_pixel_o, tag_col_mask_o, tag_row_mask_o}),
      .done_o (tag_tile_done_o),
      .busy_o (tags_busy)
  );

  assign busy_o = more || walking || tags_busy;

endmodule

`default_nettype wire
