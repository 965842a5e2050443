// Drain sequencer: reads finished tiles from the partial-sum memory and generates the destination of their results.
//
// Purpose: follows the pass sequencer tile by tile (output-channel group, tile row, tile column) and pixel by pixel.
// Kernels 1 wide take three steps a pixel (three output channels a module). Steps beyond the tensor's last quad are
// skipped. With a fused sum the steps come in every second cycle, counted from start_i. With early_i the buffer is
// released when its drain begins: the first sums of the next tile are written 32 cycles behind the reads, in the same
// pixel order. This is allowed if a pixel takes one step, results are always accepted, and the first pass of a tile
// starts at its first pixel.
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
  logic [A_W-1:0] out_base, out_row_stride, out_tile_row_step, out_tile_col_step;
  logic [program_pkg::QUADS_W-1:0] out_quads;
  logic [program_pkg::DIM_W-1:0] out_w, out_h;
  logic [program_pkg::TILE_W:0] tile_rows, tile_cols;
  assign three_steps       = program_pkg::descriptor_mode(desc_i) == program_pkg::MODE_1;
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
  logic buf_q, turn_q;
  logic [8:0] word_q, group_word_q;
  logic [1:0] step_q;
  logic [program_pkg::DIM_W-1:0] y0_q, x0_q, left_h, left_w;
  logic [program_pkg::TILE_W:0] rows_q, cols_q, col_q;
  logic [A_W-1:0] tile_row_addr_q, tile_addr_q, row_addr_q, pixel_addr_q;
  logic [program_pkg::TILE_W-1:0] pixel_q;

  logic issue, last_step, last_col, last_row, tile_end, last_tx, last_ty;
  logic [9:0] next_quad;
  assign next_quad = {1'b0, word_q + 9'd1} << SHIFT;
  assign issue     = state_q == RUN && room_i && (turn_q || !program_pkg::descriptor_fused(desc_i));
  assign last_step = !three_steps || step_q == 2'd2 || next_quad >= {2'b0, out_quads};
  assign last_col  = col_q == 9'd1;
  assign last_row  = rows_q == 9'd1;
  assign tile_end  = issue && last_step && last_col && last_row;
  assign left_h    = out_h - y0_q;
  assign left_w    = out_w - x0_q;
  assign last_ty   = left_h <= program_pkg::DIM_W'(tile_rows);
  assign last_tx   = left_w <= program_pkg::DIM_W'(tile_cols);

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
    turn_q <= start_i || !turn_q;
    if (start_i) begin
      y0_q            <= '0;
      x0_q            <= '0;
      tile_row_addr_q <= out_base;
      tile_addr_q     <= out_base;
      group_word_q    <= '0;
    end else if (tile_end) begin
      x0_q        <= last_tx ? '0 : x0_q + program_pkg::DIM_W'(tile_cols);
      tile_addr_q <= tile_addr_q + out_tile_col_step;
      if (last_tx) begin
        y0_q            <= last_ty ? '0 : y0_q + program_pkg::DIM_W'(tile_rows);
        tile_row_addr_q <= last_ty ? out_base : tile_row_addr_q + out_tile_row_step;
        tile_addr_q     <= last_ty ? out_base : tile_row_addr_q + out_tile_row_step;
        if (last_ty) group_word_q <= group_word_q + (three_steps ? 9'd3 : 9'd1);
      end
    end
    if (state_q == BOUNDS) begin
      rows_q       <= last_ty ? left_h[8:0] : tile_rows;
      cols_q       <= last_tx ? left_w[8:0] : tile_cols;
      col_q        <= last_tx ? left_w[8:0] : tile_cols;
      row_addr_q   <= tile_addr_q + out_row_stride;
      pixel_addr_q <= tile_addr_q;
      pixel_q      <= '0;
      word_q       <= group_word_q;
      step_q       <= '0;
    end else if (issue) begin
      if (!last_step) begin
        step_q <= step_q + 2'd1;
        word_q <= word_q + 9'd1;
      end else begin
        step_q  <= '0;
        word_q  <= group_word_q;
        pixel_q <= pixel_q + 1'b1;
        if (last_col) begin
          col_q        <= cols_q;
          rows_q       <= rows_q - 9'd1;
          row_addr_q   <= row_addr_q + out_row_stride;
          pixel_addr_q <= row_addr_q;
        end else begin
          col_q        <= col_q - 9'd1;
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
