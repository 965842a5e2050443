// Descriptor check: cross-field validation of a layer descriptor.
//
// Purpose: finds descriptors whose sizes do not fit together although each field is legal. Examples are an input (also
// the second one of a sum, fused or not) beyond the feature buffer or over the output, output rows of another length
// than the output's width, a kernel that does not follow from the sizes of input and output, a window beyond the padded
// input, or a tile that is not its rows times its columns.
// model/compiler/geometry.py states the same rules. The check runs in parallel with the layer and costs no time: until
// the verdict a wrong layer writes only inside its output region.
// Latency: 22 cycles from start_i to bad_o, less than the shortest layer.
// Throughput: one descriptor in 22 cycles.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module descriptor_check #(
    parameter NUM_MODULES = 4,
    parameter BANK_WORDS  = 11264
) (
    input  wire logic clk_i,
    input  wire logic rst_ni,
    input  wire logic start_i,  // desc_i constant from here until the verdict
    input  wire logic [program_pkg::RECORD_WORDS-1:0][63:0] desc_i,
    output wire logic bad_o     // pulse
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;
  localparam int D_W = program_pkg::DIM_W;
  localparam int Q_W = program_pkg::QUADS_W;
  localparam int T_W = program_pkg::TILE_W + 1;  // rows, columns and pixels of a tile
  localparam int E_W = A_W + 2;  // ends of regions: an address, and two bits for the sums
  localparam int S_W = D_W + 3;  // signed sizes: twice a padding and a size
  localparam int LAST = 20;      // cycle in which what follows from the products' sums is ready
  localparam logic [E_W-1:0] CAPACITY = E_W'(8 * BANK_WORDS);

  logic start_q;
  logic [program_pkg::RECORD_WORDS-1:0][63:0] desc_q;  // near its users
  always_ff @(posedge clk_i) begin
    start_q <= start_i;
    desc_q  <= desc_i;
  end

  logic is_conv, is_add, fused, raw, vertical, pair, writes;
  assign is_conv  = program_pkg::descriptor_op(desc_q) == program_pkg::OP_CONV;
  assign is_add   = program_pkg::descriptor_op(desc_q) == program_pkg::OP_ADD;
  assign fused    = is_conv && program_pkg::descriptor_fused(desc_q);
  assign raw      = program_pkg::descriptor_raw(desc_q);
  assign vertical = program_pkg::descriptor_vertical(desc_q);
  assign pair     = program_pkg::descriptor_pair(desc_q);
  assign writes   = !raw || program_pkg::descriptor_op(desc_q) == program_pkg::OP_MAXPOOL;

  logic [A_W-1:0] in_base, other_base, in_row_stride, out_base, out_row_quads;
  logic [A_W:0] out_end;
  logic [D_W-1:0] in_w, in_h, out_w, out_h, pool_kernel_h, pool_kernel_w, pool_stride_h, pool_stride_w;
  logic [D_W-1:0] pool_pad_h, pool_pad_w, padding_h, padding_w;
  logic [T_W-1:0] tile_rows, tile_cols, tile_pixels;
  logic [Q_W-1:0] in_quads, out_quads, channel_groups, output_groups;
  logic [3:0] pad_h, pad_w, kr_count, kr_step, pieces, read_quads, group_quads;
  logic [2:0] window;
  logic stride_h, stride_w;  // of a convolution, less one
  assign in_base        = program_pkg::descriptor_in_base(desc_q);
  assign other_base     = program_pkg::descriptor_other_base(desc_q);
  assign in_row_stride  = program_pkg::descriptor_in_row_stride(desc_q);
  assign in_w           = program_pkg::descriptor_in_w(desc_q);
  assign in_h           = program_pkg::descriptor_in_h(desc_q);
  assign in_quads       = program_pkg::descriptor_in_quads(desc_q);
  assign out_quads      = program_pkg::descriptor_out_quads(desc_q);
  assign out_base       = program_pkg::descriptor_out_base(desc_q);
  assign out_row_quads  = program_pkg::descriptor_out_row_quads(desc_q);
  assign out_w          = program_pkg::descriptor_out_w(desc_q);
  assign out_h          = program_pkg::descriptor_out_h(desc_q);
  assign out_end        = program_pkg::descriptor_out_end(desc_q);
  assign pool_kernel_h  = program_pkg::descriptor_pool_kernel_h(desc_q);
  assign pool_kernel_w  = program_pkg::descriptor_pool_kernel_w(desc_q);
  assign pool_stride_h  = program_pkg::descriptor_pool_stride_h(desc_q);
  assign pool_stride_w  = program_pkg::descriptor_pool_stride_w(desc_q);
  assign pool_pad_h     = program_pkg::descriptor_pool_pad_h(desc_q);
  assign pool_pad_w     = program_pkg::descriptor_pool_pad_w(desc_q);
  assign pad_h          = program_pkg::descriptor_pad_h(desc_q);
  assign pad_w          = program_pkg::descriptor_pad_w(desc_q);
  assign padding_h      = is_conv ? D_W'(pad_h) : pool_pad_h;
  assign padding_w      = is_conv ? D_W'(pad_w) : pool_pad_w;
  assign tile_rows      = program_pkg::descriptor_tile_rows(desc_q);
  assign tile_cols      = program_pkg::descriptor_tile_cols(desc_q);
  assign tile_pixels    = program_pkg::descriptor_tile_pixels(desc_q);
  assign kr_count       = program_pkg::descriptor_kr_count(desc_q);
  assign kr_step        = program_pkg::descriptor_kr_step(desc_q);
  assign pieces         = program_pkg::descriptor_pieces(desc_q);
  assign window         = program_pkg::descriptor_window(desc_q);
  assign stride_h       = program_pkg::descriptor_stride_h(desc_q);
  assign stride_w       = program_pkg::descriptor_stride_w(desc_q);
  assign channel_groups = program_pkg::descriptor_channel_groups(desc_q);
  assign output_groups  = program_pkg::descriptor_output_groups(desc_q);
  assign read_quads     = program_pkg::descriptor_read_quads(desc_q);
  // quads of a group of output channels
  assign group_quads    = (program_pkg::descriptor_mode(desc_q) == program_pkg::MODE_1) ?
      4'(3 * (NUM_MODULES / 4)) : 4'(NUM_MODULES / 4);

  // ---------------------------------------------------------------- products
  logic [E_W-1:0] rows_span, row_span;     // quads from the first to the last row; quads of a row
  logic [E_W-1:0] out_row;                 // quads of a row of the output
  // first to last window of a pool; rows and columns of all steps of a convolution
  logic [S_W-1:0] span_h, span_w;
  logic [11:0] group_inputs, group_outputs;
  logic [2*T_W-1:0] tile_area;

  serial_multiplier #(.COUNT_W(D_W), .FACTOR_W(A_W), .PRODUCT_W(E_W)) u_rows_span (
      .clk_i(clk_i), .start_i(start_q), .count_i(in_h - D_W'(1)), .factor_i(in_row_stride), .product_o(rows_span)
  );
  serial_multiplier #(.COUNT_W(D_W), .FACTOR_W(Q_W), .PRODUCT_W(E_W)) u_row_span (
      .clk_i(clk_i), .start_i(start_q), .count_i(in_w), .factor_i(in_quads), .product_o(row_span)
  );
  serial_multiplier #(.COUNT_W(D_W), .FACTOR_W(Q_W), .PRODUCT_W(E_W)) u_out_row (
      .clk_i(clk_i), .start_i(start_q), .count_i(out_w), .factor_i(out_quads), .product_o(out_row)
  );
  serial_multiplier #(.COUNT_W(D_W), .FACTOR_W(D_W), .PRODUCT_W(S_W)) u_span_h (
      .clk_i(clk_i), .start_i(start_q), .count_i(is_conv ? D_W'(kr_count) : out_h - D_W'(1)),
      .factor_i(is_conv ? D_W'(kr_step) : pool_stride_h), .product_o(span_h)
  );
  serial_multiplier #(.COUNT_W(D_W), .FACTOR_W(D_W), .PRODUCT_W(S_W)) u_span_w (
      .clk_i(clk_i), .start_i(start_q), .count_i(is_conv ? D_W'(pieces) : out_w - D_W'(1)),
      .factor_i(is_conv ? D_W'(window) : pool_stride_w), .product_o(span_w)
  );
  serial_multiplier #(.COUNT_W(Q_W), .FACTOR_W(4), .PRODUCT_W(12)) u_group_inputs (
      .clk_i(clk_i), .start_i(start_q), .count_i(channel_groups), .factor_i(read_quads), .product_o(group_inputs)
  );
  serial_multiplier #(.COUNT_W(Q_W), .FACTOR_W(4), .PRODUCT_W(12)) u_group_outputs (
      .clk_i(clk_i), .start_i(start_q), .count_i(output_groups), .factor_i(group_quads), .product_o(group_outputs)
  );
  serial_multiplier #(.COUNT_W(T_W), .FACTOR_W(T_W), .PRODUCT_W(2 * T_W)) u_tile_area (
      .clk_i(clk_i), .start_i(start_q), .count_i(tile_rows), .factor_i(tile_cols), .product_o(tile_area)
  );

  // ---------------------------------------------------------------- sums, one a register
  logic [E_W:0] in_end_q, in_end, other_end_q, other_end;
  logic [S_W-1:0] padded_h_q, padded_w_q;                  // feature map and padding
  logic [S_W:0] pool_reach_h_q, pool_reach_w_q;            // end of the last window, from the padded edge
  logic signed [S_W:0] to_last_h_q, to_last_w_q;           // of a convolution: from the first window to the last
  logic signed [S_W:0] kernel_h_q, kernel_w_q;             // of a convolution: follows from input and output size
  assign in_end    = in_end_q + {1'b0, row_span};
  assign other_end = other_end_q + (fused ? '0 : {1'b0, row_span});
  always_ff @(posedge clk_i) begin
    in_end_q       <= {1'b0, rows_span} + (E_W + 1)'(in_base);
    // a fused sum reads where it writes, at another base
    other_end_q    <= (fused ? (E_W + 1)'(out_end) - (E_W + 1)'(out_base) : {1'b0, rows_span}) +
        (E_W + 1)'(other_base);
    padded_h_q     <= S_W'(in_h) + S_W'({padding_h, 1'b0});
    padded_w_q     <= S_W'(in_w) + S_W'({padding_w, 1'b0});
    pool_reach_h_q <= {1'b0, span_h} + (S_W + 1)'(pool_kernel_h);
    pool_reach_w_q <= {1'b0, span_w} + (S_W + 1)'(pool_kernel_w);
    to_last_h_q    <= ((S_W + 1)'(out_h) - (S_W + 1)'(1)) << stride_h;
    to_last_w_q    <= ((S_W + 1)'(out_w) - (S_W + 1)'(1)) << stride_w;
    kernel_h_q     <= $signed({1'b0, padded_h_q}) - to_last_h_q;
    kernel_w_q     <= $signed({1'b0, padded_w_q}) - to_last_w_q;
  end

  // ---------------------------------------------------------------- the verdict
  // `count` steps are just as many as `size` needs: (count - 1) * step < size <= count * step
  // With stride 2 the kernel may also be one less than the sizes of input and output say.
  function automatic logic kernel_fits(input logic signed [S_W:0] kernel, input logic signed [S_W:0] steps,
      input logic [3:0] step, input logic [3:0] pad, input logic stride);
    kernel_fits = step != '0 && kernel <= steps + $signed({{S_W{1'b0}}, stride}) &&
        steps < kernel + $signed({{(S_W - 3) {1'b0}}, step}) &&
        kernel > $signed({{(S_W - 3) {1'b0}}, pad}) && steps > $signed({{(S_W - 3) {1'b0}}, pad});
  endfunction

  logic rows_fit, cols_fit, inputs_fit, outputs_fit, tile_fits;
  logic signed [S_W:0] steps_h, steps_w;
  assign steps_h     = $signed({1'b0, span_h});
  assign steps_w     = $signed({1'b0, span_w});
  assign rows_fit    = kernel_fits(kernel_h_q, steps_h, kr_step, pad_h, stride_h);
  assign cols_fit    = kernel_fits(kernel_w_q, steps_w, {1'b0, window}, pad_w, stride_w) &&
      (!stride_w || window == 3'd1);
  always_comb begin
    if (pair) inputs_fit = vertical && in_quads <= Q_W'(4) && channel_groups == Q_W'(1) && read_quads == 4'd8;
    else if (vertical) inputs_fit = in_quads == Q_W'(1) && channel_groups == Q_W'(1) && read_quads != '0;
    else inputs_fit = 12'(in_quads) <= group_inputs && group_inputs < 12'(in_quads) + 12'(read_quads);
  end
  assign outputs_fit = 12'(out_quads) <= group_outputs && group_outputs < 12'(out_quads) + 12'(group_quads);

  // Pixels of a tile are numbered by its columns: several rows must be whole ones.
  assign tile_fits   = tile_area == (2 * T_W)'(tile_pixels) && (tile_rows <= T_W'(1) || D_W'(tile_cols) >= out_w);

  // a tensor from base to end: beyond the buffer, or in the region that is written
  function automatic logic misplaced(input logic [A_W-1:0] base, input logic [E_W:0] last, input logic written,
      input logic [A_W-1:0] to_base, input logic [A_W:0] to_end);
    misplaced = last > {1'b0, CAPACITY} ||
        (written && (E_W + 1)'(base) < (E_W + 1)'(to_end) && (E_W + 1)'(to_base) < last);
  endfunction

  logic input_bad_q, other_bad_q, output_bad_q, conv_bad_q, pool_bad_q;
  logic [4:0] fits_q;
  always_ff @(posedge clk_i) begin
    input_bad_q  <= row_span > E_W'(in_row_stride) || misplaced(in_base, in_end, writes, out_base, out_end);
    other_bad_q  <= (is_add || fused) && misplaced(other_base, other_end, writes, out_base, out_end);
    output_bad_q <= writes && out_row != E_W'(out_row_quads);
    fits_q       <= {rows_fit, cols_fit, inputs_fit, outputs_fit, tile_fits};
    conv_bad_q   <= fits_q != '1;
    pool_bad_q   <= pool_reach_h_q > {1'b0, padded_h_q} || pool_reach_w_q > {1'b0, padded_w_q} ||
        pool_pad_h >= pool_kernel_h || pool_pad_w >= pool_kernel_w || in_quads != out_quads;
  end

  logic [4:0] cycle_q;
  logic bad_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      cycle_q <= '0;
      bad_q   <= 1'b0;
    end else begin
      if (start_i) cycle_q <= 5'd1;
      else if (cycle_q == 5'(LAST + 1)) cycle_q <= '0;
      else if (cycle_q != '0) cycle_q <= cycle_q + 5'd1;
      bad_q <= cycle_q == 5'(LAST + 1) && (input_bad_q || other_bad_q || output_bad_q ||
          (is_conv ? conv_bad_q : pool_bad_q));
    end
  end
  assign bad_o = bad_q;

endmodule

`default_nettype wire
