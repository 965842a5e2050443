// Pooling's address generators (planner and walker): for every output pixel, channel group by group, exactly the pixels
// of its window that lie in the feature map are read, in order, at base + y * stride + x * quads + group.  No pixel
// outside the feature map is read.  The first and last read of a window and the end of the feature map are marked.
//
// Narrow addresses (constants of program_pkg replaced) and one small feature map a run, at every base and stride, with
// every number of output pixels whose windows the compiler allows: the padding is smaller than the kernel, each window
// meets the feature map. Sizes that are constants keep products out of the solver.
`default_nettype none

module pool_proof #(
    parameter IN_W = 1,
    parameter IN_H = 1,
    parameter KERNEL_W = 1,
    parameter KERNEL_H = 1,
    parameter STRIDE_W = 1,
    parameter STRIDE_H = 1,
    parameter PAD_W = 0,
    parameter PAD_H = 0,
    parameter QUADS = 1
) (
    input wire logic clk_i,
    input wire logic rst_ni,
    input wire logic start_i,
    input wire logic room_i
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;
  localparam int D_W = program_pkg::DIM_W;
  localparam int Q_W = program_pkg::QUADS_W;
  (* anyconst *) logic [A_W-1:0] base;
  (* anyconst *) logic [A_W-1:0] row_stride;
  localparam logic [Q_W-1:0] quads = QUADS;
  localparam logic [D_W-1:0] in_w = IN_W;
  localparam logic [D_W-1:0] in_h = IN_H;
  localparam logic [D_W-1:0] kernel_w = KERNEL_W;
  localparam logic [D_W-1:0] kernel_h = KERNEL_H;
  localparam logic [D_W-1:0] stride_w = STRIDE_W;
  localparam logic [D_W-1:0] stride_h = STRIDE_H;
  localparam logic [D_W-1:0] pad_w = PAD_W;
  localparam logic [D_W-1:0] pad_h = PAD_H;
  (* anyconst *) logic [D_W-1:0] out_w;
  (* anyconst *) logic [D_W-1:0] out_h;

  logic window_valid, window_ready, one_row, one_col, window_row_end, window_last;
  logic [A_W-1:0] window_addr, rd_addr;
  logic [D_W-1:0] rows, cols;
  logic rd_valid, first, last, group_end, row_end, map_end;

  pool_planner u_planner (
      .clk_i(clk_i), .rst_ni(rst_ni), .start_i(start_i), .in_base_i(base), .in_w_i(in_w), .in_h_i(in_h), .q_i(quads),
      .in_row_stride_i(row_stride), .out_w_i(out_w), .out_h_i(out_h), .kernel_h_i(kernel_h), .kernel_w_i(kernel_w),
      .stride_h_i(stride_h),
      .stride_w_i(stride_w), .pad_h_i(pad_h), .pad_w_i(pad_w), .valid_o(window_valid), .ready_i(window_ready),
      .addr_o(window_addr),
      .rows_o(rows), .cols_o(cols), .one_row_o(one_row), .one_col_o(one_col), .row_end_o(window_row_end),
      .last_o(window_last)
  );
  pool_walker u_walker (  // groups of one quad: every quad of a pixel is a group
      .clk_i(clk_i), .rst_ni(rst_ni), .room_i(room_i), .q_i(quads), .row_stride_i(row_stride), .groups_i(quads),
      .one_group_i(quads == Q_W'(1)), .group_step_i(4'd1), .valid_i(window_valid), .ready_o(window_ready),
      .addr_i(window_addr),
      .rows_i(rows), .cols_i(cols), .one_row_i(one_row), .one_col_i(one_col), .row_end_i(window_row_end),
      .last_i(window_last),
      .rd_valid_o(rd_valid), .rd_addr_o(rd_addr), .first_o(first), .last_o(last), .group_end_o(group_end),
      .row_end_o(row_end),
      .map_end_o(map_end)
  );

  // reference: output pixel, group, row and column of the feature map that come next
  logic past_q = 1'b0, busy_q = 1'b0, started_q = 1'b0;
  logic [7:0] oy_q, ox_q, g_q, y_q, x_q;
  logic [7:0] y_from, y_to, x_from, x_to;  // of the window, inside the feature map; to: exclusive
  function automatic logic [7:0] from(input logic [7:0] o, input logic [7:0] stride, input logic [7:0] pad);
    from = (o * stride > pad) ? o * stride - pad : 8'd0;
  endfunction
  function automatic logic [7:0] upto(input logic [7:0] o, input logic [7:0] stride, input logic [7:0] pad,
      input logic [7:0] kernel, input logic [7:0] size);
    upto = (o * stride + kernel - pad < size) ? o * stride + kernel - pad : size;
  endfunction
  assign y_from = from(oy_q, 8'(stride_h), 8'(pad_h));
  assign x_from = from(ox_q, 8'(stride_w), 8'(pad_w));
  assign y_to   = upto(oy_q, 8'(stride_h), 8'(pad_h), 8'(kernel_h), 8'(in_h));
  assign x_to   = upto(ox_q, 8'(stride_w), 8'(pad_w), 8'(kernel_w), 8'(in_w));

  logic [7:0] y, x;  // y_q and x_q count from the window's first pixel inside
  logic end_col, end_row, end_group, end_line, end_map;
  assign y           = y_from + y_q;
  assign x           = x_from + x_q;
  assign end_col     = x + 8'd1 == x_to;
  assign end_row     = y + 8'd1 == y_to;
  assign end_group   = g_q + 8'd1 == 8'(quads);
  assign end_line    = ox_q + 8'd1 == 8'(out_w);
  assign end_map = end_line && oy_q + 8'd1 == 8'(out_h);

  always_ff @(posedge clk_i) begin
    past_q    <= 1'b1;
    started_q <= past_q;
    if (!rst_ni) busy_q <= 1'b0;
    else if (start_i) busy_q <= 1'b1;
    else if (rd_valid && end_col && end_row && end_group && end_map) busy_q <= 1'b0;
    if (start_i) {oy_q, ox_q, g_q, y_q, x_q} <= '0;
    else if (rd_valid) begin
      x_q <= end_col ? '0 : x_q + 8'd1;
      if (end_col) y_q <= end_row ? '0 : y_q + 8'd1;
      if (end_col && end_row) g_q <= end_group ? '0 : g_q + 8'd1;
      if (end_col && end_row && end_group) begin
        ox_q <= end_line ? '0 : ox_q + 8'd1;
        if (end_line) oy_q <= oy_q + 8'd1;
      end
    end
  end

  always @(*) begin
    if (!past_q) assume (!rst_ni && !start_i);
    else assume (rst_ni);
    assume (start_i == (past_q && !started_q));  // after reset nothing changes until then, so a later start is the same
    assume (out_w != '0 && out_h != '0);
    assume (8'(out_w - 1'b1) * 8'(stride_w) + 8'(kernel_w) <= 8'(in_w) + 8'd2 * 8'(pad_w));
    assume (8'(out_h - 1'b1) * 8'(stride_h) + 8'(kernel_h) <= 8'(in_h) + 8'd2 * 8'(pad_h));
    assume (8'(row_stride) >= 8'(in_w) * 8'(quads));
    // the feature map lies in the buffer
    assume (8'(base) + 8'(row_stride) * 8'(in_h - 1'b1) + 8'(in_w) * 8'(quads) <= 8'(1 << A_W));
    if (past_q && rst_ni && rd_valid) begin
      assert (busy_q);
      assert (y < 8'(in_h) && x < 8'(in_w) && y < y_to && x < x_to);
      assert (8'(rd_addr) == 8'(base) + (y[0] ? 8'(row_stride) : 8'd0) + (y[1] ? 8'(row_stride) << 1 : 8'd0)
          + x * 8'(quads) + g_q);
      assert (first == (y_q == '0 && x_q == '0));
      assert (last == (end_col && end_row));
      assert (group_end == end_group);
      assert (row_end == end_line);
      assert (map_end == end_map);
    end
    cover (past_q && rd_valid && end_map && last && group_end);
    cover (past_q && rd_valid && y + 8'd1 == 8'(in_h) && x + 8'd1 == 8'(in_w) && g_q + 8'd1 == 8'(quads));
  end

endmodule

`default_nettype wire
