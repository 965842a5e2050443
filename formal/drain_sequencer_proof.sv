// Drain: the results of a layer go, group by group, tile by tile, pixel by pixel, to base + y * stride + x * quads + quad; with the mask, none lies
// outside its pixel; the partial sums are read in the tile's order.
//
// Narrow addresses (constants of cq_pkg replaced), 4 modules and one small picture a run, at every base and stride and in tiles of any size: sizes that
// are constants keep products out of the solver.
`default_nettype none

module drain_sequencer_proof #(
    parameter OUT_W = 3,
    parameter OUT_H = 3,
    parameter QUADS = 4,
    parameter THREE = 1   // three words a step
) (
    input wire logic clk_i,
    input wire logic rst_ni,
    input wire logic start_i,
    input wire logic tile_done_i,
    input wire logic room_i
);

  localparam int A_W = cq_pkg::QUAD_ADDR_W;
  localparam int D_W = cq_pkg::DIM_W;
  localparam int Q_W = cq_pkg::QUADS_W;
  localparam logic three = THREE != 0;
  localparam logic [Q_W-1:0] quads = QUADS;
  localparam logic [D_W-1:0] out_w = OUT_W;
  localparam logic [D_W-1:0] out_h = OUT_H;
  (* anyconst *) logic [A_W-1:0] base;
  (* anyconst *) logic [A_W-1:0] row_stride;
  (* anyconst *) logic [1:0] tile_rows;
  (* anyconst *) logic [1:0] tile_cols;
  logic freed, busy, valid, buffer, mask;
  logic [1:0] lane;
  logic [7:0] pixel;
  logic [8:0] word;
  logic [A_W-1:0] addr;

  drain_sequencer #(.NUM_MODULES(4)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .start_i(start_i), .tile_done_i(tile_done_i), .room_i(room_i), .early_i(1'b0), .tile_freed_o(freed),
      .busy_o(busy), .three_steps_i(three), .out_base_i(base), .out_row_stride_i(row_stride), .out_quads_i(quads), .out_w_i(out_w),
      .out_h_i(out_h), .tile_rows_i(9'(tile_rows)), .tile_cols_i(9'(tile_cols)), .tile_row_step_i(A_W'(tile_rows) * row_stride),
      .tile_col_step_i(A_W'(tile_cols) * A_W'(quads)), .valid_o(valid), .buf_o(buffer), .lane_o(lane), .pixel_o(pixel), .word_o(word),
      .addr_o(addr), .mask_o(mask)
  );

  // reference: group, tile origin, pixel in the tile, step
  logic past_q = 1'b0, started_q = 1'b0;
  logic [7:0] g_q, ty_q, tx_q, y_q, x_q, s_q, pixel_q;
  logic [7:0] rows, cols, quad, tiles_q;
  assign rows = (8'(out_h) - ty_q < 8'(tile_rows)) ? 8'(out_h) - ty_q : 8'(tile_rows);
  assign cols = (8'(out_w) - tx_q < 8'(tile_cols)) ? 8'(out_w) - tx_q : 8'(tile_cols);
  assign quad = g_q * (three ? 8'd3 : 8'd1) + s_q;
  logic end_step, end_col, end_tile, end_tx, end_ty;
  assign end_step = !three || s_q == 8'd2 || quad + 8'd1 >= 8'(quads);
  assign end_col  = x_q + 8'd1 == cols;
  assign end_tile = end_step && end_col && y_q + 8'd1 == rows;
  assign end_tx   = tx_q + 8'(tile_cols) >= 8'(out_w);
  assign end_ty   = ty_q + 8'(tile_rows) >= 8'(out_h);
  always_ff @(posedge clk_i) begin
    past_q <= 1'b1;
    if (start_i) started_q <= 1'b1;
    if (start_i) begin
      {g_q, ty_q, tx_q, y_q, x_q, s_q, pixel_q} <= '0;
    end else if (valid) begin
      s_q <= end_step ? '0 : s_q + 8'd1;
      if (end_step) begin
        pixel_q <= end_tile ? '0 : pixel_q + 8'd1;
        x_q     <= end_col ? '0 : x_q + 8'd1;
        if (end_col) y_q <= end_tile ? '0 : y_q + 8'd1;
      end
      if (end_tile) begin
        tx_q <= end_tx ? '0 : tx_q + 8'(tile_cols);
        if (end_tx) ty_q <= end_ty ? '0 : ty_q + 8'(tile_rows);
        if (end_tx && end_ty) g_q <= g_q + 8'd1;
      end
    end
    if (!rst_ni) tiles_q <= '0;
    else tiles_q <= tiles_q + 8'(tile_done_i) - 8'(freed);
  end

  always @(*) begin
    if (!past_q) assume (!rst_ni && !start_i && !tile_done_i);
    else assume (rst_ni);
    if (started_q) assume (!start_i);
    if (!started_q) assume (!tile_done_i);
    if (tiles_q >= 8'd2) assume (!tile_done_i);  // two buffers
    assume (tile_rows != '0 && tile_cols != '0);
    assume (8'(row_stride) >= 8'(out_w) * 8'(quads));
    assume (8'(base) + 8'(row_stride) * 8'(out_h - 1'b1) + 8'(out_w) * 8'(quads) <= 8'(1 << A_W));
    // the pass sequencer finishes as many tiles as the layer has
    if (g_q * (three ? 8'd3 : 8'd1) >= 8'(quads)) assume (!tile_done_i && tiles_q == '0);
    if (past_q && rst_ni && valid) begin
      assert (started_q && tiles_q != '0);
      assert (ty_q + y_q < 8'(out_h) && tx_q + x_q < 8'(out_w));
      assert (8'(word) == quad && 8'(lane) == s_q && pixel == pixel_q);
      assert (mask == (quad < 8'(quads)));
      if (mask) assert (8'(addr) == 8'(base) + (ty_q + y_q) * 8'(row_stride) + (tx_q + x_q) * 8'(quads) + quad);
      assert (freed == end_tile);
    end
    cover (past_q && end_tile && end_tx && end_ty && valid && tile_cols == 2'd1);
    cover (past_q && end_tile && end_tx && end_ty && valid && tile_rows == 2'd3 && tile_cols == 2'd2);
  end

endmodule

`default_nettype wire
