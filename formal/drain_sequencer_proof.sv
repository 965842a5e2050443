// Drain: the results of a layer go, group by group, tile by tile, pixel by pixel, to base + y * stride + x * quads +
// quad; with the mask, none lies outside its pixel; the partial sums are read in the tile's order.
//
// By induction, for narrow addresses (constants of program_pkg replaced), 4 modules and feature maps of up to 3 x 3
// pixels, 4 quads, in tiles of any size. Products are written as sums: products of free operands are slow in a solver.
`default_nettype none

module drain_sequencer_proof (
    input wire logic clk_i,
    input wire logic rst_ni,
    input wire logic start_i,
    input wire logic tile_done_i,
    input wire logic room_i
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;
  localparam int D_W = program_pkg::DIM_W;
  localparam int Q_W = program_pkg::QUADS_W;
  (* anyconst *) logic [program_pkg::RECORD_WORDS-1:0][63:0] desc;  // with these fields
  (* anyconst *) logic three;
  (* anyconst *) logic [A_W-1:0] base;
  (* anyconst *) logic [A_W-1:0] row_stride;
  (* anyconst *) logic [2:0] quads;
  (* anyconst *) logic [1:0] out_w;
  (* anyconst *) logic [1:0] out_h;
  (* anyconst *) logic [1:0] tile_rows;
  (* anyconst *) logic [1:0] tile_cols;
  function automatic logic [7:0] times(input logic [7:0] n, input logic [7:0] value);  // n up to 3
    times = (n[0] ? value : 8'd0) + (n[1] ? {value[6:0], 1'b0} : 8'd0);
  endfunction
  logic freed, busy, valid, buffer, mask;
  logic [1:0] lane;
  logic [7:0] pixel;
  logic [8:0] word;
  logic [A_W-1:0] addr;

  drain_sequencer #(.NUM_MODULES(4)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .start_i(start_i), .tile_done_i(tile_done_i), .room_i(room_i), .early_i(1'b0),
      .tile_freed_o(freed),
      .busy_o(busy), .desc_i(desc), .valid_o(valid), .buf_o(buffer), .lane_o(lane), .pixel_o(pixel), .word_o(word),
      .addr_o(addr), .mask_o(mask)
  );

  // reference: group, tile origin, pixel in the tile, step
  logic past_q = 1'b0, started_q = 1'b0;
  logic [7:0] g_q, ty_q, tx_q, y_q, x_q, s_q, pixel_q;
  logic [7:0] rows, cols, group, quad, tiles_q;
  assign rows = (8'(out_h) - ty_q < 8'(tile_rows)) ? 8'(out_h) - ty_q : 8'(tile_rows);
  assign cols = (8'(out_w) - tx_q < 8'(tile_cols)) ? 8'(out_w) - tx_q : 8'(tile_cols);
  assign group = three ? g_q + {g_q[6:0], 1'b0} : g_q;  // first word
  assign quad = group + s_q;
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

  // what induction needs to know of the machine
  (* hierconn *) logic [1:0] \u_dut.state_q ;
  (* hierconn *) logic [1:0] \u_dut.tiles_q ;
  (* hierconn *) logic [1:0] \u_dut.step_q ;
  (* hierconn *) logic [8:0] \u_dut.word_q ;
  (* hierconn *) logic [8:0] \u_dut.group_word_q ;
  (* hierconn *) logic [D_W-1:0] \u_dut.left_h_q ;
  (* hierconn *) logic [D_W-1:0] \u_dut.left_w_q ;
  (* hierconn *) logic \u_dut.last_tx_q ;
  (* hierconn *) logic \u_dut.last_ty_q ;
  (* hierconn *) logic \u_dut.one_row_q ;
  (* hierconn *) logic \u_dut.one_col_q ;
  (* hierconn *) logic \u_dut.row_tiles_q ;
  (* hierconn *) logic \u_dut.col_tiles_q ;
  (* hierconn *) logic \u_dut.second_q ;
  (* hierconn *) logic \u_dut.third_q ;
  (* hierconn *) logic \u_dut.last_step_q ;
  (* hierconn *) logic \u_dut.last_col_q ;
  (* hierconn *) logic \u_dut.last_row_q ;
  (* hierconn *) logic \u_dut.col_init_q ;
  (* hierconn *) logic [8:0] \u_dut.rows_q ;
  (* hierconn *) logic [8:0] \u_dut.cols_q ;
  (* hierconn *) logic [8:0] \u_dut.col_q ;
  (* hierconn *) logic [A_W-1:0] \u_dut.tile_row_addr_q ;
  (* hierconn *) logic [A_W-1:0] \u_dut.tile_addr_q ;
  (* hierconn *) logic [A_W-1:0] \u_dut.row_addr_q ;
  (* hierconn *) logic [A_W-1:0] \u_dut.pixel_addr_q ;
  (* hierconn *) logic [7:0] \u_dut.pixel_q ;

  always @(*) begin
    if (!past_q) assume (!rst_ni && !start_i && !tile_done_i);
    else assume (rst_ni);
    if (started_q) assume (!start_i);
    if (!started_q) assume (!tile_done_i);
    if (tiles_q >= 8'd2) assume (!tile_done_i);  // two buffers
    assume (quads != '0 && quads <= 3'd4 && out_w != '0 && out_h != '0);
    assume (tile_rows != '0 && tile_cols != '0);
    assume (8'(row_stride) >= times(8'(out_w), 8'(quads)));
    assume (8'(base) + times(8'(out_h) - 8'd1, 8'(row_stride)) + times(8'(out_w), 8'(quads)) <= 8'(1 << A_W));
    assume ((program_pkg::descriptor_mode(desc) == program_pkg::MODE_1) == three);
    assume (program_pkg::descriptor_out_base(desc) == base &&
        program_pkg::descriptor_out_row_stride(desc) == row_stride);
    assume (program_pkg::descriptor_out_quads(desc) == Q_W'(quads));
    assume (program_pkg::descriptor_out_w(desc) == D_W'(out_w) && program_pkg::descriptor_out_h(desc) == D_W'(out_h));
    assume (program_pkg::descriptor_tile_rows(desc) == 9'(tile_rows) &&
        program_pkg::descriptor_tile_cols(desc) == 9'(tile_cols));
    assume (program_pkg::descriptor_out_tile_row_step(desc) == A_W'(times(8'(tile_rows), 8'(row_stride))));
    assume (program_pkg::descriptor_out_tile_col_step(desc) == A_W'(times(8'(tile_cols), 8'(quads))));
    // the pass sequencer finishes as many tiles as the layer has
    if (group >= 8'(quads)) assume (!tile_done_i && tiles_q == '0);
    if (past_q && rst_ni && valid) begin
      assert (started_q && tiles_q != '0);
      assert (ty_q + y_q < 8'(out_h) && tx_q + x_q < 8'(out_w));
      assert (8'(word) == quad && 8'(lane) == s_q && pixel == pixel_q);
      assert (mask == (quad < 8'(quads)));
      if (mask) assert (8'(addr) == 8'(base) + times(ty_q + y_q, 8'(row_stride)) + times(tx_q + x_q, 8'(quads)) + quad);
      assert (freed == end_tile);
    end
    // invariants
    if (past_q) begin
      assert (tiles_q <= 8'd2 && 8'(\u_dut.tiles_q ) == tiles_q && \u_dut.state_q != 2'd3);
      if (!started_q) assert (\u_dut.state_q == 2'd0 && tiles_q == '0);
      else begin
        assert (ty_q < 8'(out_h) && tx_q < 8'(out_w) && g_q <= 8'd4);
        assert (\u_dut.left_h_q == D_W'(8'(out_h) - ty_q) && \u_dut.left_w_q == D_W'(8'(out_w) - tx_q));
        assert (\u_dut.group_word_q == 9'(group));
        assert (\u_dut.tile_row_addr_q == A_W'(8'(base) + times(ty_q, 8'(row_stride))));
        assert (\u_dut.tile_addr_q == A_W'(8'(base) + times(ty_q, 8'(row_stride)) + times(tx_q, 8'(quads))));
        if (\u_dut.state_q != 2'd0) begin
          assert (\u_dut.last_tx_q == end_tx && \u_dut.last_ty_q == end_ty);
          assert (\u_dut.one_row_q == (8'(out_h) - ty_q == 8'd1) && \u_dut.one_col_q == (8'(out_w) - tx_q == 8'd1));
          assert (\u_dut.row_tiles_q == (tile_rows == 2'd1) && \u_dut.col_tiles_q == (tile_cols == 2'd1));
          assert (\u_dut.second_q == (three && group + 8'd1 < 8'(quads)));
          assert (\u_dut.third_q == (three && group + 8'd2 < 8'(quads)));
        end
        if (\u_dut.state_q == 2'd2) begin
          assert (\u_dut.last_step_q == end_step && \u_dut.last_col_q == end_col && \u_dut.last_row_q == (y_q +
              8'd1 == rows) && \u_dut.col_init_q == (cols == 8'd1));
          assert (tiles_q != '0 && group < 8'(quads) && y_q < rows && x_q < cols && s_q < 8'd3 && (s_q == '0 ||
              (three && quad < 8'(quads))));
          assert (\u_dut.rows_q == 9'(rows - y_q) && \u_dut.cols_q == 9'(cols) && \u_dut.col_q == 9'(cols - x_q));
          assert (\u_dut.word_q == 9'(quad) && 8'(\u_dut.step_q ) == s_q && \u_dut.pixel_q == pixel_q);
          assert (\u_dut.pixel_addr_q == A_W'(8'(base) + times(ty_q + y_q, 8'(row_stride)) + times(tx_q + x_q,
              8'(quads))));
          assert (\u_dut.row_addr_q == A_W'(8'(base) + times(ty_q + y_q + 8'd1, 8'(row_stride)) + times(tx_q,
              8'(quads))));
        end else begin
          assert ({y_q, x_q, s_q, pixel_q} == '0 && (\u_dut.state_q == 2'd0 || tiles_q != '0));
        end
      end
    end
    cover (past_q && valid && mask && g_q == 8'd1 && three);
    cover (past_q && valid && tx_q != '0 && ty_q != '0 && s_q == 8'd1);
  end

endmodule

`default_nettype wire
