// Descriptor check: 22 cycles after a start, and only then, the verdict is that of the rules of
// model/compiler/geometry.py, written out here in numbers wide enough for every descriptor.  The products are cut free:
// up to when serial_multiplier has them right (its own proof) they are anything, from then on any number, clamped as
// the multiplier does it.  So clamping hides no broken rule, whatever the factors are.
`default_nettype none

module descriptor_check_proof #(
    parameter NUM_MODULES = 4,
    parameter BANK_WORDS  = 11264
) (
    input wire logic              clk_i,
    input wire logic              rst_ni,
    input wire logic              start_i,
    input wire logic [program_pkg::RECORD_WORDS-1:0][63:0] desc_i,
    input wire logic [31:0]       rows_i,     // the products, while start_i
    input wire logic [23:0]       row_i,
    input wire logic [23:0]       out_row_i,
    input wire logic [31:0]       span_h_i,
    input wire logic [31:0]       span_w_i,
    input wire logic [11:0]       inputs_i,
    input wire logic [11:0]       outputs_i,
    input wire logic [17:0]       area_i
);

  localparam int N = 40;  // bits of all sums, signed
  localparam logic [5:0] LATENCY = 6'd22, PRODUCTS = 6'd18;

  logic bad;
  descriptor_check #(.NUM_MODULES(NUM_MODULES), .BANK_WORDS(BANK_WORDS)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .start_i(start_i), .desc_i(desc_i), .bad_o(bad)
  );
  (* hierconn *) logic [18:0] \u_dut.rows_span ;
  (* hierconn *) logic [18:0] \u_dut.row_span ;
  (* hierconn *) logic [18:0] \u_dut.out_row ;
  (* hierconn *) logic [18:0] \u_dut.span_h ;
  (* hierconn *) logic [18:0] \u_dut.span_w ;
  (* hierconn *) logic [11:0] \u_dut.group_inputs ;
  (* hierconn *) logic [11:0] \u_dut.group_outputs ;
  (* hierconn *) logic [17:0] \u_dut.tile_area ;
  (* hierconn *) logic [4:0] \u_dut.cycle_q ;

  logic [5:0] age_q = '0;  // cycles since the start, 0 without one
  logic [program_pkg::RECORD_WORDS-1:0][63:0] d;  // the descriptor
  logic [31:0] rows_q, span_h_q, span_w_q;
  logic [23:0] row_q, out_row_q;
  logic [11:0] inputs_q, outputs_q;
  logic [17:0] area_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) age_q <= '0;
    else if (start_i) age_q <= 6'd1;
    else if (age_q == LATENCY) age_q <= '0;
    else if (age_q != '0) age_q <= age_q + 6'd1;
    if (start_i) begin
      d         <= desc_i;
      rows_q    <= rows_i;
      row_q     <= row_i;
      out_row_q <= out_row_i;
      span_h_q  <= span_h_i;
      span_w_q  <= span_w_i;
      inputs_q  <= inputs_i;
      outputs_q <= outputs_i;
      area_q    <= area_i;
    end
  end

  function automatic logic [18:0] clamped(input logic [31:0] product);
    clamped = (product > 32'h7ffff) ? 19'h7ffff : product[18:0];
  endfunction

  logic past_q = 1'b0;
  always_ff @(posedge clk_i) past_q <= 1'b1;
  always @(*) begin
    if (!past_q) assume (!rst_ni);
    if (age_q != '0 && age_q != LATENCY) assume (!start_i && desc_i == d);
    if (age_q >= PRODUCTS) begin
      assume (\u_dut.rows_span == clamped(rows_q) && \u_dut.row_span == clamped({8'b0, row_q}));
      assume (\u_dut.out_row == clamped({8'b0, out_row_q}));
      assume (\u_dut.span_h == clamped(span_h_q) && \u_dut.span_w == clamped(span_w_q));
      assume (\u_dut.group_inputs == inputs_q && \u_dut.group_outputs == outputs_q && \u_dut.tile_area == area_q);
    end
  end

  // ---------------------------------------------------------------- the rules
  function automatic logic signed [N-1:0] n(input logic [31:0] field);  // a number without sign
    n = $signed({8'b0, field});
  endfunction
  // `count` steps, `steps` in all, are just as many as `size` needs
  function automatic logic covers(input logic signed [N-1:0] steps, input logic signed [N-1:0] step,
      input logic signed [N-1:0] size);
    covers = steps - step < size && size <= steps;
  endfunction

  logic [17:0] out_end;
  logic [16:0] in_row_stride, out_base;
  logic [15:0] in_h, in_w, out_h, out_w, pool_kernel_h, pool_kernel_w, pool_pad_h, pool_pad_w;
  logic [8:0] tile_rows, tile_cols, tile_pixels;
  logic [7:0] in_quads, out_quads, channel_groups;
  logic [3:0] kr_step, pad_h, pad_w, read_quads;
  logic [2:0] window;
  assign in_row_stride  = program_pkg::descriptor_in_row_stride(d);
  assign out_base       = program_pkg::descriptor_out_base(d);
  assign out_end        = program_pkg::descriptor_out_end(d);
  assign in_h           = program_pkg::descriptor_in_h(d);
  assign in_w           = program_pkg::descriptor_in_w(d);
  assign out_h          = program_pkg::descriptor_out_h(d);
  assign out_w          = program_pkg::descriptor_out_w(d);
  assign in_quads       = program_pkg::descriptor_in_quads(d);
  assign out_quads      = program_pkg::descriptor_out_quads(d);
  assign tile_rows      = program_pkg::descriptor_tile_rows(d);
  assign tile_cols      = program_pkg::descriptor_tile_cols(d);
  assign tile_pixels    = program_pkg::descriptor_tile_pixels(d);
  assign kr_step        = program_pkg::descriptor_kr_step(d);
  assign pad_h          = program_pkg::descriptor_pad_h(d);
  assign pad_w          = program_pkg::descriptor_pad_w(d);
  assign window         = program_pkg::descriptor_window(d);
  assign channel_groups = program_pkg::descriptor_channel_groups(d);
  assign read_quads     = program_pkg::descriptor_read_quads(d);
  assign pool_kernel_h  = program_pkg::descriptor_pool_kernel_h(d);
  assign pool_kernel_w  = program_pkg::descriptor_pool_kernel_w(d);
  assign pool_pad_h     = program_pkg::descriptor_pool_pad_h(d);
  assign pool_pad_w     = program_pkg::descriptor_pool_pad_w(d);

  logic conv, fused, vertical, pair, writes, stride_h, stride_w;
  logic signed [N-1:0] in_base, in_end, other_base, other_end, kernel_h, kernel_w, needed, channels;
  assign conv     = program_pkg::descriptor_op(d) == program_pkg::OP_CONV;
  assign fused    = conv && program_pkg::descriptor_fused(d);
  assign vertical = program_pkg::descriptor_vertical(d);
  assign pair     = program_pkg::descriptor_pair(d);
  assign writes   = !program_pkg::descriptor_raw(d) || program_pkg::descriptor_op(d) == program_pkg::OP_MAXPOOL;
  assign in_base  = n({15'b0, program_pkg::descriptor_in_base(d)});
  assign in_end   = in_base + n(rows_q) + n({8'b0, row_q});
  assign other_base = n({15'b0, program_pkg::descriptor_other_base(d)});
  assign other_end = other_base + (fused ? n({14'b0, out_end}) - n({15'b0, out_base}) : n(rows_q) + n({8'b0, row_q}));
  assign stride_h = program_pkg::descriptor_stride_h(d);
  assign stride_w = program_pkg::descriptor_stride_w(d);
  assign kernel_h = n({16'b0, in_h}) + n({27'b0, pad_h, 1'b0}) - (n({16'b0, out_h}) - 1) * (stride_h ? 2 : 1);
  assign kernel_w = n({16'b0, in_w}) + n({27'b0, pad_w, 1'b0}) - (n({16'b0, out_w}) - 1) * (stride_w ? 2 : 1);
  assign channels = n({24'b0, in_quads});
  // quads of an output group
  assign needed   = (program_pkg::descriptor_mode(d) == 2'd0) ? 3 * (NUM_MODULES / 4) : NUM_MODULES / 4;

  logic input_bad, other_bad, output_bad, kernel_bad, tile_bad, groups_bad, vertical_bad, pair_bad, pool_bad, expected;
  assign input_bad = n({8'b0, row_q}) > n({15'b0, in_row_stride}) || in_end > 8 * BANK_WORDS ||
      (writes && in_base < n({14'b0, out_end}) && n({15'b0, out_base}) < in_end);
  assign other_bad = (program_pkg::descriptor_op(d) == program_pkg::OP_ADD || fused) && (other_end > 8 * BANK_WORDS ||
      (writes && other_base < n({14'b0, out_end}) && n({15'b0, out_base}) < other_end));
  assign output_bad = writes && out_row_q != {7'b0, program_pkg::descriptor_out_row_quads(d)};
  // the kernel, or with stride 2 the one that is smaller by one
  function automatic logic fits(input logic signed [N-1:0] steps, input logic signed [N-1:0] step,
      input logic signed [N-1:0] kernel, input logic signed [N-1:0] pad, input logic stride);
    fits = (covers(steps, step, kernel) && pad < kernel) ||
        (stride && covers(steps, step, kernel - 1) && pad < kernel - 1);
  endfunction
  assign kernel_bad = !fits(n(span_h_q), n({28'b0, kr_step}), kernel_h, n({28'b0, pad_h}), stride_h) ||
      !fits(n(span_w_q), n({29'b0, window}), kernel_w, n({28'b0, pad_w}), stride_w) || (stride_w && window != 3'd1);
  assign tile_bad = area_q != {9'b0, tile_pixels} || (tile_rows > 9'd1 && {7'b0, tile_cols} < out_w);
  assign vertical_bad = channels != 1 || channel_groups != 8'd1 || read_quads == '0;
  assign pair_bad = !vertical || channels > 4 || channel_groups != 8'd1 || read_quads != 4'd8;
  assign groups_bad = !covers(n({20'b0, outputs_q}), needed, n({24'b0, out_quads})) ||
      (pair ? pair_bad : vertical ? vertical_bad : !covers(n({20'b0, inputs_q}), n({28'b0, read_quads}), channels));
  assign pool_bad = n(span_h_q) + n({16'b0, pool_kernel_h}) > n({16'b0, in_h}) + n({15'b0, pool_pad_h,
      1'b0}) || pool_pad_h >= pool_kernel_h ||
      n(span_w_q) + n({16'b0, pool_kernel_w}) > n({16'b0, in_w}) + n({15'b0, pool_pad_w,
      1'b0}) || pool_pad_w >= pool_kernel_w ||
      in_quads != out_quads;
  assign expected = input_bad || other_bad || output_bad || (conv ? kernel_bad || tile_bad || groups_bad : pool_bad);

  always @(*) begin
    // main_controller refuses others: proof main_controller
    if (fused) assume ({1'b0, out_base} < out_end);
    if (past_q) begin
      assert (bad == (age_q == LATENCY && expected));
      // what ties the DUT's count to this one
      assert (\u_dut.cycle_q == ((age_q == LATENCY) ? 5'd0 : age_q[4:0]) && age_q <= LATENCY);
    end
    cover (age_q == LATENCY && !bad && conv && !vertical);
    cover (age_q == LATENCY && !bad && conv && vertical && !pair);
    cover (age_q == LATENCY && !bad && conv && pair);
    cover (age_q == LATENCY && !bad && conv && stride_h && stride_w && n(span_h_q) < kernel_h);
    cover (age_q == LATENCY && !bad && !conv && writes);
    cover (age_q == LATENCY && bad && !conv && !input_bad && !output_bad && !pool_bad);
    cover (age_q == LATENCY && bad && !conv && !input_bad && !other_bad && !pool_bad);
    cover (age_q == LATENCY && bad && conv && !input_bad && !output_bad && !kernel_bad && !tile_bad);
    cover (age_q == LATENCY && !bad && fused && pair);
    cover (age_q == LATENCY && bad && fused && !input_bad && !output_bad && !kernel_bad && !tile_bad && !groups_bad);
    cover (age_q == LATENCY && bad && !conv && !input_bad && !output_bad && span_h_q[31:19] != '0);
  end

endmodule

`default_nettype wire
