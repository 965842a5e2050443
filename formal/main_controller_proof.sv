// Main controller: what it checks before a unit may write.  In every state in which an image or a layer can write into
// the feature buffer, the end of the region that feature_buffer writes in is at most its size; a unit starts only with
// sizes that are not zero.  Image loader and compute units never write at the same time, which is what the write port's
// multiplexer relies on. STOP: no STOP of a run is lost, whatever it coincides with.  The run ends with the image in
// progress, that image's last cycle included; between images it ends within STOP_LIMIT cycles, unless a beat of an
// image is seen before. STOPPED is reported once, if the run ends so, and never else.
`default_nettype none

module main_controller_proof #(
    parameter BANK_WORDS = 11264
) (
    input wire logic        clk_i,
    input wire logic        rst_ni,
    input wire logic        start_i,
    input wire logic        stop_i,
    input wire logic [63:0] prog_data_i,
    input wire logic [10:0] prog_last_i,
    input wire logic [16:0] free_i
);

  logic busy, begins, done, stopped, error, error_pulse, layer_end, layer_active, results_done, image_end, image_enable,
      params_done, params_bank;
  logic conv_start, pool_start, raw_flush, emit_start;
  logic [7:0] code, error_layer;
  logic [5:0] layer;
  logic [10:0] prog_addr;
  logic [16:0] image_base, image_row_quads, image_row_stride;
  logic [17:0] image_end_addr;
  logic [15:0] image_rows;
  logic [program_pkg::RECORD_WORDS-1:0][63:0] desc;

  main_controller #(.NUM_MODULES(4), .BANK_WORDS(BANK_WORDS)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .start_i(start_i), .stop_i(stop_i), .busy_o(busy), .begin_o(begins),
      .done_o(done), .stopped_o(stopped),
      .error_o(error), .error_pulse_o(error_pulse), .error_code_o(code), .error_layer_o(error_layer), .layer_o(layer),
      .layer_end_o(layer_end), .layer_active_o(layer_active), .results_done_o(results_done), .image_end_o(image_end),
      .parser_error_i(free_i[0]), .parser_code_i(8'd1),
      .image_error_i(free_i[1]), .image_code_i(8'd8), .oob_i(free_i[2]), .prog_valid_i(free_i[3]),
      .prog_last_i(prog_last_i), .prog_addr_o(prog_addr),
      .prog_data_i(prog_data_i), .image_enable_o(image_enable), .image_first_i(free_i[4]), .image_done_i(free_i[5]),
      .image_base_o(image_base), .image_end_addr_o(image_end_addr), .image_row_quads_o(image_row_quads),
      .image_row_stride_o(image_row_stride), .image_rows_o(image_rows), .weights_first_i(free_i[6]),
      .weights_done_i(free_i[7]),
      .weights_empty_i(free_i[8]), .buffer_full_i(free_i[16]), .starved_i(free_i[9]), .params_ready_i(free_i[10]),
      .params_done_o(params_done),
      .params_bank_o(params_bank), .desc_o(desc), .check_bad_i(free_i[15]), .conv_start_o(conv_start),
      .conv_busy_i(free_i[11]), .pool_start_o(pool_start),
      .pool_done_i(free_i[12]), .raw_flush_o(raw_flush), .emit_start_o(emit_start), .emit_done_i(free_i[13]),
      .results_empty_i(free_i[14])
  );
  (* hierconn *) logic [3:0] \u_dut.state_q ;
  localparam logic [3:0] IDLE = 4'd0, HEADER = 4'd1, CHECK_HEADER = 4'd2, IMAGE = 4'd3, FETCH = 4'd4, CHECK = 4'd5,
      WAIT_PARAMS = 4'd6,
      START = 4'd7, RUN = 4'd8, DRAIN = 4'd9, EMIT = 4'd10, LAYER_END = 4'd11, FINISH = 4'd12, ERROR = 4'd13,
      STOPPING = 4'd14;
  localparam logic [17:0] CAPACITY = 18'(8 * BANK_WORDS);

  logic [3:0] state, op;
  logic [1:0] mode;
  assign state = \u_dut.state_q ;
  assign op    = program_pkg::descriptor_op(desc);
  assign mode  = program_pkg::descriptor_mode(desc);
  logic checked, image_state, writes;  // the descriptor was accepted; the header was; the layer writes into the buffer
  assign checked     = state == WAIT_PARAMS || state == START || state == RUN || state == DRAIN || state == EMIT ||
      state == LAYER_END;
  assign image_state = state != IDLE && state != HEADER && state != CHECK_HEADER && state != ERROR;
  // clipq_accel: 32-bit results of convolutions and average pools go to the stream, a max pool always writes
  assign writes      = !program_pkg::descriptor_raw(desc) || op == program_pkg::OP_MAXPOOL;

  (* hierconn *) logic \u_dut.stop_q ;
  (* hierconn *) logic \u_dut.start_q ;
  (* hierconn *) logic \u_dut.image_started_q ;
  (* hierconn *) logic [5:0] \u_dut.settle_q ;
  localparam logic [2:0] STOP_LIMIT = 3'd4;
  logic asked_q = 1'b0, stopped_q = 1'b0;  // STOP has come in this run; the run ended by STOP in the cycle before
  logic [2:0] open_q = '0;                 // cycles since, between images
  logic begun, between;
  assign begun   = \u_dut.image_started_q ;
  assign between = state == IMAGE || state == STOPPING;
  always_ff @(posedge clk_i) begin
    asked_q   <= rst_ni && busy && !stopped && (asked_q || stop_i);
    stopped_q <= rst_ni && stopped;
    open_q    <= (rst_ni && asked_q && between && !begun && !stopped) ? open_q + 3'd1 : '0;
  end

  logic began_q = 1'b0, idle_q = 1'b0;  // of the cycle before
  always_ff @(posedge clk_i) begin
    began_q <= rst_ni && begins;
    idle_q  <= rst_ni && state == IDLE;
  end

  logic past_q = 1'b0;
  always_ff @(posedge clk_i) past_q <= 1'b1;
  always @(*) begin
    if (!past_q) assume (!rst_ni);
    if (past_q) begin
      assert (state <= STOPPING);
      assert (busy == (state != IDLE && state != ERROR) && \u_dut.start_q == (state == START));
      if (image_state) assert (image_end_addr <= CAPACITY && image_rows != '0 && image_row_quads != '0);
      if (checked) begin
        assert (op >= program_pkg::OP_CONV && op <= program_pkg::OP_ADD);
        if (op == program_pkg::OP_ADD) assert (writes);
        if (program_pkg::descriptor_raw(desc)) assert (program_pkg::descriptor_emit(desc) && !writes);
        assert (program_pkg::descriptor_has_params(desc) == (op != program_pkg::OP_MAXPOOL));
        if (program_pkg::descriptor_fused(desc)) assert (op == program_pkg::OP_CONV && writes);
        if (writes) begin
          assert (program_pkg::descriptor_out_end(desc) <= CAPACITY);
          assert ({1'b0, program_pkg::descriptor_out_base(desc)} < program_pkg::descriptor_out_end(desc));
        end
        assert (program_pkg::descriptor_in_w(desc) != '0 && program_pkg::descriptor_in_h(desc) != '0);
        assert (program_pkg::descriptor_out_w(desc) != '0 && program_pkg::descriptor_out_h(desc) != '0);
        assert (program_pkg::descriptor_in_quads(desc) != '0 && program_pkg::descriptor_out_quads(desc) != '0);
        if (op != program_pkg::OP_MAXPOOL) assert (program_pkg::descriptor_out_quads(desc) <= 8'd128);
        if (op == program_pkg::OP_CONV) begin
          assert (mode <= 2'd2 && program_pkg::descriptor_window(desc) == {mode, 1'b1});
          assert (program_pkg::descriptor_read_quads(desc) <= ((mode == 2'd2) ? 4'd5 : 4'd8));
          assert (program_pkg::descriptor_tile_pixels(desc) != '0 &&
              program_pkg::descriptor_tile_pixels(desc) <= 9'd256);
          assert (program_pkg::descriptor_tile_rows(desc) != '0 && program_pkg::descriptor_tile_cols(desc) != '0);
        end else begin
          assert (program_pkg::descriptor_pool_kernel_h(desc) != '0 &&
              program_pkg::descriptor_pool_kernel_w(desc) != '0);
          assert (program_pkg::descriptor_pool_stride_h(desc) != '0 &&
              program_pkg::descriptor_pool_stride_w(desc) != '0);
        end
      end
      assert (!(conv_start && pool_start));
      if (conv_start || pool_start || emit_start) assert (checked && !image_enable);
      assert (!image_end || results_done);
      assert (!(image_enable && layer_active));
      assert (error == (state == ERROR));
      assert (!(error && busy));
      assert (began_q == (idle_q && state == HEADER));
      // a run that was asked to stop
      if (!error) assert (asked_q == \u_dut.stop_q );
      if (image_end && (asked_q || stop_i)) assert (stopped);
      if (stopped) assert (asked_q || stop_i);
      if (stopped_q) assert (state == IDLE && !stopped);
      if (asked_q && !begun) assert (!image_enable);
      if (begun && state == IMAGE) assert (image_enable);
      if (between) assert (open_q <= STOP_LIMIT);
      if (open_q != '0) assert (asked_q);
      if (open_q != '0 && between && !begun) assert (state == STOPPING && open_q == \u_dut.settle_q [2:0] + 3'd1);
      if (state == STOPPING) assert (asked_q && \u_dut.settle_q <= 6'd3 && (begun || open_q != '0));
    end
    cover (past_q && checked && op == program_pkg::OP_CONV);
    cover (past_q && error);
    cover (past_q && image_enable);
    cover (past_q && stopped && state == STOPPING);
    cover (past_q && image_end && stop_i && !asked_q);
  end

endmodule

`default_nettype wire
