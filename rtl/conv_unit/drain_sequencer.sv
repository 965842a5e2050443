// Drain sequencer: reads finished tiles from the partial-sum memory and generates the destination of their results.
//
// Purpose: follows the pass sequencer tile by tile (output-channel group, tile row, tile column) and pixel by pixel.
// Kernels 1 wide take three steps a pixel (three output channels a module). Steps beyond the tensor's last quad are
// skipped. With a fused sum the steps come in every second cycle, counted from start_i. With early_i the buffer is
// released when its drain begins: the first sums of the next tile are written at least 38 cycles behind the reads, in
// the same pixel order. This is allowed if a pixel takes one step, results are always accepted, and the first pass of a
// tile starts at its first pixel.
// Latency: 3 cycles from a finished tile to its first read.
// Throughput: one step (NUM_MODULES results) a cycle, or in two cycles with a fused sum; 2 idle cycles a tile.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module drain_sequencer #(
    parameter NUM_MODULES = 4
) (
    input  wire logic                                clk_i,
    input  wire logic                                rst_ni,
    input  wire logic                                start_i,       // of a layer; configuration stable from here on
    input  wire logic                                tile_done_i,   // all sums of a tile are in the memory
    input  wire logic                                room_i,        // results can be taken
    // a new tile may be written behind the reads of this one
    input  wire logic                                early_i,
    output wire logic                                tile_freed_o,  // the tile's buffer may be taken again
    output wire logic                                busy_o,
    input  wire logic [program_pkg::RECORD_WORDS-1:0][63:0] desc_i,
    // partial-sum read
    output wire logic                                valid_o,
    output wire logic                                buf_o,
    output wire logic [1:0]                          lane_o,
    output wire logic [program_pkg::TILE_W-1:0]      pixel_o,
    // destination of these results
    output wire logic [8:0]                          word_o,        // parameter word: output channel / NUM_MODULES
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] addr_o,
    output wire logic [NUM_MODULES/4-1:0]            mask_o
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;
  localparam int QUADS = NUM_MODULES / 4;
  localparam int SHIFT = $clog2(QUADS);

  localparam logic [1:0] IDLE = 2'd0, BOUNDS = 2'd1, RUN = 2'd2;

  // ---------------------------------------------------------------- the layer
  logic three_steps;  // 1-wide kernels: three output channels a module
  logic fused;
  logic [A_W-1:0] out_base, out_row_stride, out_tile_row_step, out_tile_col_step;
  logic [program_pkg::QUADS_W-1:0] out_quads;
  logic [program_pkg::DIM_W-1:0] out_w, out_h;
  logic [program_pkg::TILE_W:0] tile_rows, tile_cols;
  assign three_steps       = program_pkg::descriptor_mode(desc_i) == program_pkg::MODE_1;
  assign fused             = program_pkg::descriptor_fused(desc_i);
  assign out_base          = program_pkg::descriptor_out_base(desc_i);
  assign out_row_stride    = program_pkg::descriptor_out_row_stride(desc_i);
  assign out_quads         = program_pkg::descriptor_out_quads(desc_i);
  assign out_w             = program_pkg::descriptor_out_w(desc_i);
  assign out_h             = program_pkg::descriptor_out_h(desc_i);
  assign tile_rows         = program_pkg::descriptor_tile_rows(desc_i);
  assign tile_cols         = program_pkg::descriptor_tile_cols(desc_i);
  assign out_tile_row_step = program_pkg::descriptor_out_tile_row_step(desc_i);
  assign out_tile_col_step = program_pkg::descriptor_out_tile_col_step(desc_i);

  logic [1:0] state_q, tiles_q;
  logic buf_q, turn_q;  // turn_q: a step may be read in this cycle; with a fused sum in every second one
  logic [8:0] word_q, group_word_q;
  logic [1:0] step_q;
  logic [program_pkg::DIM_W-1:0] left_h_q, left_w_q;  // rows and columns from the tile's first ones to the last ones
  logic [program_pkg::TILE_W:0] rows_q, cols_q, col_q;
  logic [A_W-1:0] tile_row_addr_q, tile_addr_q, row_addr_q, pixel_addr_q;
  logic [program_pkg::TILE_W-1:0] pixel_q;

  // What is the last of its kind is known before it is reached: the tile from its second cycle on, and each step,
  // column and row while the one before is read.
  logic last_tx_q, last_ty_q, one_row_q, one_col_q, row_tiles_q, col_tiles_q;
  logic second_q, third_q;  // steps of a pixel
  logic last_step_q, last_col_q, last_row_q, col_init_q;
  always_ff @(posedge clk_i) begin
    last_ty_q   <= left_h_q <= program_pkg::DIM_W'(tile_rows);
    last_tx_q   <= left_w_q <= program_pkg::DIM_W'(tile_cols);
    one_row_q   <= left_h_q == program_pkg::DIM_W'(1);
    one_col_q   <= left_w_q == program_pkg::DIM_W'(1);
    row_tiles_q <= tile_rows == 9'd1;
    col_tiles_q <= tile_cols == 9'd1;
    second_q    <= three_steps && {1'b0, group_word_q + 9'd1} << SHIFT < {2'b0, out_quads};
    third_q     <= three_steps && {1'b0, group_word_q + 9'd2} << SHIFT < {2'b0, out_quads};
  end

  logic issue, tile_end, single_row, single_col;
  assign issue      = state_q == RUN && room_i && turn_q;
  assign tile_end   = issue && last_step_q && last_col_q && last_row_q;
  assign single_row = last_ty_q ? one_row_q : row_tiles_q;  // of the tile
  assign single_col = last_tx_q ? one_col_q : col_tiles_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= IDLE;
      tiles_q <= '0;
      buf_q   <= 1'b0;
    end else begin
      if (tile_done_i && !tile_end) tiles_q <= tiles_q + 2'd1;
      else if (tile_end && !tile_done_i) tiles_q <= tiles_q - 2'd1;
      if (tile_end) buf_q <= !buf_q;
      case (state_q)
        IDLE: if (tiles_q != '0) state_q <= BOUNDS;
        BOUNDS: state_q <= RUN;
        default: if (tile_end) state_q <= IDLE;
      endcase
    end
  end

  always_ff @(posedge clk_i) begin
    turn_q <= start_i || !turn_q || !fused;
    if (start_i) begin
      left_h_q        <= out_h;
      left_w_q        <= out_w;
      tile_row_addr_q <= out_base;
      tile_addr_q     <= out_base;
      group_word_q    <= '0;
    end else if (tile_end) begin
      left_w_q    <= last_tx_q ? out_w : left_w_q - program_pkg::DIM_W'(tile_cols);
      tile_addr_q <= tile_addr_q + out_tile_col_step;
      if (last_tx_q) begin
        left_h_q        <= last_ty_q ? out_h : left_h_q - program_pkg::DIM_W'(tile_rows);
        tile_row_addr_q <= last_ty_q ? out_base : tile_row_addr_q + out_tile_row_step;
        tile_addr_q     <= last_ty_q ? out_base : tile_row_addr_q + out_tile_row_step;
        if (last_ty_q) group_word_q <= group_word_q + (three_steps ? 9'd3 : 9'd1);
      end
    end
    if (state_q == BOUNDS) begin
      rows_q       <= last_ty_q ? left_h_q[8:0] : tile_rows;
      last_row_q   <= single_row;
      cols_q       <= last_tx_q ? left_w_q[8:0] : tile_cols;
      col_q        <= last_tx_q ? left_w_q[8:0] : tile_cols;
      last_col_q   <= single_col;
      col_init_q   <= single_col;
      row_addr_q   <= tile_addr_q + out_row_stride;
      pixel_addr_q <= tile_addr_q;
      pixel_q      <= '0;
      word_q       <= group_word_q;
      step_q       <= '0;
      last_step_q  <= !second_q;
    end else if (issue) begin
      if (!last_step_q) begin
        step_q      <= step_q + 2'd1;
        word_q      <= word_q + 9'd1;
        last_step_q <= step_q == 2'd1 || !third_q;
      end else begin
        step_q      <= '0;
        word_q      <= group_word_q;
        last_step_q <= !second_q;
        pixel_q     <= pixel_q + 1'b1;
        if (last_col_q) begin
          col_q        <= cols_q;
          last_col_q   <= col_init_q;
          rows_q       <= rows_q - 9'd1;
          last_row_q   <= rows_q == 9'd2;
          row_addr_q   <= row_addr_q + out_row_stride;
          pixel_addr_q <= row_addr_q;
        end else begin
          col_q        <= col_q - 9'd1;
          last_col_q   <= col_q == 9'd2;
          pixel_addr_q <= pixel_addr_q + A_W'(out_quads);
        end
      end
    end
  end

  logic [9:0] quad;
  assign quad = {1'b0, word_q} << SHIFT;
  genvar k;
  generate
    for (k = 0; k < QUADS; k = k + 1) begin : gen_mask
      assign mask_o[k] = quad + 10'(k) < {2'b0, out_quads};
    end
  endgenerate

  assign valid_o      = issue;
  assign buf_o        = buf_q;
  assign lane_o       = step_q;
  assign pixel_o      = pixel_q;
  assign word_o       = word_q;
  assign addr_o       = pixel_addr_q + A_W'(quad);
  assign tile_freed_o = early_i ? state_q == BOUNDS : tile_end;
  assign busy_o       = state_q != IDLE || tiles_q != '0;

endmodule

`default_nettype wire
