// Pass planner: iterates the loops of a conv layer and prepares one pass after the other.
//
// Purpose: the loops are, outermost first: output-channel group, tile row, tile column, input-channel group, kernel row
// (or group of vertical taps), row piece. One iteration is a pass: one weight set over the pixels of one tile. The next
// pass is prepared while a pass runs, with additions only: the part of it inside the image, its first address and the
// masks of its first position. Kernel rows outside the image are skipped; columns outside it are masked. No path is
// longer than an addition and a choice: what follows from the loops is a chain of registers, which have settled when
// the masks have been scanned, and whether a loop ends is known before it steps.
// Latency: 11 cycles from start_i or consumed_i to ready_o, which a cycle later may be answered by consumed_i.
// Throughput: one pass in 12 cycles.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module pass_planner #(
    localparam int S_W = program_pkg::DIM_W + 2  // signed row and column numbers
) (
    input  wire logic                                clk_i,
    input  wire logic                                rst_ni,
    input  wire logic                                start_i,       // desc_i is constant from here to the last pass
    output wire logic                                more_o,        // passes are left
    input  wire logic [program_pkg::RECORD_WORDS-1:0][63:0] desc_i,
    // the next pass
    output wire logic                                ready_o,       // it is prepared in the next cycle
    input  wire logic                                consumed_i,    // it was taken or dropped
    output wire logic                                empty_o,       // no position: to be dropped
    output wire logic                                tile_first_o,  // first pass of its tile
    output wire logic                                tile_last_o,   // last pass of its tile
    output wire logic                                near_o,        // begins at a last pixel of the pass before
    output wire logic                                first_row_o,   // first contribution to the pixels of its first row
    output wire logic                                first_rest_o,  // ... of the others
    output wire logic                                buf_o,         // partial-sum buffer
    output wire logic [program_pkg::TILE_W-1:0]      pixel_o,       // of the first position
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] addr_o,        // of the first slot
    output wire logic [S_W-1:0]                      rows_o,        // of positions
    output wire logic                                row_last_o,    // there is one
    output wire logic [S_W-1:0]                      cols_rest_o,   // positions of a row behind its first one
    output wire logic [S_W-1:0]                      slots_rest_o,  // slots of a row behind its first one
    output wire logic                                slot_last_o,   // there are none
    output wire logic [2:0]                          delay_o,       // slots by which tags trail
    output wire logic [S_W-1:0]                      col_o,         // column that enters the window next
    output wire logic [4:0]                          col_mask_o,    // of a row's first position
    output wire logic [7:0]                          row_mask_o,    // of the first row
    output wire logic [S_W-1:0]                      mask_row_o     // input row that enters the row mask next
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;

  localparam logic [2:0] IDLE = 3'd0, STEP = 3'd1, RELOAD = 3'd2, PREPARE = 3'd3, READY = 3'd4;

  // ---------------------------------------------------------------- the layer
  logic vertical, pair, stride_h, stride_w;  // strides less one
  logic [A_W-1:0] in_base, in_row_stride, row_base0, in_tile_row_step, col_base0, in_tile_col_step;
  logic [A_W-1:0] kr_addr_step, piece_addr_step, window_addr;
  logic [program_pkg::DIM_W-1:0] in_w, in_h, out_w, out_h;
  logic [program_pkg::TILE_W:0] tile_rows, tile_cols;
  logic [3:0] kr_count, kr_step, pad_h, pad_w, pieces, read_quads;
  logic [2:0] window;
  logic [7:0] channel_groups, output_groups;
  assign vertical         = program_pkg::descriptor_vertical(desc_i);
  assign pair             = program_pkg::descriptor_pair(desc_i);
  assign stride_h         = program_pkg::descriptor_stride_h(desc_i);
  assign stride_w         = program_pkg::descriptor_stride_w(desc_i);
  assign in_base          = program_pkg::descriptor_in_base(desc_i);
  assign in_row_stride    = program_pkg::descriptor_in_row_stride(desc_i);
  assign in_w             = program_pkg::descriptor_in_w(desc_i);
  assign in_h             = program_pkg::descriptor_in_h(desc_i);
  assign out_w            = program_pkg::descriptor_out_w(desc_i);
  assign out_h            = program_pkg::descriptor_out_h(desc_i);
  assign row_base0        = program_pkg::descriptor_row_base0(desc_i);
  assign in_tile_row_step = program_pkg::descriptor_in_tile_row_step(desc_i);
  assign col_base0        = program_pkg::descriptor_col_base0(desc_i);
  assign in_tile_col_step = program_pkg::descriptor_in_tile_col_step(desc_i);
  assign kr_addr_step     = program_pkg::descriptor_kr_addr_step(desc_i);
  assign piece_addr_step  = program_pkg::descriptor_piece_addr_step(desc_i);
  assign window_addr      = program_pkg::descriptor_window_addr(desc_i);
  assign tile_rows        = program_pkg::descriptor_tile_rows(desc_i);
  assign tile_cols        = program_pkg::descriptor_tile_cols(desc_i);
  assign kr_count         = program_pkg::descriptor_kr_count(desc_i);
  assign kr_step          = program_pkg::descriptor_kr_step(desc_i);
  assign pad_h            = program_pkg::descriptor_pad_h(desc_i);
  assign pad_w            = program_pkg::descriptor_pad_w(desc_i);
  assign pieces           = program_pkg::descriptor_pieces(desc_i);
  assign window           = program_pkg::descriptor_window(desc_i);
  assign channel_groups   = program_pkg::descriptor_channel_groups(desc_i);
  assign read_quads       = program_pkg::descriptor_read_quads(desc_i);
  assign output_groups    = program_pkg::descriptor_output_groups(desc_i);

  // The layer's sizes as signed numbers.
  logic signed [S_W-1:0] neg_pad_h, neg_pad_w, in_w_s, in_h_s, out_w_s, out_h_s, rows_s, cols_s, window_s, kr_step_s;
  assign neg_pad_h = -$signed({{(S_W - 4) {1'b0}}, pad_h});
  assign neg_pad_w = -$signed({{(S_W - 4) {1'b0}}, pad_w});
  assign in_w_s    = {{(S_W - program_pkg::DIM_W) {1'b0}}, in_w};
  assign in_h_s    = {{(S_W - program_pkg::DIM_W) {1'b0}}, in_h};
  assign out_w_s   = {{(S_W - program_pkg::DIM_W) {1'b0}}, out_w};
  assign out_h_s   = {{(S_W - program_pkg::DIM_W) {1'b0}}, out_h};
  assign rows_s    = {{(S_W - 9) {1'b0}}, tile_rows};
  assign cols_s    = {{(S_W - 9) {1'b0}}, tile_cols};
  assign window_s  = {{(S_W - 3) {1'b0}}, window};
  assign kr_step_s = {{(S_W - 4) {1'b0}}, kr_step};

  logic signed [S_W-1:0] round_up;  // so that halves are rounded up
  assign round_up = {{(S_W - 1) {1'b0}}, stride_h};

  logic signed [S_W-1:0] in_last_q, in_below_q, window_rest_q;
  logic [A_W-1:0] second_row_q;
  always_ff @(posedge clk_i) begin
    in_last_q     <= in_w_s - S_W'(1);
    in_below_q    <= in_h_s + round_up;
    window_rest_q <= window_s - S_W'(1);
    second_row_q  <= in_base + in_row_stride;
  end

  // ---------------------------------------------------------------- states
  logic [2:0] state_q;
  logic [3:0] phase_q;  // of PREPARE, 7 to 15: masks are scanned from 8 on
  logic more_q, ready_q;  // loops not finished; state READY follows or is reached
  logic [5:0] ends_q;  // loops at their end, with all inside them: piece, kernel row, channels, column, row, outputs
  logic scanning;
  assign scanning = state_q == PREPARE && phase_q[3];

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= IDLE;
      more_q  <= 1'b0;
      ready_q <= 1'b0;
    end else begin
      case (state_q)
        IDLE: if (start_i) begin
          state_q <= STEP;
          more_q  <= 1'b1;
        end
        STEP: state_q <= RELOAD;
        RELOAD: state_q <= PREPARE;
        PREPARE: begin
          if (phase_q == 4'd14) ready_q <= 1'b1;
          if (phase_q == 4'd15) state_q <= READY;
        end
        default: if (consumed_i) begin
          state_q <= ends_q[5] ? IDLE : STEP;
          more_q  <= !ends_q[5];
          ready_q <= 1'b0;
        end
      endcase
    end
    phase_q <= (state_q == PREPARE) ? phase_q + 4'd1 : 4'd7;
  end

  // ---------------------------------------------------------------- loops
  logic [7:0] og_q, cg_q;
  logic [3:0] kr_q, piece_q;
  logic signed [S_W-1:0] y0_q, x0_q;             // first output pixel of the tile
  logic signed [S_W-1:0] row_q;                  // input row of the tile's first output row at this kernel row
  logic signed [S_W-1:0] tile_row_q;             // ... at kernel row 0
  // leftmost column of the first output's window: of this piece, of piece 0
  logic signed [S_W-1:0] col_q, tile_col_q;
  logic [A_W-1:0] row_addr_q, tile_row_addr_q, col_addr_q, tile_col_addr_q, cg_addr_q;
  logic buf_q;
  logic signed [S_W-1:0] left_over_h_q, left_over_w_q;

  // Before the first pass all loops are at their end: its step starts each of them.
  logic [5:0] last_q;
  always_ff @(posedge clk_i) begin
    last_q[0] <= piece_q + 4'd1 == pieces;
    last_q[1] <= kr_q + 4'd1 == kr_count;
    last_q[2] <= cg_q + 8'd1 == channel_groups;
    last_q[3] <= left_over_w_q <= cols_s;
    last_q[4] <= left_over_h_q <= rows_s;
    last_q[5] <= og_q + 8'd1 == output_groups;
    if (state_q == IDLE) ends_q <= '1;
    else if (state_q == PREPARE)
      ends_q <= {&last_q, &last_q[4:0], &last_q[3:0], &last_q[2:0], &last_q[1:0], last_q[0]};
  end

  // The innermost loop that is not at its end moves on, those inside it start again.
  always_ff @(posedge clk_i) begin
    if (state_q == STEP) begin
      piece_q <= ends_q[0] ? '0 : piece_q + 4'd1;
      if (ends_q[0]) kr_q <= ends_q[1] ? '0 : kr_q + 4'd1;
      if (ends_q[1]) begin
        cg_q      <= ends_q[2] ? '0 : cg_q + 8'd1;
        cg_addr_q <= ends_q[2] ? '0 : cg_addr_q + A_W'(read_quads);
      end
      if (ends_q[2]) begin
        x0_q            <= ends_q[3] ? '0 : x0_q + cols_s;
        tile_col_q      <= ends_q[3] ? neg_pad_w : tile_col_q + (cols_s << stride_w);
        tile_col_addr_q <= ends_q[3] ? col_base0 : tile_col_addr_q + in_tile_col_step;
      end
      if (ends_q[3]) begin
        y0_q            <= ends_q[4] ? '0 : y0_q + rows_s;
        tile_row_q      <= ends_q[4] ? neg_pad_h : tile_row_q + (rows_s << stride_h);
        tile_row_addr_q <= ends_q[4] ? row_base0 : tile_row_addr_q + in_tile_row_step;
      end
      if (ends_q[4]) og_q <= ends_q[5] ? '0 : og_q + 8'd1;
    end
    if (state_q == RELOAD) begin
      col_q      <= ends_q[0] ? tile_col_q : col_q + window_s;
      col_addr_q <= ends_q[0] ? tile_col_addr_q : col_addr_q + piece_addr_step;
      if (ends_q[0]) begin
        row_q      <= ends_q[1] ? tile_row_q : row_q + kr_step_s;
        row_addr_q <= ends_q[1] ? tile_row_addr_q : row_addr_q + kr_addr_step;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) buf_q <= 1'b1;  // the first tile's is buffer 0
    else if (state_q == STEP && ends_q[2]) buf_q <= !buf_q;
  end

  // ---------------------------------------------------------------- geometry of the pass: one operation a register
  logic signed [S_W-1:0] tile_h_q, tile_w_q, tile_w_rest_q, neg_row_q, above_q, below_q, right_q;
  logic signed [S_W-1:0] rows_end_q, start_col_q, sum_col_q, end_col_q, span_q;
  logic empty_q, first_row_q, first_rest_q, row_last_q, slot_last_q;
  logic [A_W-1:0] first_addr_q, group_addr_q, edge_addr_q, column_addr_q, addr_q;
  logic signed [S_W-1:0] rows_q, slots_rest_q, next_col_q;
  logic [2:0] delay_q;

  logic outside_left;  // even the rightmost column of the first window lies left of the image
  assign outside_left = right_q < 0;
  // With stride 2 the image's first row may lie between the rows of two windows: then the second one is read first.
  logic between;
  assign between = stride_h && row_q[0];

  always_ff @(posedge clk_i) begin
    left_over_h_q <= out_h_s - y0_q;
    left_over_w_q <= out_w_s - x0_q;
    tile_h_q      <= (left_over_h_q < rows_s) ? left_over_h_q : rows_s;
    tile_w_q      <= (left_over_w_q < cols_s) ? left_over_w_q : cols_s;
    tile_w_rest_q <= tile_w_q - S_W'(1);
    // rows
    neg_row_q    <= (round_up - row_q) >>> stride_h;
    above_q      <= (row_q < 0 && !vertical) ? neg_row_q : '0;            // rows above the image
    below_q      <= (in_below_q - row_q) >>> stride_h;  // rows of the tile above the image's lower edge
    rows_end_q   <= (vertical || tile_h_q < below_q) ? tile_h_q : below_q;
    rows_q       <= rows_end_q - above_q;
    empty_q      <= rows_end_q <= above_q;
    row_last_q   <= rows_q == S_W'(1);
    first_rest_q <= cg_q == 0 && piece_q == 0 && kr_q == 0;
    first_row_q  <= cg_q == 0 && piece_q == 0 && (kr_q == 0 || (!vertical && row_q <= 0 && !between));
    // columns
    right_q      <= col_q + window_rest_q;  // rightmost column of the first window
    next_col_q   <= right_q + (stride_w ? S_W'(2) : S_W'(1));
    delay_q      <= (col_q >= 0) ? window - 3'd1 : (outside_left ? 3'd0 : right_q[2:0]);
    start_col_q  <= (col_q >= 0) ? col_q : (outside_left ? right_q : '0);
    sum_col_q    <= right_q + tile_w_rest_q;
    end_col_q    <= (sum_col_q > in_last_q) ? in_last_q : sum_col_q;
    span_q       <= end_col_q - start_col_q;
    slots_rest_q <= (span_q > tile_w_rest_q) ? span_q : tile_w_rest_q;
    slot_last_q  <= slots_rest_q == 0;
    // address
    first_addr_q  <= (above_q == 0) ? row_addr_q : (between ? second_row_q : in_base);
    group_addr_q  <= first_addr_q + cg_addr_q;
    edge_addr_q   <= col_addr_q + window_addr;
    column_addr_q <= (col_q >= 0) ? col_addr_q : (outside_left ? edge_addr_q : '0);
    addr_q        <= group_addr_q + column_addr_q;
  end

  // Rows from the first one of this pass to the last one of the pass before, in the same tile: where they are few and
  // short, a pixel returns before its sum is written.
  logic [program_pkg::TILE_W:0] before_end_q, common_q;
  logic few_q, near_q;
  logic [5:0] pixels_q;
  always_ff @(posedge clk_i) begin
    if (state_q == STEP) before_end_q <= ends_q[2] ? '0 : rows_end_q[program_pkg::TILE_W:0];
    common_q <= before_end_q - {5'd0, above_q[3:0]};  // below zero: far from few
    few_q    <= common_q != 0 && common_q < 9'd8 && tile_w_q < 8;
    pixels_q <= 6'(common_q[2:0]) * 6'(tile_w_q[2:0]);
    near_q   <= few_q && pixels_q <= 6'(cq_pkg::SUM_DELAY);
  end

  // Pixels of the rows that are skipped, bit by bit.
  logic [program_pkg::TILE_W-1:0] pixel_q, skip_step_q;
  logic [3:0] skipped_q;
  always_ff @(posedge clk_i) begin
    if (state_q == PREPARE) begin
      if (phase_q < 4'd11) begin
        pixel_q     <= '0;
        skipped_q   <= above_q[3:0];
        skip_step_q <= tile_cols[program_pkg::TILE_W-1:0];
      end else begin
        skipped_q   <= skipped_q >> 1;
        skip_step_q <= skip_step_q << 1;
        if (skipped_q[0]) pixel_q <= pixel_q + skip_step_q;
      end
    end
  end

  // Column and row masks of the first position, one comparison a cycle.
  logic signed [S_W-1:0] scan_col_q, scan_row_q;
  logic [4:0] col_mask_q;
  logic [7:0] row_mask_q;
  logic scan_col_in, scan_row_in;
  assign scan_col_in = scan_col_q >= 0 && scan_col_q < in_w_s;
  assign scan_row_in = !vertical || (scan_row_q >= 0 && scan_row_q < in_h_s);
  always_ff @(posedge clk_i) begin
    if (scanning) begin
      if (phase_q[2:0] < window) col_mask_q <= {col_mask_q[3:0], scan_col_in};
      row_mask_q <= {scan_row_in, row_mask_q[7:1]};
      scan_col_q <= scan_col_q + S_W'(1);
      if (!pair || phase_q[1:0] == 2'd3) scan_row_q <= scan_row_q + S_W'(1);  // four quads of a row
    end else if (state_q == PREPARE) begin
      scan_col_q <= col_q;
      scan_row_q <= row_q;
    end
  end

  assign more_o       = more_q;
  assign ready_o      = ready_q;
  assign empty_o      = empty_q;
  assign tile_first_o = first_rest_q;
  assign tile_last_o  = ends_q[2];
  assign near_o       = near_q;
  assign first_row_o  = first_row_q;
  assign first_rest_o = first_rest_q;
  assign buf_o        = buf_q;
  assign pixel_o      = pixel_q;
  assign addr_o       = addr_q;
  assign rows_o       = rows_q;
  assign row_last_o   = row_last_q;
  assign cols_rest_o  = tile_w_rest_q;
  assign slots_rest_o = slots_rest_q;
  assign slot_last_o  = slot_last_q;
  assign delay_o      = delay_q;
  assign col_o        = next_col_q;
  assign col_mask_o   = col_mask_q;
  assign row_mask_o   = row_mask_q;
  assign mask_row_o   = scan_row_q;

endmodule

`default_nettype wire
