// Pooling unit: max pooling, average pooling, and sums of two tensors.
//
// Purpose: for each output pixel and group of channels, reads the part of the window that lies inside the feature map.
// Max pooling takes 8 quads (32 channels) a read and writes the maxima to the feature buffer. Average pooling takes
// NUM_MODULES channels a read and sends their 32-bit sums to the output stage, in the order of pixels, then channel
// groups. Padding is never read: it cannot win a maximum and adds nothing to a sum. A sum of two tensors is an average
// pool with windows of one pixel, whose second row is the same pixel of the other tensor. Each tensor is multiplied by
// its factor. desc_i is constant from start_i to done_o, and start_i comes only while the unit is idle. done_o comes
// together with the last write or sum. After sum_ready_i falls, at most RD_LATENCY + 2 more sums follow.
// Latency: reads + bit length of (stride_h | stride_w | pad_h | pad_w) + RD_LATENCY + 6 cycles from start_i to done_o
// while sum_ready_i is high, one more for a sum of tensors (model/performance/pool_cycles.py).
// Throughput: one read a cycle, without a gap between windows, groups and pixels.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module pooling_unit #(
    parameter NUM_MODULES = 4,
    parameter RD_LATENCY  = cq_pkg::RD_LATENCY
) (
    input  wire logic                                      clk_i,
    input  wire logic                                      rst_ni,
    input  wire logic                                      start_i,
    output wire logic                                      done_o,       // pulse
    input  wire logic [program_pkg::RECORD_WORDS-1:0][63:0] desc_i,
    // feature buffer
    output wire logic                                      rd_valid_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0]       rd_addr_o,
    input  wire logic [7:0][31:0]                          rd_data_i,    // RD_LATENCY cycles later
    output wire logic                                      wr_valid_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0]       wr_addr_o,
    output wire logic [7:0]                                wr_mask_o,
    output wire logic [7:0][31:0]                          wr_data_o,
    // output stage
    // RD_LATENCY + 2 more sums can be taken, at least
    input  wire logic                                      sum_ready_i,
    output wire logic                                      sum_valid_o,
    output wire logic [NUM_MODULES-1:0][cq_pkg::ACC_W-1:0] sum_o,
    output wire logic [8:0]                                sum_word_o,   // channel / NUM_MODULES
    output wire logic [program_pkg::QUAD_ADDR_W-1:0]       sum_addr_o,   // destination of the first quad
    output wire logic [NUM_MODULES/4-1:0]                  sum_mask_o    // quads that the pixel has
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;
  localparam int Q_W = program_pkg::QUADS_W;
  localparam int QUADS = NUM_MODULES / 4;
  localparam int SHIFT = $clog2(QUADS);

