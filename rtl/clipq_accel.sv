// CLIP-Q accelerator: the top level.
//
// Purpose: runs codebook-quantized convolutional networks. The host loads a program over AXI-Stream and starts it over
// AXI4-Lite. For each image it then sends a weights packet on the program stream and the image on the image stream. The
// results leave on the result stream (docs/architecture.md).
// Latency: model/performance/cycle_model.py predicts the cycles of every layer and image exactly.
// Throughput: one image at a time; the weights of a layer are loaded while the layers before it run.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module clipq_accel #(
    parameter NUM_MODULES  = 4,      // conv modules: 4, 8 or 16
    parameter BANK_WORDS   = 11264,  // feature buffer: 8 banks of so many 32-bit words
    parameter WEIGHT_WORDS = 2048,   // weight buffer: 64-bit words, a power of two
    parameter MAX_LAYERS   = program_pkg::MAX_LAYERS,
    parameter PLANES       = 3       // index planes: 2 for codebooks with w3 = w1 + w2 only
) (
    input  wire logic        clk_i,
    input  wire logic        rst_ni,
    output wire logic        irq_o,

    input  wire logic        s_axil_awvalid,
    output wire logic        s_axil_awready,
    input  wire logic [11:0] s_axil_awaddr,
    input  wire logic [2:0]  s_axil_awprot,
    input  wire logic        s_axil_wvalid,
    output wire logic        s_axil_wready,
    input  wire logic [31:0] s_axil_wdata,
    input  wire logic [3:0]  s_axil_wstrb,
    output wire logic        s_axil_bvalid,
    input  wire logic        s_axil_bready,
    output wire logic [1:0]  s_axil_bresp,
    input  wire logic        s_axil_arvalid,
    output wire logic        s_axil_arready,
    input  wire logic [11:0] s_axil_araddr,
    input  wire logic [2:0]  s_axil_arprot,
    output wire logic        s_axil_rvalid,
    input  wire logic        s_axil_rready,
    output wire logic [31:0] s_axil_rdata,
    output wire logic [1:0]  s_axil_rresp,

    input  wire logic [63:0] s_axis_prog_tdata,
    input  wire logic [7:0]  s_axis_prog_tkeep,
    input  wire logic        s_axis_prog_tvalid,
    output wire logic        s_axis_prog_tready,
    input  wire logic        s_axis_prog_tlast,

    input  wire logic [63:0] s_axis_image_tdata,
    input  wire logic [7:0]  s_axis_image_tkeep,
    input  wire logic        s_axis_image_tvalid,
    output wire logic        s_axis_image_tready,
    input  wire logic        s_axis_image_tlast,

    output wire logic [63:0] m_axis_result_tdata,
    output wire logic [7:0]  m_axis_result_tkeep,
    output wire logic        m_axis_result_tvalid,
    input  wire logic        m_axis_result_tready,
    output wire logic        m_axis_result_tlast
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;
  localparam int QUADS = NUM_MODULES / 4;
  localparam int PROG_WORDS = program_pkg::RECORD_WORDS * (MAX_LAYERS + 1);
  localparam int PROG_W = $clog2(PROG_WORDS);
  localparam int LEVEL_W = $clog2(WEIGHT_WORDS) + 1;
  localparam int RESULT_DEPTH = 64;
  localparam int ROOM_W = $clog2(RESULT_DEPTH + 1);
  localparam int WORDS_PER_BANK = program_pkg::MAX_CHANNELS / NUM_MODULES;  // parameter words
  localparam int WORD_W = $clog2(WORDS_PER_BANK);
  localparam int TAG_W = A_W + QUADS;

`ifndef YOSYS
  initial if (MAX_LAYERS < 1 || MAX_LAYERS > program_pkg::MAX_LAYERS)
    $fatal(1, "clipq_accel: MAX_LAYERS must be 1..%0d, got %0d", program_pkg::MAX_LAYERS, MAX_LAYERS);
`endif

  // ---------------------------------------------------------------- registers and reset
  logic start, stop, soft_reset, core_rst_n;
  // One register for each part of the chip: all of them leave reset together.
  localparam int CORE = 0, WEIGHTS = 1, FEATURES = 2, CONV = 3, POOL = 4, OUTPUT = 5, RESULTS = 6, RESETS = 7;
  logic [RESETS-1:0] reset_q, rst_n;
  logic busy, begins, done, stopped, error, error_pulse, prog_valid, done_q;
  logic [7:0] error_code, error_layer;
  logic [5:0] layer_sel;
  logic [2:0] unused_irq_enable;  // masked inside the register block
  logic [31:0] layer_cycles, layer_stalls, layer_reads, layer_writes, layer_weights, total_cycles, images_done;

  genvar part;
  generate
    for (part = 0; part < RESETS; part = part + 1) begin : gen_reset
      (* keep *) always_ff @(posedge clk_i) reset_q[part] <= !rst_ni || soft_reset;
    end
  endgenerate
  assign rst_n      = ~reset_q;
  assign core_rst_n = rst_n[CORE];
  logic [2:0] events_q;  // for interrupts: stopped, error, done
  always_ff @(posedge clk_i) events_q <= core_rst_n ? {stopped, error_pulse, done} : 3'b0;
  always_ff @(posedge clk_i) begin
    if (!core_rst_n || begins) done_q <= 1'b0;
    else if (done) done_q <= 1'b1;
  end

  clipq_regs u_regs (
      .clk                          (clk_i),
      .rst_n                        (rst_ni),
      .s_axil_awready               (s_axil_awready),
      .s_axil_awvalid               (s_axil_awvalid),
      .s_axil_awaddr                (s_axil_awaddr),
      .s_axil_awprot                (s_axil_awprot),
      .s_axil_wready                (s_axil_wready),
      .s_axil_wvalid                (s_axil_wvalid),
      .s_axil_wdata                 (s_axil_wdata),
      .s_axil_wstrb                 (s_axil_wstrb),
      .s_axil_bready                (s_axil_bready),
      .s_axil_bvalid                (s_axil_bvalid),
      .s_axil_bresp                 (s_axil_bresp),
      .s_axil_arready               (s_axil_arready),
      .s_axil_arvalid               (s_axil_arvalid),
      .s_axil_araddr                (s_axil_araddr),
      .s_axil_arprot                (s_axil_arprot),
      .s_axil_rready                (s_axil_rready),
      .s_axil_rvalid                (s_axil_rvalid),
      .s_axil_rdata                 (s_axil_rdata),
      .s_axil_rresp                 (s_axil_rresp),
      .hwif_in_params_num_modules   (7'(NUM_MODULES)),
      .hwif_in_params_two_planes    (PLANES == 2),
      .hwif_in_params_tile_pixels   (12'(program_pkg::TILE_PIXELS)),
      .hwif_in_params_feature_kb    (12'(BANK_WORDS / 32)),
      .hwif_out_ctrl_start          (start),
      .hwif_out_ctrl_stop           (stop),
      .hwif_out_ctrl_soft_reset     (soft_reset),
      .hwif_in_status_busy          (busy),
      .hwif_in_status_done          (done_q),
      .hwif_in_status_error         (error),
      .hwif_in_status_prog_valid    (prog_valid),
      .hwif_in_status_result        (m_axis_result_tvalid),
      .hwif_in_error_code           (error_code),
      .hwif_in_error_layer          (error_layer),
      .hwif_out_irq_status_intr     (irq_o),
      .hwif_in_irq_status_done      (events_q[0] && core_rst_n),  // the core is reset a cycle after the registers
      .hwif_in_irq_status_error     (events_q[1] && core_rst_n),
      .hwif_in_irq_status_stopped   (events_q[2] && core_rst_n),
      .hwif_out_irq_enable_done     (unused_irq_enable[0]),
      .hwif_out_irq_enable_error    (unused_irq_enable[1]),
      .hwif_out_irq_enable_stopped  (unused_irq_enable[2]),
      .hwif_out_layer_sel_layer     (layer_sel),
      .hwif_in_layer_cycles_value   (layer_cycles),
      .hwif_in_layer_stalls_value   (layer_stalls),
      .hwif_in_layer_reads_value    (layer_reads),
      .hwif_in_layer_writes_value   (layer_writes),
      .hwif_in_layer_weights_value  (layer_weights),
      .hwif_in_total_cycles_value   (total_cycles),
      .hwif_in_images_done_value    (images_done)
  );

  // ---------------------------------------------------------------- program and weights stream
  logic parser_error, prog_we, parser_ready, unused_prog_start, prog_done;
  logic weights_valid, weights_ready, weights_done, weights_first, buffer_ready, results_done, image_end;
  logic [7:0] parser_code;
  logic [10:0] prog_waddr, prog_raddr;
  logic unused_prog_addr;
  assign unused_prog_addr = ^{prog_waddr >> PROG_W, prog_raddr >> PROG_W};
  logic [63:0] prog_wdata, prog_rdata, prog_word_q, weights_data;
  logic [10:0] prog_last_q;

  // One packet at a time: after its last beat the stream is held until the program is accepted or the image finished.
  logic gate_q;
  assign s_axis_prog_tready = parser_ready && !gate_q && core_rst_n;  // a soft reset would lose a beat
  always_ff @(posedge clk_i) begin
    if (!core_rst_n || prog_done || image_end || error) gate_q <= 1'b0;
    else if (s_axis_prog_tvalid && s_axis_prog_tready && s_axis_prog_tlast) gate_q <= 1'b1;
  end

  stream_parser #(
      .PROG_WORDS(PROG_WORDS)
  ) u_parser (
      .clk_i          (clk_i),
      .rst_ni         (rst_ni),
      .clear_i        (!core_rst_n),
      .busy_i         (busy || error),
      .s_axis_tdata   (s_axis_prog_tdata),
      .s_axis_tkeep   (s_axis_prog_tkeep),
      .s_axis_tvalid  (s_axis_prog_tvalid && !gate_q),
      .s_axis_tready  (parser_ready),
      .s_axis_tlast   (s_axis_prog_tlast),
      .prog_we_o      (prog_we),
      .prog_addr_o    (prog_waddr),
      .prog_data_o    (prog_wdata),
      .prog_valid_o   (prog_valid),
      .prog_start_o   (unused_prog_start),
      .prog_done_o    (prog_done),
      .weights_valid_o(weights_valid),
      .weights_ready_i(weights_ready),
      .weights_data_o (weights_data),
      .weights_done_o (weights_done),
      .first_beat_o   (weights_first),
      .err_valid_o    (parser_error),
      .err_code_o     (parser_code)
  );

  ram_1r1w #(
      .WIDTH(64),
      .DEPTH(PROG_WORDS),
      .READ_OLD(0)
  ) u_program_memory (
      .clk_i  (clk_i),
      .we_i   (prog_we),
      .waddr_i(prog_waddr[PROG_W-1:0]),
      .wdata_i(prog_wdata),
      .re_i   (1'b1),
      .raddr_i(prog_raddr[PROG_W-1:0]),
      .rdata_o(prog_rdata)
  );
  always_ff @(posedge clk_i) prog_word_q <= prog_rdata;  // the block RAM's output register
  always_ff @(posedge clk_i) if (prog_we) prog_last_q <= prog_waddr;

  logic [LEVEL_W-1:0] weight_level;
  logic weight_re, weight_rewind, weight_commit;
  logic [63:0] weight_word;
  assign weights_ready = buffer_ready || error;  // after an error the stream is emptied

  weight_buffer #(
      .DEPTH(WEIGHT_WORDS)
  ) u_weight_buffer (
      .clk_i     (clk_i),
      .rst_ni    (rst_n[WEIGHTS]),
      .in_valid_i(weights_valid),
      .in_ready_o(buffer_ready),
      .in_data_i (weights_data),
      .re_i      (weight_re),
      .data_o    (weight_word),
      .level_o   (weight_level),
      .rewind_i  (weight_rewind),
      .commit_i  (weight_commit)
  );

  logic param_we, param_bank, params_done, params_ready, params_bank, loader_idle;
  logic [8:0] param_channel;
  logic [63:0] param_data;
  logic [program_pkg::ARRAYS*NUM_MODULES*2*program_pkg::PES-1:0] idx;
  logic pass_ready, pass_full, pass_take, pass_drop, pass_switch;
  logic weights_empty_q;
  always_ff @(posedge clk_i) weights_empty_q <= loader_idle && weight_level == '0;

  weight_loader #(
      .NUM_MODULES(NUM_MODULES),
      .LEVEL_W    (LEVEL_W)
  ) u_weight_loader (
      .clk_i          (clk_i),
      .rst_ni         (rst_n[WEIGHTS]),
      .level_i        (weight_level),
      .re_o           (weight_re),
      .data_i         (weight_word),
      .rewind_o       (weight_rewind),
      .commit_o       (weight_commit),
      .param_we_o     (param_we),
      .param_bank_o   (param_bank),
      .param_channel_o(param_channel),
      .param_data_o   (param_data),
      .layer_done_i   (params_done),
      .params_ready_o (params_ready),
      .idle_o         (loader_idle),
      .idx_o          (idx),
      .ready_o        (pass_ready),
      .full_o         (pass_full),
      .take_i         (pass_take),
      .drop_i         (pass_drop),
      .switch_i       (pass_switch)
  );

  // ---------------------------------------------------------------- image stream
  logic image_enable, image_first, image_done, image_error, image_wr_valid, image_ready;
  logic [7:0] image_code, image_wr_mask;
  logic [A_W-1:0] image_base, image_row_quads, image_row_stride, image_wr_addr;
  logic [A_W:0] image_end_addr;
  logic [program_pkg::DIM_W-1:0] image_rows;
  logic [7:0][31:0] image_wr_data;

  assign s_axis_image_tready = (image_ready || error) && core_rst_n;  // after an error the stream is emptied

  image_loader u_image_loader (
      .clk_i        (clk_i),
      .rst_ni       (rst_ni),
      .clear_i      (!core_rst_n),
      .enable_i     (image_enable),
      .base_i       (image_base),
      .row_quads_i  (image_row_quads),
      .row_stride_i (image_row_stride),
      .n_rows_i     (image_rows),
      .s_axis_tdata (s_axis_image_tdata),
      .s_axis_tkeep (s_axis_image_tkeep),
      .s_axis_tvalid(s_axis_image_tvalid && !error),
      .s_axis_tready(image_ready),
      .s_axis_tlast (s_axis_image_tlast),
      .wr_valid_o   (image_wr_valid),
      .wr_addr_o    (image_wr_addr),
      .wr_mask_o    (image_wr_mask),
      .wr_data_o    (image_wr_data),
      .first_beat_o (image_first),
      .done_o       (image_done),
      .err_valid_o  (image_error),
      .err_code_o   (image_code)
  );

  // ---------------------------------------------------------------- control
  logic [program_pkg::RECORD_WORDS-1:0][63:0] desc;
  logic check_start, check_bad;
  logic oob, conv_start, conv_busy, pool_start, pool_done, raw_flush, emit_start, emit_done, results_empty;
  logic layer_end, layer_active, starved, starved_q, blocked;
  logic [5:0] layer;

  main_controller #(
      .NUM_MODULES(NUM_MODULES),
      .PLANES     (PLANES),
      .BANK_WORDS (BANK_WORDS),
      .MAX_LAYERS (MAX_LAYERS)
  ) u_main_controller (
      .clk_i             (clk_i),
      .rst_ni            (core_rst_n),
      .start_i           (start),
      .stop_i            (stop),
      .busy_o            (busy),
      .begin_o           (begins),
      .done_o            (done),
      .stopped_o         (stopped),
      .error_o           (error),
      .error_pulse_o     (error_pulse),
      .error_code_o      (error_code),
      .error_layer_o     (error_layer),
      .layer_o           (layer),
      .layer_end_o       (layer_end),
      .layer_active_o    (layer_active),
      .results_done_o    (results_done),
      .image_end_o       (image_end),
      .parser_error_i    (parser_error),
      .parser_code_i     (parser_code),
      .image_error_i     (image_error),
      .image_code_i      (image_code),
      .oob_i             (oob),
      .prog_valid_i      (prog_valid),
      .prog_last_i       (prog_last_q),
      .prog_addr_o       (prog_raddr),
      .prog_data_i       (prog_word_q),
      .image_enable_o    (image_enable),
      .image_first_i     (image_first),
      .image_done_i      (image_done),
      .image_base_o      (image_base),
      .image_end_addr_o  (image_end_addr),
      .image_row_quads_o (image_row_quads),
      .image_row_stride_o(image_row_stride),
      .image_rows_o      (image_rows),
      .weights_first_i   (weights_first),
      .weights_done_i    (weights_done),
      .weights_empty_i   (weights_empty_q),
      .buffer_full_i     (!buffer_ready),
      .starved_i         (starved_q),
      .params_ready_i    (params_ready),
      .params_done_o     (params_done),
      .params_bank_o     (params_bank),
      .desc_o            (desc),
      .check_start_o     (check_start),
      .check_bad_i       (check_bad),
      .conv_start_o      (conv_start),
      .conv_busy_i       (conv_busy),
      .pool_start_o      (pool_start),
      .pool_done_i       (pool_done),
      .raw_flush_o       (raw_flush),
      .emit_start_o      (emit_start),
      .emit_done_i       (emit_done),
      .results_empty_i   (results_empty)
  );

  descriptor_check #(
      .NUM_MODULES(NUM_MODULES),
      .BANK_WORDS (BANK_WORDS)
  ) u_descriptor_check (
      .clk_i  (clk_i),
      .rst_ni (core_rst_n),
      .start_i(check_start),
      .desc_i (desc),
      .bad_o  (check_bad)
  );

  // ---------------------------------------------------------------- feature buffer
  logic conv_rd_valid, pool_rd_valid, emit_rd_valid, rd_valid, rd_pair;
  logic [A_W-1:0] conv_rd_addr, pool_rd_addr, emit_rd_addr, rd_addr;
  logic [3:0] rd_count;
  logic [program_pkg::VSTEP_W-1:0] rd_vstep;
  logic [7:0][31:0] rd_data;
  logic pool_wr_valid, stage_wr_valid, wr_valid;
  logic [A_W-1:0] pool_wr_addr, stage_wr_addr, wr_addr, wr_base;
  logic [A_W:0] wr_end;
  logic [7:0] pool_wr_mask, stage_wr_mask, wr_mask;
  logic [7:0][31:0] pool_wr_data, stage_wr_data, wr_data;
  logic other_rd_valid, wr_read;  // second tensor of a fused sum, read through the write port
  logic [A_W-1:0] other_rd_addr;
  logic [15:0][7:0] other_data;
  logic unused_other_data;
  assign unused_other_data = &other_data;

  // Constants of the layer in registers behind the decoders: they change only while nothing is read or written. The
  // write region belongs to the write that the feature buffer gets a cycle earlier.
  logic [program_pkg::RECORD_WORDS-1:0][63:0] port_desc_q;
  logic [program_pkg::VSTEP_W-1:0] rd_vstep_q;
  logic rd_pair_q;
  logic [A_W-1:0] wr_base_q;
  logic [A_W:0] wr_end_q;
  always_ff @(posedge clk_i) begin
    port_desc_q <= desc;
    wr_base_q   <= wr_base;
    wr_end_q    <= wr_end;
    rd_vstep_q  <= rd_vstep;
    rd_pair_q   <= rd_pair;
  end

  feature_port_mux #(
      .NUM_MODULES(NUM_MODULES)
  ) u_feature_port_mux (
      .clk_i           (clk_i),
      .rst_ni          (rst_n[FEATURES]),
      .desc_i          (port_desc_q),
      .image_base_i    (image_base),
      .image_end_addr_i(image_end_addr),
      .conv_busy_i     (conv_busy),
      .conv_rd_valid_i (conv_rd_valid),
      .conv_rd_addr_i  (conv_rd_addr),
      .pool_rd_valid_i (pool_rd_valid),
      .pool_rd_addr_i  (pool_rd_addr),
      .emit_rd_valid_i (emit_rd_valid),
      .emit_rd_addr_i  (emit_rd_addr),
      .image_wr_valid_i(image_wr_valid),
      .image_wr_addr_i (image_wr_addr),
      .image_wr_mask_i (image_wr_mask),
      .image_wr_data_i (image_wr_data),
      .pool_wr_valid_i (pool_wr_valid),
      .pool_wr_addr_i  (pool_wr_addr),
      .pool_wr_mask_i  (pool_wr_mask),
      .pool_wr_data_i  (pool_wr_data),
      .other_rd_valid_i(other_rd_valid),
      .other_rd_addr_i (other_rd_addr),
      .stage_wr_valid_i(stage_wr_valid),
      .stage_wr_addr_i (stage_wr_addr),
      .stage_wr_mask_i (stage_wr_mask),
      .stage_wr_data_i (stage_wr_data),
      .rd_valid_o      (rd_valid),
      .rd_addr_o       (rd_addr),
      .rd_count_o      (rd_count),
      .rd_vstep_o      (rd_vstep),
      .rd_pair_o       (rd_pair),
      .wr_valid_o      (wr_valid),
      .wr_addr_o       (wr_addr),
      .wr_mask_o       (wr_mask),
      .wr_data_o       (wr_data),
      .wr_read_o       (wr_read),
      .wr_base_o       (wr_base),
      .wr_end_o        (wr_end)
  );

  feature_buffer #(
      .BANK_WORDS(BANK_WORDS)
  ) u_feature_buffer (
      .clk_i     (clk_i),
      .rst_ni    (rst_n[FEATURES]),
      .rd_valid_i(rd_valid),
      .rd_addr_i (rd_addr),
      .rd_count_i(rd_count),
      .rd_vstep_i(rd_vstep_q),
      .rd_pair_i (rd_pair_q),
      .rd_data_o (rd_data),
      .wr_valid_i(wr_valid),
      .wr_addr_i (wr_addr),
      .wr_mask_i (wr_mask),
      .wr_data_i (wr_data),
      .wr_read_i (wr_read),
      .wr_data_o (other_data),
      .wr_base_i (wr_base_q),
      .wr_end_i  (wr_end_q),
      .oob_o     (oob)
  );

  // ---------------------------------------------------------------- conv unit
  logic room, conv_acc_valid;
  logic [NUM_MODULES-1:0][cq_pkg::ACC_W-1:0] conv_acc;
  logic [8:0] conv_acc_word;
  logic [A_W-1:0] conv_acc_addr;
  logic [QUADS-1:0] conv_acc_mask;

  conv_unit #(
      .NUM_MODULES(NUM_MODULES),
      .PLANES     (PLANES)
  ) u_conv_unit (
      .clk_i           (clk_i),
      .rst_ni          (rst_n[CONV]),
      .start_i         (conv_start),
      .busy_o          (conv_busy),
      .starved_o       (starved),
      .blocked_o       (blocked),
      .desc_i          (desc),
      .idx_i           (idx),
      .weights_ready_i (pass_ready),
      .weights_full_i  (pass_full),
      .weights_take_o  (pass_take),
      .weights_drop_o  (pass_drop),
      .weights_switch_o(pass_switch),
      .rd_valid_o      (conv_rd_valid),
      .rd_addr_o       (conv_rd_addr),
      .rd_data_i       (rd_data),
      .room_i          (room),
      .acc_valid_o     (conv_acc_valid),
      .acc_o           (conv_acc),
      .acc_word_o      (conv_acc_word),
      .acc_addr_o      (conv_acc_addr),
      .acc_mask_o      (conv_acc_mask)
  );

  // ---------------------------------------------------------------- pooling
  logic pool_sum_valid;
  logic [NUM_MODULES-1:0][cq_pkg::ACC_W-1:0] pool_sum;
  logic [8:0] pool_sum_word;
  logic [A_W-1:0] pool_sum_addr;
  logic [QUADS-1:0] pool_sum_mask;

  pooling_unit #(
      .NUM_MODULES(NUM_MODULES)
  ) u_pooling_unit (
      .clk_i       (clk_i),
      .rst_ni      (rst_n[POOL]),
      .start_i     (pool_start),
      .done_o      (pool_done),
      .desc_i      (desc),
      .rd_valid_o  (pool_rd_valid),
      .rd_addr_o   (pool_rd_addr),
      .rd_data_i   (rd_data),
      .wr_valid_o  (pool_wr_valid),
      .wr_addr_o   (pool_wr_addr),
      .wr_mask_o   (pool_wr_mask),
      .wr_data_o   (pool_wr_data),
      .sum_ready_i (room),
      .sum_valid_o (pool_sum_valid),
      .sum_o       (pool_sum),
      .sum_word_o  (pool_sum_word),
      .sum_addr_o  (pool_sum_addr),
      .sum_mask_o  (pool_sum_mask)
  );

  // ---------------------------------------------------------------- output stage and write-back
  logic raw, fused, raw_q, fused_q, stage_valid, result_valid, room_raw, room_q;
  logic [8:0] stage_word;
  logic [NUM_MODULES-1:0][cq_pkg::ACC_W-1:0] stage_acc, result_sum;
  logic [NUM_MODULES-1:0][7:0] result_y;
  logic [TAG_W-1:0] stage_tag, result_tag;
  logic unused_stage_word;
  assign raw   = program_pkg::descriptor_raw(desc);
  assign fused = program_pkg::descriptor_fused(desc);
  always_ff @(posedge clk_i) begin
    raw_q   <= raw;
    fused_q <= fused;
    room_q  <= room_raw || !raw_q;
  end
  assign room = room_q;
  assign unused_stage_word = &stage_word[8:WORD_W];
  assign stage_valid = conv_acc_valid || pool_sum_valid;
  assign stage_acc   = conv_acc_valid ? conv_acc : pool_sum;
  assign stage_word  = conv_acc_valid ? conv_acc_word : pool_sum_word;
  assign stage_tag   = conv_acc_valid ? {conv_acc_mask, conv_acc_addr} : {pool_sum_mask, pool_sum_addr};

  output_stage #(
      .NUM_MODULES(NUM_MODULES),
      .TAG_W      (TAG_W)
  ) u_output_stage (
      .clk_i          (clk_i),
      .rst_ni         (rst_n[OUTPUT]),
      .param_we_i     (param_we),
      .param_bank_i   (param_bank),
      .param_channel_i(param_channel),
      .param_data_i   (param_data),
      .valid_i        (stage_valid),
      .acc_i          (stage_acc),
      .param_word_i   ({params_bank, stage_word[WORD_W-1:0]}),
      .out_min_i      (program_pkg::descriptor_out_min(desc)),
      .out_max_i      (program_pkg::descriptor_out_max(desc)),
      .tag_i          (stage_tag),
      .valid_o        (result_valid),
      .y_o            (result_y),
      .sum_o          (result_sum),
      .tag_o          (result_tag)
  );

  logic residual_valid;
  logic [NUM_MODULES-1:0][7:0] residual_y;
  logic [A_W-1:0] residual_addr;
  logic [QUADS-1:0] residual_mask;

  residual_stage #(
      .NUM_MODULES(NUM_MODULES)
  ) u_residual_stage (
      .clk_i     (clk_i),
      .rst_ni    (rst_n[OUTPUT]),
      .desc_i    (desc),
      .valid_i   (result_valid && fused_q),
      .y_i       (result_y),
      .addr_i    (result_tag[A_W-1:0]),
      .mask_i    (result_tag[A_W+:QUADS]),
      .rd_valid_o(other_rd_valid),
      .rd_addr_o (other_rd_addr),
      .rd_data_i (other_data[NUM_MODULES-1:0]),
      .valid_o   (residual_valid),
      .y_o       (residual_y),
      .addr_o    (residual_addr),
      .mask_o    (residual_mask)
  );

  assign stage_wr_valid = fused_q ? residual_valid : result_valid && !raw_q;
  assign stage_wr_addr  = fused_q ? residual_addr : result_tag[A_W-1:0];
  assign stage_wr_mask  = 8'(fused_q ? residual_mask : result_tag[A_W+:QUADS]);
  assign stage_wr_data  = 256'(fused_q ? residual_y : result_y);

  // ---------------------------------------------------------------- results
  logic tensor_valid, tensor_half, tensor_last, packed_valid, packed_ready, packed_half, packed_last, packer_empty;
  logic beat_valid, beat_ready, beat_half, beat_last, writer_empty;
  logic [63:0] tensor_data, packed_data, beat_data;
  logic [ROOM_W-1:0] result_room;

  tensor_reader #(
      .ROOM_W(ROOM_W)
  ) u_tensor_reader (
      .clk_i       (clk_i),
      .rst_ni      (rst_n[RESULTS]),
      .start_i     (emit_start),
      .done_o      (emit_done),
      .base_i      (program_pkg::descriptor_out_base(desc)),
      .row_stride_i(program_pkg::descriptor_out_row_stride(desc)),
      .row_quads_i (program_pkg::descriptor_out_row_quads(desc)),
      .height_i    (program_pkg::descriptor_out_h(desc)),
      .rd_valid_o  (emit_rd_valid),
      .rd_addr_o   (emit_rd_addr),
      .rd_data_i   (rd_data),
      .room_i      (result_room),
      .beat_valid_o(tensor_valid),
      .beat_data_o (tensor_data),
      .beat_half_o (tensor_half),
      .beat_last_o (tensor_last)
  );

  result_packer #(
      .NUM_MODULES(NUM_MODULES)
  ) u_result_packer (
      .clk_i         (clk_i),
      .rst_ni        (rst_n[RESULTS]),
      .raw_valid_i   (result_valid && raw_q),
      .raw_i         (result_sum),
      .room_o        (room_raw),
      .flush_i       (raw_flush),
      .tensor_valid_i(tensor_valid),
      .tensor_data_i (tensor_data),
      .tensor_half_i (tensor_half),
      .tensor_last_i (tensor_last),
      .beat_valid_o  (packed_valid),
      .beat_ready_i  (packed_ready),
      .beat_data_o   (packed_data),
      .beat_half_o   (packed_half),
      .beat_last_o   (packed_last),
      .empty_o       (packer_empty)
  );

  skid_buffer #(
      .WIDTH(66)
  ) u_beat_skid (
      .clk_i      (clk_i),
      .rst_ni     (rst_n[RESULTS]),
      .in_valid_i (packed_valid),
      .in_ready_o (packed_ready),
      .in_data_i  ({packed_last, packed_half, packed_data}),
      .out_valid_o(beat_valid),
      .out_ready_i(beat_ready),
      .out_data_o ({beat_last, beat_half, beat_data})
  );

  result_writer #(
      .DEPTH(RESULT_DEPTH)
  ) u_result_writer (
      .clk_i        (clk_i),
      .rst_ni       (rst_ni),
      .clear_i      (!core_rst_n),
      .in_valid_i   (beat_valid),
      .in_ready_o   (beat_ready),
      .in_data_i    (beat_data),
      .in_half_i    (beat_half),
      .in_last_i    (beat_last),
      .room_o       (result_room),
      .m_axis_tdata (m_axis_result_tdata),
      .m_axis_tkeep (m_axis_result_tkeep),
      .m_axis_tvalid(m_axis_result_tvalid),
      .m_axis_tready(m_axis_result_tready),
      .m_axis_tlast (m_axis_result_tlast),
      .empty_o      (writer_empty)
  );
  assign results_empty = packer_empty && !beat_valid && writer_empty;

  // ---------------------------------------------------------------- counters
  // Every event is counted a cycle later, so that no unit's path goes on into the counters' adders.
  logic [3:0] written, reads_q, writes_q;
  logic active_q, layer_end_q, stall_q, weight_q, first_beat_q, results_done_q, image_end_q, count_start_q;
  logic [5:0] layer_q;
  integer i;
  always_comb begin
    written = '0;
    for (i = 0; i < 8; i = i + 1) written = written + {3'b0, wr_mask[i]};
  end
  always_ff @(posedge clk_i) begin
    if (!core_rst_n) begin
      {active_q, layer_end_q, weight_q, first_beat_q, results_done_q, image_end_q, count_start_q} <= '0;
    end else begin
      active_q       <= layer_active;
      layer_end_q    <= layer_end;
      weight_q       <= weight_re;
      first_beat_q   <= weights_first || image_first;
      results_done_q <= results_done;
      image_end_q    <= image_end;
      count_start_q  <= begins;
    end
    layer_q   <= layer;
    stall_q   <= starved || blocked;
    starved_q <= starved;
    reads_q   <= (rd_valid ? rd_count : 4'd0) + (wr_read ? 4'(QUADS) : 4'd0);
    writes_q  <= wr_valid ? written : 4'd0;
  end

  perf_counters #(
      .MAX_LAYERS(MAX_LAYERS)
  ) u_perf_counters (
      .clk_i         (clk_i),
      .rst_ni        (core_rst_n),
      .start_i       (count_start_q),
      .layer_active_i(active_q),
      .layer_end_i   (layer_end_q),
      .layer_i       (layer_q),
      .stall_i       (stall_q),
      .reads_i       (reads_q),
      .writes_i      (writes_q),
      .weight_i      (weight_q),
      .first_beat_i  (first_beat_q),
      .results_done_i(results_done_q),
      .image_end_i   (image_end_q),
      .sel_i         (layer_sel),
      .cycles_o      (layer_cycles),
      .stalls_o      (layer_stalls),
      .reads_o       (layer_reads),
      .writes_o      (layer_writes),
      .weights_o     (layer_weights),
      .total_cycles_o(total_cycles),
      .images_o      (images_done)
  );

endmodule

`default_nettype wire
