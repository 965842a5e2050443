// Main controller: runs a program, layer after layer and image after image.
//
// Purpose: from START to STOP it takes one image after the other. It reads the program header, enables the image
// loader, and then, for each layer, fetches the descriptor, starts the unit that computes the layer, waits until the
// results are written, and has the tensor sent if the program asks for it. It checks descriptors before a unit starts,
// and turns every error into a code and the number of the layer.
// Latency: RECORD_WORDS + 5 cycles from START to the first image beat; RECORD_WORDS + 4 from a layer's end to the next
// one's start, 1 more with parameters; SETTLE cycles after the last result of a layer, cq_pkg::RESIDUAL more with a
// fused sum.
// Throughput: one image at a time.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module main_controller #(
    parameter NUM_MODULES = 4,
    parameter PLANES      = 3,
    parameter BANK_WORDS  = 11264,
    parameter MAX_LAYERS  = program_pkg::MAX_LAYERS
) (
    input  wire logic                                clk_i,
    input  wire logic                                rst_ni,           // includes soft reset
    // host
    input  wire logic                                start_i,
    input  wire logic                                stop_i,
    output wire logic                                busy_o,
    output wire logic                                begin_o,          // pulse: START is obeyed
    output wire logic                                done_o,           // pulse: an image is finished
    output wire logic                                stopped_o,        // pulse: stopped as asked
    output wire logic                                error_o,          // level until reset
    output wire logic                                error_pulse_o,
    output wire logic [7:0]                          error_code_o,
    output wire logic [7:0]                          error_layer_o,
    output wire logic [5:0]                          layer_o,
    output wire logic                                layer_end_o,      // pulse: the layer's counters are final
    output wire logic                                layer_active_o,   // between FETCH and layer_end_o
    output wire logic                                results_done_o,   // level: the image's last result beat was taken
    output wire logic                                image_end_o,      // pulse: that, and its weights packet has ended
    // errors found elsewhere
    input  wire logic                                parser_error_i,
    input  wire logic [7:0]                          parser_code_i,
    input  wire logic                                image_error_i,
    input  wire logic [7:0]                          image_code_i,
    input  wire logic                                oob_i,
    // program memory
    input  wire logic                                prog_valid_i,
    input  wire logic [10:0]                         prog_last_i,      // address of the program's last word
    output wire logic [10:0]                         prog_addr_o,
    input  wire logic [63:0]                         prog_data_i,      // 2 cycles later
    // image
    output wire logic                                image_enable_o,
    input  wire logic                                image_first_i,
    input  wire logic                                image_done_i,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] image_base_o,
    output wire logic [program_pkg::QUAD_ADDR_W:0]   image_end_addr_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] image_row_quads_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] image_row_stride_o,
    output wire logic [program_pkg::DIM_W-1:0]       image_rows_o,
    // weights
    input  wire logic                                weights_first_i,  // pulse: a weights packet began
    input  wire logic                                weights_done_i,   // pulse: it is complete and correct
    input  wire logic                                weights_empty_i,  // no word left in buffer and loader
    input  wire logic                                buffer_full_i,    // the weight buffer takes no more words
    input  wire logic                                starved_i,
    input  wire logic                                params_ready_i,
    output wire logic                                params_done_o,    // pulse: a layer with parameters has finished
    output wire logic                                params_bank_o,
    // layer: the descriptor's words and the units
    output wire logic [program_pkg::RECORD_WORDS-1:0][63:0] desc_o,
    output wire logic                                check_start_o,    // pulse: the descriptor is complete
    input  wire logic                                check_bad_i,      // pulse: its sizes do not fit together
    output wire logic                                conv_start_o,
    input  wire logic                                conv_busy_i,
    output wire logic                                pool_start_o,
    input  wire logic                                pool_done_i,
    output wire logic                                raw_flush_o,      // pulse: no more 32-bit results
    output wire logic                                emit_start_o,
    input  wire logic                                emit_done_i,
    input  wire logic                                results_empty_i
);

  localparam int WORDS = program_pkg::RECORD_WORDS;
  localparam int SETTLE = 16;         // results in flight between drain read or pooling and the feature buffer
  localparam int SHORT_LIMIT = 4095;  // cycles without weights while none come: the packet has ended or stands still
  localparam logic [program_pkg::TILE_W:0] MOST_PIXELS = (program_pkg::TILE_W + 1)'(program_pkg::TILE_PIXELS);
  localparam logic [program_pkg::QUADS_W-1:0] MOST_QUADS = program_pkg::QUADS_W'(program_pkg::MAX_CHANNELS / 4);
  localparam logic [program_pkg::QUAD_ADDR_W:0] CAPACITY = (program_pkg::QUAD_ADDR_W + 1)'(8 * BANK_WORDS);

  localparam logic [3:0] IDLE = 4'd0, HEADER = 4'd1, CHECK_HEADER = 4'd2, IMAGE = 4'd3, FETCH = 4'd4, CHECK = 4'd5,
      WAIT_PARAMS = 4'd6,
      START = 4'd7, RUN = 4'd8, DRAIN = 4'd9, EMIT = 4'd10, LAYER_END = 4'd11, FINISH = 4'd12, ERROR = 4'd13,
      STOPPING = 4'd14;

  logic [3:0] state_q;
  logic [4:0] word_q;
  logic [5:0] settle_q;
  logic [10:0] addr_q;
  logic [5:0] layer_q;
  logic [WORDS-1:0][63:0] desc_q;
  logic stop_q, bank_q, image_started_q, weights_done_q, started_q;
  logic [11:0] short_q;
  logic short_end_q;
  logic [7:0] code_q, code_d;
  logic error_d, error_pulse_q;
  logic busy_q, error_q, start_q;  // state_q is neither IDLE nor ERROR, is ERROR, is START

  // ---------------------------------------------------------------- program header
  logic [15:0] n_layers_q;
  logic [7:0] modules_q, version_q;
  logic two_planes_q;
  logic [program_pkg::QUAD_ADDR_W-1:0] image_base_q, image_row_quads_q, image_row_stride_q;
  logic [program_pkg::QUAD_ADDR_W:0] image_end_addr_q;
  logic [program_pkg::DIM_W-1:0] image_rows_q;

  // ---------------------------------------------------------------- the descriptor's control bits
  // What only the last word but one or earlier ones decide is known in CHECK, in the cycle after the last word.
  logic [3:0] op;
  logic raw, emit, last_layer_q, has_params, is_add, is_max, fused, is_conv_q, is_pool_q;
  // is_pool_q: the pooling unit computes it
  assign op         = program_pkg::descriptor_op(desc_q);
  assign raw        = program_pkg::descriptor_raw(desc_q);
  assign emit       = program_pkg::descriptor_emit(desc_q);
  assign has_params = program_pkg::descriptor_has_params(desc_q);
  assign fused      = program_pkg::descriptor_fused(desc_q);
  assign is_add     = op == program_pkg::OP_ADD;
  assign is_max     = op == program_pkg::OP_MAXPOOL;

  logic header_bad, modules_bad, header_bad_q, modules_bad_q, desc_bad, conv_bad, pool_bad, size_bad, region_bad;
  logic conv_bad_q, pool_bad_q, size_bad_q, region_bad_q;
  assign modules_bad = modules_q != 8'(NUM_MODULES) || (PLANES == 2 && !two_planes_q);
  assign header_bad = version_q != 8'(program_pkg::PROGRAM_VERSION) || n_layers_q == '0 ||
      n_layers_q > 16'(MAX_LAYERS) || image_rows_q == '0 || image_row_quads_q == '0 || image_end_addr_q > CAPACITY ||
      {n_layers_q[6:0], 4'(WORDS - 1)} > prog_last_i;  // layers that the program does not have

  logic [program_pkg::TILE_W:0] tile_rows, tile_cols, tile_pixels;
  logic [1:0] mode;
  logic [2:0] window;  // columns of the mode's window
  logic [3:0] read_quads, most_read;  // of a read, and how many of them the mode computes
  logic tile_bad, step_bad, mode_bad;
  assign tile_rows   = program_pkg::descriptor_tile_rows(desc_q);
  assign tile_cols   = program_pkg::descriptor_tile_cols(desc_q);
  assign tile_pixels = program_pkg::descriptor_tile_pixels(desc_q);
  assign mode        = program_pkg::descriptor_mode(desc_q);
  assign tile_bad    = tile_rows == '0 || tile_rows > MOST_PIXELS || tile_cols == '0 || tile_cols > MOST_PIXELS ||
      tile_pixels == '0 || tile_pixels > MOST_PIXELS;
  // a pass has one kernel row but for vertical taps
  assign step_bad    = program_pkg::descriptor_vertical(desc_q) ?
      program_pkg::descriptor_kr_step(desc_q) != (program_pkg::descriptor_pair(desc_q) ? 4'd2 : read_quads) :
      program_pkg::descriptor_kr_step(desc_q) != 4'd1;
  assign read_quads  = program_pkg::descriptor_read_quads(desc_q);
  assign window      = (mode == program_pkg::MODE_5) ? 3'd5 : (mode == program_pkg::MODE_3) ? 3'd3 : 3'd1;
  assign most_read   = (mode == program_pkg::MODE_5) ? 4'd5 : 4'd8;
  assign mode_bad    = mode > program_pkg::MODE_5 || program_pkg::descriptor_window(desc_q) != window ||
      read_quads > most_read;
  assign conv_bad    = mode_bad || tile_bad || step_bad ||
      program_pkg::descriptor_kr_count(desc_q) == '0 || program_pkg::descriptor_pieces(desc_q) == '0 ||
      program_pkg::descriptor_channel_groups(desc_q) == '0 || program_pkg::descriptor_output_groups(desc_q) == '0;
  assign pool_bad    = program_pkg::descriptor_pool_kernel_h(desc_q) == '0 ||
      program_pkg::descriptor_pool_kernel_w(desc_q) == '0 ||
      program_pkg::descriptor_pool_stride_h(desc_q) == '0 || program_pkg::descriptor_pool_stride_w(desc_q) == '0;
  assign size_bad    = program_pkg::descriptor_in_w(desc_q) == '0 || program_pkg::descriptor_in_h(desc_q) == '0 ||
      program_pkg::descriptor_in_quads(desc_q) == '0 || program_pkg::descriptor_out_quads(desc_q) == '0 ||
      program_pkg::descriptor_out_w(desc_q) == '0 || program_pkg::descriptor_out_h(desc_q) == '0 ||
      (has_params && program_pkg::descriptor_out_quads(desc_q) > MOST_QUADS);  // channels that parameters are kept of
  assign region_bad  = program_pkg::descriptor_out_end(desc_q) > CAPACITY ||
      {1'b0, program_pkg::descriptor_out_base(desc_q)} >= program_pkg::descriptor_out_end(desc_q);
  // 32-bit results go to the stream: they have no region, and only a convolution or average pool as the last layer may
  // send them. Only a convolution has a sum fused into it. All but a max pool have parameters.
  assign desc_bad = !(is_conv_q || is_pool_q) || size_bad_q || (is_conv_q && conv_bad_q) ||
      (is_pool_q && pool_bad_q) || region_bad_q;
  always_ff @(posedge clk_i) begin
    header_bad_q  <= header_bad;
    modules_bad_q <= modules_bad;
    is_conv_q     <= op == program_pkg::OP_CONV;
    is_pool_q     <= is_max || op == program_pkg::OP_AVGPOOL || is_add;
    conv_bad_q    <= conv_bad;
    pool_bad_q    <= pool_bad;
    size_bad_q    <= size_bad;
    region_bad_q  <= (raw && (is_add || is_max)) ||
        (fused && (op != program_pkg::OP_CONV || raw)) ||
        (!raw && region_bad) || (raw && !(emit && last_layer_q)) || has_params == is_max;
    last_layer_q  <= {10'b0, layer_q} + 16'd1 == n_layers_q;
  end

  // ---------------------------------------------------------------- errors
  // Other blocks' errors are seen a cycle later: they come from all over the chip.
  logic parser_error_q, image_error_q, oob_q, check_bad_q;
  logic [7:0] parser_code_q, image_code_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) {parser_error_q, image_error_q, oob_q, check_bad_q} <= '0;
    else {parser_error_q, image_error_q, oob_q, check_bad_q} <= {parser_error_i, image_error_i, oob_i, check_bad_i};
    parser_code_q <= parser_code_i;
    image_code_q  <= image_code_i;
  end

  logic no_more_weights;
  assign no_more_weights = weights_done_q || buffer_full_i;

  always_comb begin
    error_d = 1'b0;
    code_d  = '0;
    if (parser_error_q) begin
      error_d = 1'b1;
      code_d  = parser_code_q;
    end else if (image_error_q) begin
      error_d = 1'b1;
      code_d  = image_code_q;
    end else if (oob_q) begin
      error_d = 1'b1;
      code_d  = clipq_error_pkg::OUT_OF_BOUNDS;
    end else if (start_i) begin
      error_d = busy_o || !prog_valid_i;
      code_d  = busy_o ? clipq_error_pkg::START_BUSY : clipq_error_pkg::NO_PROGRAM;
    end else if (state_q == HEADER && !prog_valid_i) begin  // another program began in the cycle of START
      error_d = 1'b1;
      code_d  = clipq_error_pkg::NO_PROGRAM;
    end else if (state_q == CHECK_HEADER && (header_bad_q || modules_bad_q)) begin
      error_d = 1'b1;
      code_d  = header_bad_q ? clipq_error_pkg::PROGRAM_HEADER : clipq_error_pkg::NUM_MODULES;
    end else if ((state_q == CHECK && desc_bad) || check_bad_q) begin
      error_d = 1'b1;
      code_d  = clipq_error_pkg::DESCRIPTOR;
    end else if (short_end_q) begin
      error_d = 1'b1;
      code_d  = clipq_error_pkg::WEIGHTS_SHORT;
    end else if (state_q == FINISH && no_more_weights && (!weights_empty_i || params_ready_i)) begin
      error_d = 1'b1;
      code_d  = clipq_error_pkg::WEIGHTS_LONG;
    end
  end

  logic waiting_for_weights;
  assign waiting_for_weights = no_more_weights && ((state_q == RUN && is_conv_q && starved_i) ||
      (state_q == WAIT_PARAMS && !params_ready_i));

  // ---------------------------------------------------------------- states
  logic unit_done, settled, stop;
  assign unit_done = is_conv_q ? !conv_busy_i : pool_done_i;
  assign settled   = settle_q == (fused ? 6'(SETTLE + cq_pkg::RESIDUAL) : 6'(SETTLE));
  assign stop      = stop_q || stop_i;  // in the last cycle of an image STOP still means this image

  logic image_over, stop_over;  // the run may end in the next cycle
  assign image_over = state_q == FINISH && weights_done_q && results_empty_i;
  assign stop_over  = state_q == STOPPING && settle_q == 6'd3 && !image_started_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      {busy_q, error_q, start_q} <= '0;
    end else begin
      error_q <= error_q || error_d;
      start_q <= !error_d && ((state_q == CHECK && !has_params) || (state_q == WAIT_PARAMS && params_ready_i));
      if (error_d) busy_q <= 1'b0;
      else if (state_q == IDLE) busy_q <= start_i;
      else if (stop_over || (image_over && stop)) busy_q <= 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q         <= IDLE;
      stop_q          <= 1'b0;
      bank_q          <= 1'b0;
      image_started_q <= 1'b0;
      weights_done_q  <= 1'b0;
      short_q         <= '0;
      short_end_q     <= 1'b0;
      code_q          <= '0;
      error_pulse_q   <= 1'b0;
      started_q       <= 1'b0;
    end else begin
      error_pulse_q <= error_d && state_q != ERROR;
      short_q       <= waiting_for_weights ? short_q + 12'd1 : '0;
      short_end_q   <= waiting_for_weights && short_q == 12'(SHORT_LIMIT - 1);
      started_q     <= start_q;
      if (stop_i) stop_q <= busy_o;
      if (weights_first_i || image_first_i) image_started_q <= 1'b1;
      if (weights_done_i) weights_done_q <= 1'b1;
      if (params_done_o) bank_q <= !bank_q;
      if (error_d && state_q != ERROR) begin
        state_q <= ERROR;
        code_q  <= code_d;
      end else begin
        case (state_q)
          IDLE: if (start_i) state_q <= HEADER;
          HEADER: if (word_q == 5'(WORDS + 1)) state_q <= CHECK_HEADER;
          CHECK_HEADER: state_q <= IMAGE;
          IMAGE: begin
            if (image_done_i) state_q <= FETCH;
            else if (stop_q && !image_started_q) state_q <= STOPPING;
          end
          // A beat accepted just before the image loader was closed is seen here: then the image is finished first.
          STOPPING: begin
            if (image_started_q) state_q <= IMAGE;
            else if (settle_q == 6'd3) begin
              state_q <= IDLE;
              stop_q  <= 1'b0;
            end
          end
          FETCH: if (word_q == 5'(WORDS + 1)) state_q <= CHECK;
          CHECK: state_q <= has_params ? WAIT_PARAMS : START;
          // Codebook and addresses need a cycle; parameters are usually there long before.
          WAIT_PARAMS: if (params_ready_i) state_q <= START;
          START: state_q <= RUN;
          RUN: if (unit_done && !started_q) state_q <= DRAIN;
          DRAIN: if (settled) state_q <= emit ? EMIT : LAYER_END;
          EMIT: if (emit_done_i || raw) state_q <= LAYER_END;
          LAYER_END: state_q <= last_layer_q ? FINISH : FETCH;
          FINISH: if (image_over) begin
            state_q         <= stop ? IDLE : IMAGE;
            stop_q          <= 1'b0;
            weights_done_q  <= weights_done_i;
            image_started_q <= 1'b0;
          end
          default: state_q <= ERROR;
        endcase
      end
    end
  end

  // ---------------------------------------------------------------- program memory: 16 words at a time
  always_ff @(posedge clk_i) begin
    if (state_q == HEADER || state_q == FETCH) begin
      word_q <= word_q + 5'd1;
      addr_q <= addr_q + 11'd1;
    end else begin
      word_q <= '0;
      if (state_q == IDLE) addr_q <= '0;
      else if (state_q == IMAGE) addr_q <= 11'(WORDS);
      // a fetch reads two words ahead
      else if (state_q == CHECK) addr_q <= addr_q - 11'd2;
    end
    if (!rst_ni || state_q == IDLE || state_q == IMAGE) layer_q <= '0;
    else if (state_q == LAYER_END && !last_layer_q) layer_q <= layer_q + 6'd1;
    settle_q <= (state_q == DRAIN || state_q == STOPPING) ? settle_q + 6'd1 : '0;
  end

  genvar w;
  generate
    for (w = 0; w < WORDS; w = w + 1) begin : gen_desc
      always_ff @(posedge clk_i) if (state_q == FETCH && word_q == 5'(w + 2)) desc_q[w] <= prog_data_i;
    end
  endgenerate

  // A word comes two cycles after its number.
  always_ff @(posedge clk_i) begin
    if (state_q == HEADER) begin
      if (word_q == 5'(program_pkg::HEADER_VERSION_WORD + 2)) version_q <= program_pkg::header_version(prog_data_i);
      if (word_q == 5'(program_pkg::HEADER_NUM_MODULES_WORD + 2))
        modules_q <= program_pkg::header_num_modules(prog_data_i);
      if (word_q == 5'(program_pkg::HEADER_TWO_PLANES_WORD + 2))
        two_planes_q <= program_pkg::header_two_planes(prog_data_i);
      if (word_q == 5'(program_pkg::HEADER_N_LAYERS_WORD + 2)) n_layers_q <= program_pkg::header_n_layers(prog_data_i);
      if (word_q == 5'(program_pkg::HEADER_IMAGE_BASE_WORD + 2))
        image_base_q <= program_pkg::header_image_base(prog_data_i);
      if (word_q == 5'(program_pkg::HEADER_IMAGE_ROW_STRIDE_WORD + 2))
        image_row_stride_q <= program_pkg::header_image_row_stride(prog_data_i);
      if (word_q == 5'(program_pkg::HEADER_IMAGE_ROW_QUADS_WORD + 2))
        image_row_quads_q <= program_pkg::header_image_row_quads(prog_data_i);
      if (word_q == 5'(program_pkg::HEADER_IMAGE_ROWS_WORD + 2))
        image_rows_q <= program_pkg::header_image_rows(prog_data_i);
      if (word_q == 5'(program_pkg::HEADER_IMAGE_END_ADDR_WORD + 2))
        image_end_addr_q <= program_pkg::header_image_end_addr(prog_data_i);
    end
  end

  assign prog_addr_o        = addr_q;
  assign desc_o             = desc_q;
  assign image_enable_o     = state_q == IMAGE && (!stop_q || image_started_q);
  assign image_base_o       = image_base_q;
  assign image_end_addr_o   = image_end_addr_q;
  assign image_row_quads_o  = image_row_quads_q;
  assign image_row_stride_o = image_row_stride_q;
  assign image_rows_o       = image_rows_q;
  assign check_start_o      = state_q == CHECK;
  assign conv_start_o       = start_q && is_conv_q;
  assign pool_start_o       = start_q && is_pool_q;
  assign raw_flush_o        = state_q == EMIT && raw;
  assign emit_start_o       = state_q == DRAIN && settled && emit && !raw;
  assign params_done_o      = state_q == LAYER_END && has_params;
  assign params_bank_o      = bank_q;
  assign busy_o             = busy_q;
  assign begin_o            = state_q == IDLE && start_i && !error_d;
  assign image_end_o        = image_over && !error_d;
  assign results_done_o     = state_q == FINISH && results_empty_i;
  assign done_o             = image_end_o;
  assign stopped_o          = (image_end_o && stop) ||
      (stop_over && !error_d);
  assign error_o            = error_q;
  assign error_pulse_o      = error_pulse_q;
  assign error_code_o       = code_q;
  assign error_layer_o      = {2'b0, layer_q};
  assign layer_o            = layer_q;
  assign layer_end_o        = state_q == LAYER_END;
  assign layer_active_o     = state_q == FETCH || state_q == CHECK || state_q == WAIT_PARAMS || state_q == START ||
      state_q == RUN ||
      state_q == DRAIN || state_q == EMIT || state_q == LAYER_END;

endmodule

`default_nettype wire
