// Descriptor check: whether the sizes of a layer fit together.
//
// Purpose: finds descriptors that single fields do not give away: an input beyond the feature buffer or on top of the output, a kernel that is
// not the one between the two pictures, windows beyond picture and padding, groups that are not the channels', a tile that is not its rows
// times columns, or several rows of it but not whole ones.  The rules stand in model/compiler/geometry.py.  It runs beside the layer and costs it nothing: what a wrong layer writes
// until the verdict lies in its output region like everything else.
// Latency: start_i to bad_o 20 cycles, less than the shortest layer.  Throughput: one descriptor in 20 cycles.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module descriptor_check #(
    parameter NUM_MODULES = 4,
    parameter BANK_WORDS  = 11264
) (
    input  wire logic              clk_i,
    input  wire logic              rst_ni,
    input  wire logic              start_i,  // desc_i constant from here until the verdict
    input  wire logic [15:0][63:0] desc_i,
    output wire logic              bad_o     // pulse
);

  localparam int A_W = cq_pkg::QUAD_ADDR_W;
  localparam int D_W = cq_pkg::DIM_W;
  localparam int Q_W = cq_pkg::QUADS_W;
  localparam int E_W = A_W + 2;  // ends of regions: an address, and two bits for the sums
  localparam int S_W = D_W + 3;  // signed sizes: twice a padding and a size
  localparam int LAST = 18;      // cycle in which the sums of the products are ready
  localparam logic [E_W-1:0] CAPACITY = E_W'(8 * BANK_WORDS);

  logic is_conv, raw, vertical, writes;
  assign is_conv  = desc_i[0][3:0] == cq_pkg::OP_CONV;
  assign raw      = desc_i[0][8];
  assign vertical = desc_i[0][6];
  assign writes   = !raw || desc_i[0][3:0] == cq_pkg::OP_MAXPOOL;

  logic [D_W-1:0] in_w, in_h, out_w, out_h, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
  logic [Q_W-1:0] in_quads, out_quads, channel_groups, output_groups;
  logic [3:0] kr_count, kr_step, pieces, quads, group_quads;
  logic [2:0] window;
  assign in_w           = desc_i[2][0+:D_W];
  assign in_h           = desc_i[2][16+:D_W];
  assign in_quads       = desc_i[2][32+:Q_W];
  assign out_quads      = desc_i[2][40+:Q_W];
  assign out_w          = desc_i[4][0+:D_W];
  assign out_h          = desc_i[4][16+:D_W];
  assign kernel_h       = desc_i[0][16+:D_W];
  assign kernel_w       = desc_i[0][32+:D_W];
  assign stride_h       = desc_i[13][0+:D_W];
  assign stride_w       = desc_i[13][16+:D_W];
  assign pad_h          = is_conv ? D_W'(desc_i[11][11:8]) : desc_i[13][32+:D_W];
  assign pad_w          = is_conv ? D_W'(desc_i[11][15:12]) : desc_i[13][48+:D_W];
  assign kr_count       = desc_i[11][3:0];
  assign kr_step        = desc_i[11][7:4];
  assign pieces         = desc_i[11][19:16];
  assign window         = desc_i[11][26:24];
  assign channel_groups = desc_i[11][39:32];
  assign output_groups  = desc_i[11][47:40];
  assign quads          = desc_i[11][51:48];
  assign group_quads    = (desc_i[0][5:4] == cq_pkg::MODE_1) ? 4'(3 * (NUM_MODULES / 4)) : 4'(NUM_MODULES / 4);

  // ---------------------------------------------------------------- products
  logic [E_W-1:0] rows_span, row_span;     // quads from the first to the last row; quads of a row
  logic [S_W-1:0] span_h, span_w;          // first to last window of a pool; rows and columns of all steps of a convolution
  logic [11:0] group_inputs, group_outputs;
  logic [17:0] tile_area;

  serial_multiplier #(.COUNT_W(D_W), .FACTOR_W(A_W), .PRODUCT_W(E_W)) u_rows_span (
      .clk_i(clk_i), .start_i(start_i), .count_i(in_h - D_W'(1)), .factor_i(desc_i[1][32+:A_W]), .product_o(rows_span)
  );
  serial_multiplier #(.COUNT_W(D_W), .FACTOR_W(Q_W), .PRODUCT_W(E_W)) u_row_span (
      .clk_i(clk_i), .start_i(start_i), .count_i(in_w), .factor_i(in_quads), .product_o(row_span)
  );
  serial_multiplier #(.COUNT_W(D_W), .FACTOR_W(D_W), .PRODUCT_W(S_W)) u_span_h (
      .clk_i(clk_i), .start_i(start_i), .count_i(is_conv ? D_W'(kr_count) : out_h - D_W'(1)),
      .factor_i(is_conv ? D_W'(kr_step) : stride_h), .product_o(span_h)
  );
  serial_multiplier #(.COUNT_W(D_W), .FACTOR_W(D_W), .PRODUCT_W(S_W)) u_span_w (
      .clk_i(clk_i), .start_i(start_i), .count_i(is_conv ? D_W'(pieces) : out_w - D_W'(1)),
      .factor_i(is_conv ? D_W'(window) : stride_w), .product_o(span_w)
  );
  serial_multiplier #(.COUNT_W(Q_W), .FACTOR_W(4), .PRODUCT_W(12)) u_group_inputs (
      .clk_i(clk_i), .start_i(start_i), .count_i(channel_groups), .factor_i(quads), .product_o(group_inputs)
  );
  serial_multiplier #(.COUNT_W(Q_W), .FACTOR_W(4), .PRODUCT_W(12)) u_group_outputs (
      .clk_i(clk_i), .start_i(start_i), .count_i(output_groups), .factor_i(group_quads), .product_o(group_outputs)
  );
  serial_multiplier #(.COUNT_W(9), .FACTOR_W(9), .PRODUCT_W(18)) u_tile_area (
      .clk_i(clk_i), .start_i(start_i), .count_i(desc_i[10][8:0]), .factor_i(desc_i[10][24:16]), .product_o(tile_area)
  );

  // ---------------------------------------------------------------- sums, one a register
  logic [E_W:0] in_end_q, in_end;
  logic [S_W-1:0] padded_h_q, padded_w_q;                  // picture and padding
  logic [S_W:0] pool_reach_h_q, pool_reach_w_q;            // end of the last window, from the padded picture's edge
  logic signed [S_W:0] kernel_h_q, kernel_w_q;             // of a convolution: what lies between the two pictures
  assign in_end = in_end_q + {1'b0, row_span};
  always_ff @(posedge clk_i) begin
    in_end_q       <= {1'b0, rows_span} + (E_W + 1)'(desc_i[1][0+:A_W]);
    padded_h_q     <= S_W'(in_h) + S_W'({pad_h, 1'b0});
    padded_w_q     <= S_W'(in_w) + S_W'({pad_w, 1'b0});
    pool_reach_h_q <= {1'b0, span_h} + (S_W + 1)'(kernel_h);
    pool_reach_w_q <= {1'b0, span_w} + (S_W + 1)'(kernel_w);
    kernel_h_q     <= $signed({1'b0, padded_h_q}) + $signed((S_W + 1)'(1)) - $signed({{(S_W + 1 - D_W) {1'b0}}, out_h});
    kernel_w_q     <= $signed({1'b0, padded_w_q}) + $signed((S_W + 1)'(1)) - $signed({{(S_W + 1 - D_W) {1'b0}}, out_w});
  end

  // ---------------------------------------------------------------- the verdict
  // `count` steps are just as many as `size` needs: (count - 1) * step < size <= count * step
  logic rows_fit, cols_fit, inputs_fit, outputs_fit, tile_fits;
  logic signed [S_W:0] steps_h, steps_w;
  assign steps_h     = $signed({1'b0, span_h});
  assign steps_w     = $signed({1'b0, span_w});
  assign rows_fit    = kernel_h_q <= steps_h && steps_h < kernel_h_q + $signed({{(S_W - 3) {1'b0}}, kr_step}) &&
      kernel_h_q > $signed({{(S_W + 1 - D_W) {1'b0}}, pad_h});
  assign cols_fit    = kernel_w_q <= steps_w && steps_w < kernel_w_q + $signed({{(S_W - 2) {1'b0}}, window}) &&
      kernel_w_q > $signed({{(S_W + 1 - D_W) {1'b0}}, pad_w});
  assign inputs_fit  = vertical ? (in_quads == Q_W'(1) && channel_groups == Q_W'(1) && quads != '0)
                                : (12'(in_quads) <= group_inputs && group_inputs < 12'(in_quads) + 12'(quads));
  assign outputs_fit = 12'(out_quads) <= group_outputs && group_outputs < 12'(out_quads) + 12'(group_quads);

  // Pixels of a tile are numbered by its columns: several rows must be whole ones.
  assign tile_fits   = tile_area == 18'(desc_i[10][40:32]) && (desc_i[10][8:0] <= 9'd1 || D_W'(desc_i[10][24:16]) >= out_w);

  logic input_bad_q, conv_bad_q, pool_bad_q;
  always_ff @(posedge clk_i) begin
    input_bad_q <= row_span > E_W'(desc_i[1][32+:A_W]) || in_end > {1'b0, CAPACITY} ||
        (writes && (E_W + 1)'(desc_i[1][0+:A_W]) < (E_W + 1)'(desc_i[4][32+:A_W+1]) && (E_W + 1)'(desc_i[3][0+:A_W]) < in_end);
    conv_bad_q  <= !rows_fit || !cols_fit || !inputs_fit || !outputs_fit || !tile_fits;
    pool_bad_q  <= pool_reach_h_q > {1'b0, padded_h_q} || pool_reach_w_q > {1'b0, padded_w_q} || pad_h >= kernel_h || pad_w >= kernel_w ||
        in_quads != out_quads;
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
      bad_q <= cycle_q == 5'(LAST + 1) && (input_bad_q || (is_conv ? conv_bad_q : pool_bad_q));
    end
  end
  assign bad_o = bad_q;

endmodule

`default_nettype wire
