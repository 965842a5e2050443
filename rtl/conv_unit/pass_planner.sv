// Pass planner: iterates the loops of a conv layer and prepares one pass after the other.
//
// Purpose: the loops are, outermost first: output-channel group, tile row, tile column, input-channel group, kernel row
// (or group of vertical taps), row piece. One iteration is a pass: one weight set over the pixels of one tile. The next
// pass is prepared while a pass runs, with additions only: the part of it inside the image, its first address and the
// masks of its first position. Kernel rows outside the image are skipped; columns outside it are masked.
// Latency: 12 cycles from start_i or consumed_i to ready_o.
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
    output wire logic                                ready_o,       // it is prepared
    input  wire logic                                consumed_i,    // it was taken or dropped
    output wire logic                                empty_o,       // no position: to be dropped
    output wire logic                                tile_first_o,  // first pass of its tile
    output wire logic                                tile_last_o,   // last pass of its tile
    output wire logic                                first_row_o,   // first contribution to the pixels of its first row
    output wire logic                                first_rest_o,  // ... of the others
    output wire logic                                buf_o,         // partial-sum buffer
    output wire logic [program_pkg::TILE_W-1:0]      pixel_o,       // of the first position
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] addr_o,        // of the first slot
    output wire logic [S_W-1:0]                      rows_o,        // of positions
    output wire logic [S_W-1:0]                      cols_o,        // positions of a row
    output wire logic [S_W-1:0]                      len_o,         // slots of a row
    output wire logic [2:0]                          delay_o,       // slots by which tags trail
    output wire logic [S_W-1:0]                      col_o,         // column that enters the window next
    output wire logic [4:0]                          col_mask_o,    // of a row's first position
    output wire logic [7:0]                          row_mask_o,    // of the first row
    output wire logic [S_W-1:0]                      mask_row_o     // input row that enters the row mask next
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;

  localparam logic [2:0] IDLE = 3'd0, BOUNDS = 3'd1, LIMITS = 3'd2, EXTENT = 3'd3, SCAN = 3'd4, READY = 3'd5;

  // ---------------------------------------------------------------- the layer
  logic vertical, pair, stride_h, stride_w;  // strides less one
  logic [A_W-1:0] in_base, row_base0, in_tile_row_step, col_base0, in_tile_col_step;
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

  // ---------------------------------------------------------------- loops
  logic [2:0] state_q;
  logic [7:0] og_q, cg_q;
  logic [3:0] kr_q, piece_q;
  logic signed [S_W-1:0] y0_q, x0_q;             // first output pixel of the tile
  logic signed [S_W-1:0] row_q;                  // input row of the tile's first output row at this kernel row
  logic signed [S_W-1:0] tile_row_q;             // ... at kernel row 0
  // leftmost column of the first output's window: of this piece, of piece 0
  logic signed [S_W-1:0] col_q, tile_col_q;
  logic [A_W-1:0] row_addr_q, tile_row_addr_q, col_addr_q, tile_col_addr_q, cg_addr_q;
  logic buf_q;

  logic last_piece, last_kr, last_cg, last_tx, last_ty, last_og;
  assign last_piece = piece_q + 4'd1 == pieces;
  assign last_kr    = kr_q + 4'd1 == kr_count;
  assign last_cg    = cg_q + 8'd1 == channel_groups;
  assign last_tx    = x0_q + cols_s >= out_w_s;
  assign last_ty    = y0_q + rows_s >= out_h_s;
  assign last_og    = og_q + 8'd1 == output_groups;

  // ---------------------------------------------------------------- set-up of the next pass
  logic signed [S_W-1:0] tile_h_q, tile_w_q, above_q, below_q, right_q;
  logic signed [S_W-1:0] rows_end_q, start_col_q, end_col_q;
  logic signed [S_W-1:0] scan_col_q, scan_row_q;
  logic [2:0] scan_q;

  logic next_empty_q, next_first_row_q, next_first_rest_q, next_tile_first_q, next_tile_last_q, next_buf_q;
  logic [A_W-1:0] next_addr_q;
  logic signed [S_W-1:0] next_rows_q, next_len_q, next_cols_q, next_col_q;
  logic [2:0] next_delay_q;
  logic [4:0] next_col_mask_q;
  logic [7:0] next_row_mask_q;
  logic [program_pkg::TILE_W-1:0] next_pixel_q, skip_step_q;
  logic [3:0] skipped_q;
  logic more_q;  // loops not finished

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= IDLE;
      more_q  <= 1'b0;
    end else begin
      case (state_q)
        IDLE: if (start_i) begin
          state_q <= BOUNDS;
          more_q  <= 1'b1;
        end
        BOUNDS: state_q <= LIMITS;
        LIMITS: state_q <= EXTENT;
        EXTENT: state_q <= SCAN;
        SCAN: if (scan_q == 3'd7) state_q <= READY;
        default: if (consumed_i) begin
          state_q <= (last_piece && last_kr && last_cg && last_tx && last_ty && last_og) ? IDLE : BOUNDS;
          if (last_piece && last_kr && last_cg && last_tx && last_ty && last_og) more_q <= 1'b0;
        end
      endcase
    end
  end

  // Steps of the loops: the innermost that is not at its end moves on, those inside it start again.
  logic step_kr, step_cg, step_tx, step_ty, step_og;
  assign step_kr = consumed_i && last_piece;
  assign step_cg = step_kr && last_kr;
  assign step_tx = step_cg && last_cg;
  assign step_ty = step_tx && last_tx;
  assign step_og = step_ty && last_ty;

  logic first_of_layer;
  assign first_of_layer = state_q == IDLE;

  logic signed [S_W-1:0] tile_row_d, tile_col_d, row_d;
  logic [A_W-1:0] tile_row_addr_d, tile_col_addr_d, row_addr_d;
  always_comb begin
    tile_row_d      = tile_row_q;
    tile_row_addr_d = tile_row_addr_q;
    if (first_of_layer || step_og) begin
      tile_row_d      = neg_pad_h;
      tile_row_addr_d = row_base0;
    end else if (step_ty) begin
      tile_row_d      = tile_row_q + (rows_s << stride_h);
      tile_row_addr_d = tile_row_addr_q + in_tile_row_step;
    end
    tile_col_d      = tile_col_q;
    tile_col_addr_d = tile_col_addr_q;
    if (first_of_layer || step_ty) begin
      tile_col_d      = neg_pad_w;
      tile_col_addr_d = col_base0;
    end else if (step_tx) begin
      tile_col_d      = tile_col_q + (cols_s << stride_w);
      tile_col_addr_d = tile_col_addr_q + in_tile_col_step;
    end
    row_d      = row_q;
    row_addr_d = row_addr_q;
    if (first_of_layer || step_cg) begin
      row_d      = tile_row_d;
      row_addr_d = tile_row_addr_d;
    end else if (step_kr) begin
      row_d      = row_q + kr_step_s;
      row_addr_d = row_addr_q + kr_addr_step;
    end
  end

  always_ff @(posedge clk_i) begin
    tile_row_q      <= tile_row_d;
    tile_row_addr_q <= tile_row_addr_d;
    tile_col_q      <= tile_col_d;
    tile_col_addr_q <= tile_col_addr_d;
    row_q           <= row_d;
    row_addr_q      <= row_addr_d;
    if (first_of_layer || step_kr) begin
      col_q      <= tile_col_d;
      col_addr_q <= tile_col_addr_d;
      piece_q    <= '0;
    end else if (consumed_i) begin
      col_q      <= col_q + window_s;
      col_addr_q <= col_addr_q + piece_addr_step;
      piece_q    <= piece_q + 4'd1;
    end
    if (first_of_layer || step_cg) kr_q <= '0;
    else if (step_kr) kr_q <= kr_q + 4'd1;
    if (first_of_layer || step_tx) begin
      cg_q      <= '0;
      cg_addr_q <= '0;
    end else if (step_cg) begin
      cg_q      <= cg_q + 8'd1;
      cg_addr_q <= cg_addr_q + A_W'(read_quads);
    end
    if (first_of_layer || step_ty) x0_q <= '0;
    else if (step_tx) x0_q <= x0_q + cols_s;
    if (first_of_layer || step_og) y0_q <= '0;
    else if (step_ty) y0_q <= y0_q + rows_s;
    if (first_of_layer) og_q <= '0;
    else if (step_og) og_q <= og_q + 8'd1;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) buf_q <= 1'b0;
    else if (step_tx) buf_q <= !buf_q;
  end

  // The geometry of the pass: one addition or comparison per register and state.
  logic signed [S_W-1:0] left_over_h, left_over_w;
  assign left_over_h = out_h_s - y0_q;
  assign left_over_w = out_w_s - x0_q;

  logic outside_left;  // even the rightmost column of the first window lies left of the image
  assign outside_left = right_q < 0;

  // With stride 2 the image's first row may lie between the rows of two windows: then the second one is read first.
  logic between;
  logic signed [S_W-1:0] round_up;  // so that halves are rounded up
  logic [A_W-1:0] second_row_q, first_row_addr;
  assign between        = stride_h && row_q[0];
  assign round_up       = {{(S_W - 1) {1'b0}}, stride_h};
  assign first_row_addr = (above_q == 0) ? row_addr_q : (between ? second_row_q : in_base);
  always_ff @(posedge clk_i) second_row_q <= in_base + program_pkg::descriptor_in_row_stride(desc_i);

  logic signed [S_W-1:0] length;
  assign length = end_col_q - start_col_q + S_W'(1);

  always_ff @(posedge clk_i) begin
    case (state_q)
      BOUNDS: begin
        tile_h_q <= (left_over_h < rows_s) ? left_over_h : rows_s;
        tile_w_q <= (left_over_w < cols_s) ? left_over_w : cols_s;
        above_q  <= (row_q < 0 && !vertical) ? (round_up - row_q) >>> stride_h : '0;  // rows above the image
        below_q  <= (in_h_s + round_up - row_q) >>> stride_h;  // rows of the tile above the image's lower edge
        right_q  <= col_q + window_s - S_W'(1);                // rightmost column of the first window
      end
      LIMITS: begin
        rows_end_q  <= (vertical || tile_h_q < below_q) ? tile_h_q : below_q;
        start_col_q <= (col_q >= 0) ? col_q : (outside_left ? right_q : '0);
        end_col_q   <= (right_q + tile_w_q > in_w_s) ? in_w_s - S_W'(1) : right_q + tile_w_q - S_W'(1);
        next_delay_q <= (col_q >= 0) ? window - 3'd1 : (outside_left ? 3'd0 : right_q[2:0]);
        next_addr_q <= first_row_addr + cg_addr_q;
        next_pixel_q <= '0;
        skipped_q    <= above_q[3:0];
        skip_step_q  <= tile_cols[program_pkg::TILE_W-1:0];
        next_cols_q <= tile_w_q;
        next_col_q  <= right_q + (stride_w ? S_W'(2) : S_W'(1));
      end
      EXTENT: begin
        next_rows_q  <= rows_end_q - above_q;
        next_empty_q <= rows_end_q <= above_q;
        next_len_q   <= (length > tile_w_q) ? length : tile_w_q;
        next_addr_q  <= next_addr_q + ((col_q >= 0) ? col_addr_q : (outside_left ? col_addr_q + window_addr : '0));
        next_first_rest_q <= cg_q == 0 && piece_q == 0 && kr_q == 0;
        next_first_row_q  <= cg_q == 0 && piece_q == 0 && (kr_q == 0 || (!vertical && row_q <= 0 && !between));
        next_tile_first_q <= cg_q == 0 && piece_q == 0 && kr_q == 0;
        next_tile_last_q  <= last_cg && last_piece && last_kr;
        next_buf_q        <= buf_q;
      end
      SCAN: begin  // pixels of the rows that are skipped, bit by bit
        skipped_q    <= skipped_q >> 1;
        skip_step_q  <= skip_step_q << 1;
        if (skipped_q[0]) next_pixel_q <= next_pixel_q + skip_step_q;
      end
      default: ;
    endcase
  end

  // Column and row masks of the first position, one comparison a cycle.
  logic scan_col_in, scan_row_in;
  assign scan_col_in = scan_col_q >= 0 && scan_col_q < in_w_s;
  assign scan_row_in = !vertical || (scan_row_q >= 0 && scan_row_q < in_h_s);
  always_ff @(posedge clk_i) begin
    if (state_q != SCAN) begin
      scan_q <= '0;
    end else begin
      scan_q <= scan_q + 3'd1;
      if (scan_q < window) next_col_mask_q <= {next_col_mask_q[3:0], scan_col_in};
      next_row_mask_q <= {scan_row_in, next_row_mask_q[7:1]};
    end
    if (state_q == SCAN) begin
      scan_col_q <= scan_col_q + S_W'(1);
      if (!pair || scan_q[1:0] == 2'd3) scan_row_q <= scan_row_q + S_W'(1);  // four quads of a row
    end else if (state_q == LIMITS) begin
      scan_col_q <= col_q;
      scan_row_q <= row_q;
    end
  end

  assign more_o       = more_q;
  assign ready_o      = state_q == READY;
  assign empty_o      = next_empty_q;
  assign tile_first_o = next_tile_first_q;
  assign tile_last_o  = next_tile_last_q;
  assign first_row_o  = next_first_row_q;
  assign first_rest_o = next_first_rest_q;
  assign buf_o        = next_buf_q;
  assign pixel_o      = next_pixel_q;
  assign addr_o       = next_addr_q;
  assign rows_o       = next_rows_q;
  assign cols_o       = next_cols_q;
  assign len_o        = next_len_q;
  assign delay_o      = next_delay_q;
  assign col_o        = next_col_q;
  assign col_mask_o   = next_col_mask_q;
  assign row_mask_o   = next_row_mask_q;
  assign mask_row_o   = scan_row_q;

endmodule

`default_nettype wire