`ifndef YOSYS
  initial if (NUM_MODULES != 4 && NUM_MODULES != 8 && NUM_MODULES != 16)
    $fatal(1, "pooling_unit: NUM_MODULES must be 4, 8 or 16, got %0d", NUM_MODULES);
  initial if (RD_LATENCY < 2) $fatal(1, "pooling_unit: RD_LATENCY must be at least 2, got %0d", RD_LATENCY);
`endif

  // ---------------------------------------------------------------- the layer
  logic add_q, sums_q;  // sums: not maxima
  logic [3:0] op;
  logic in_signed, other_signed;
  logic [14:0] mult, other_mult;
  logic [A_W-1:0] in_base, other_base, in_row_stride, out_base, out_row_stride;
  logic [Q_W-1:0] in_quads;  // of both tensors
  assign op             = program_pkg::descriptor_op(desc_i);
  assign in_signed      = program_pkg::descriptor_in_signed(desc_i);
  assign other_signed   = program_pkg::descriptor_other_signed(desc_i);
  assign mult           = program_pkg::descriptor_mult(desc_i);
  assign other_mult     = program_pkg::descriptor_other_mult(desc_i);
  assign in_base        = program_pkg::descriptor_in_base(desc_i);
  assign other_base     = program_pkg::descriptor_other_base(desc_i);
  assign in_row_stride  = program_pkg::descriptor_in_row_stride(desc_i);
  assign out_base       = program_pkg::descriptor_out_base(desc_i);
  assign out_row_stride = program_pkg::descriptor_out_row_stride(desc_i);
  assign in_quads       = program_pkg::descriptor_in_quads(desc_i);

  // ---------------------------------------------------------------- groups: 8 quads or NUM_MODULES channels
  // Constants of the layer, ready long before the first window.
  logic [Q_W-1:0] last_quad, last_group, groups_q;
  logic [3:0] group_step_q, rest_q;  // quads of a group, quads of a pixel's last group
  logic [A_W-1:0] row_step_q;      // from one row of a window to the next
  logic one_group_q;
  assign last_quad  = in_quads - Q_W'(1);
  assign last_group = sums_q ? last_quad >> SHIFT : last_quad >> 3;
  always_ff @(posedge clk_i) begin
    add_q        <= op == program_pkg::OP_ADD;
    sums_q       <= op == program_pkg::OP_ADD || op == program_pkg::OP_AVGPOOL;
    groups_q     <= last_group + Q_W'(1);
    one_group_q  <= last_group == '0;
    group_step_q <= sums_q ? 4'(QUADS) : 4'd8;
    rest_q       <= {1'b0, last_quad[2:0] & (sums_q ? 3'(QUADS - 1) : 3'd7)} + 4'd1;
    row_step_q   <= add_q ? other_base - in_base : in_row_stride;
  end

  // ---------------------------------------------------------------- reads
  logic window_valid, window_ready, window_one_row, window_one_col, window_row_end, window_last;
  logic [A_W-1:0] window_addr;
  logic [program_pkg::DIM_W-1:0] window_rows, window_cols;

  pool_planner u_planner (
      .clk_i          (clk_i),
      .rst_ni         (rst_ni),
      .start_i        (start_i),
      .in_base_i      (in_base),
      .in_w_i         (program_pkg::descriptor_in_w(desc_i)),
      .in_h_i         (program_pkg::descriptor_in_h(desc_i)),
      .q_i            (in_quads),
      .in_row_stride_i(in_row_stride),
      .out_w_i        (program_pkg::descriptor_out_w(desc_i)),
      .out_h_i        (program_pkg::descriptor_out_h(desc_i)),
      .kernel_h_i     (program_pkg::descriptor_pool_kernel_h(desc_i)),
      .kernel_w_i     (program_pkg::descriptor_pool_kernel_w(desc_i)),
      .stride_h_i     (program_pkg::descriptor_pool_stride_h(desc_i)),
      .stride_w_i     (program_pkg::descriptor_pool_stride_w(desc_i)),
      .pad_h_i        (program_pkg::descriptor_pool_pad_h(desc_i)),
      .pad_w_i        (program_pkg::descriptor_pool_pad_w(desc_i)),
      .valid_o        (window_valid),
      .ready_i        (window_ready),
      .addr_o         (window_addr),
      .rows_o         (window_rows),
      .cols_o         (window_cols),
      .one_row_o      (window_one_row),
      .one_col_o      (window_one_col),
      .row_end_o      (window_row_end),
      .last_o         (window_last)
  );

  logic first, last, group_end, row_end, map_end;
  pool_walker u_walker (
      .clk_i        (clk_i),
      .rst_ni       (rst_ni),
      .room_i       (sum_ready_i || !sums_q),
      .q_i          (in_quads),
      .row_stride_i (row_step_q),
      .groups_i     (groups_q),
      .one_group_i  (one_group_q),
      .group_step_i (group_step_q),
      .valid_i      (window_valid),
      .ready_o      (window_ready),
      .addr_i       (window_addr),
      .rows_i       (add_q ? program_pkg::DIM_W'(2) : window_rows),
      .cols_i       (window_cols),
      .one_row_i    (window_one_row && !add_q),
      .one_col_i    (window_one_col),
      .row_end_i    (window_row_end),
      .last_i       (window_last),
      .rd_valid_o   (rd_valid_o),
      .rd_addr_o    (rd_addr_o),
      .first_o      (first),
      .last_o       (last),
      .group_end_o  (group_end),
      .row_end_o    (row_end),
      .map_end_o(map_end)
  );

  // ---------------------------------------------------------------- data
  logic [RD_LATENCY:0] valid_q;  // which of the last cycles had a read
  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= {valid_q[RD_LATENCY-1:0], rd_valid_o};
  end

  logic [4:0] early, flags_q, late_q;  // of a read: a cycle before its data, beside it, a cycle after it
  delay_line #(
      .WIDTH(5),
      .DEPTH(RD_LATENCY - 1)
  ) u_flags (
      .clk_i(clk_i),
      .d_i  ({first, last, group_end, row_end, map_end}),
      .d_o  (early)
  );

  // The first read of a sum is of its first tensor, the second one of the other.
  logic other, signed_q;
  logic [14:0] factor_q;
  assign other = add_q && !early[4];
  always_ff @(posedge clk_i) begin
    flags_q  <= early;
    late_q   <= flags_q;
    signed_q <= other ? other_signed : in_signed;
    factor_q <= other ? other_mult : mult;
  end

  // What is added up or compared: the data, or a cycle later their products.
  logic term_valid, term_first, term_last, term_group_end, term_row_end, term_map_end;
  assign term_valid = add_q ? valid_q[RD_LATENCY] : valid_q[RD_LATENCY-1];
  assign {term_first, term_last, term_group_end, term_row_end, term_map_end} = add_q ? late_q : flags_q;

  pool_reducer #(
      .NUM_MODULES(NUM_MODULES)
  ) u_reducer (
      .clk_i     (clk_i),
      .products_i(add_q),
      .signed_i  (signed_q),
      .factor_i  (factor_q),
      .valid_i   (term_valid),
      .first_i   (term_first),
      .data_i    (rd_data_i),
      .max_o     (wr_data_o),
      .sum_o     (sum_o)
  );

  // ---------------------------------------------------------------- results and where they go
  logic result_q, group_end_q, row_end_q, done_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      result_q <= 1'b0;
      done_q   <= 1'b0;
    end else begin
      result_q <= term_valid && term_last;
      done_q   <= term_valid && term_last && term_group_end && term_map_end;
    end
    group_end_q <= term_group_end;
    row_end_q   <= term_row_end;
  end

  logic [8:0] word_q;
  logic [A_W-1:0] addr_q, pixel_addr_q, row_addr_q, addr_d;
  always_comb begin
    if (start_i) addr_d = out_base;
    else if (!group_end_q) addr_d = addr_q + A_W'(group_step_q);
    else if (!row_end_q) addr_d = pixel_addr_q + A_W'(in_quads);
    else addr_d = row_addr_q + out_row_stride;
  end
  always_ff @(posedge clk_i) begin
    if (start_i || result_q) begin
      addr_q <= addr_d;
      word_q <= (start_i || group_end_q) ? '0 : word_q + 9'd1;
    end
    if (start_i || (result_q && group_end_q)) pixel_addr_q <= addr_d;
    if (start_i || (result_q && group_end_q && row_end_q)) row_addr_q <= addr_d;
  end

  logic [7:0] mask;
  genvar v;
  generate
    for (v = 0; v < 8; v = v + 1) begin : gen_mask
      assign mask[v] = !group_end_q || 4'(v) < rest_q;
    end
  endgenerate

  assign wr_valid_o  = result_q && !sums_q;
  assign wr_addr_o   = addr_q;
  assign wr_mask_o   = mask;
  assign sum_valid_o = result_q && sums_q;
  assign sum_word_o  = word_q;
  assign sum_addr_o  = addr_q;
  assign sum_mask_o  = mask[QUADS-1:0];
  assign done_o      = done_q;

endmodule

`default_nettype wire
