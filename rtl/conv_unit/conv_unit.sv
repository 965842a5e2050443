// Conv unit: NUM_MODULES conv modules side by side, their common window generator, and the sequencers.
//
// Purpose: computes a whole conv layer. It reads pixels from the feature buffer and takes the weight indices of the
// passes from the weight loader's shadow registers. Finished partial sums, NUM_MODULES a cycle, go to the output stage
// with their destination.
// Latency: 4 cycles from a drain read to its sums; model/performance/cycle_model.py has those from slots to the drain.
// Throughput: one output position of NUM_MODULES channels a cycle, of 3 * NUM_MODULES channels for kernels 1 wide.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module conv_unit #(
    parameter NUM_MODULES = 4,
    parameter PLANES      = 3   // 2: for codebooks with w3 = w1 + w2
) (
    input  wire logic                                                          clk_i,
    input  wire logic                                                          rst_ni,
    input  wire logic                                                          start_i,
    output wire logic                                                          busy_o,
    output wire logic                                                          starved_o,
    output wire logic                                                          blocked_o,
    // constant while busy_o, from the cycle before start_i
    input  wire logic [program_pkg::RECORD_WORDS-1:0][63:0]                    desc_i,
    // weights
    input  wire logic [program_pkg::ARRAYS*NUM_MODULES*2*program_pkg::PES-1:0] idx_i,
    input  wire logic                                                          weights_ready_i,
    input  wire logic                                                          weights_full_i,
    output wire logic                                                          weights_take_o,
    output wire logic                                                          weights_drop_o,
    output wire logic                                                          weights_switch_o,
    // feature buffer
    output wire logic                                                          rd_valid_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0]                           rd_addr_o,
    input  wire logic [7:0][31:0]                                              rd_data_i,
    // finished sums
    input  wire logic                                                          room_i,
    output wire logic                                                          acc_valid_o,
    output wire logic [NUM_MODULES-1:0][cq_pkg::ACC_W-1:0]                     acc_o,
    output wire logic [8:0]                                                    acc_word_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0]                           acc_addr_o,
    output wire logic [NUM_MODULES/4-1:0]                                      acc_mask_o
);

`ifndef YOSYS
  initial if (NUM_MODULES != 4 && NUM_MODULES != 8 && NUM_MODULES != 16) $fatal(1,
      "conv_unit: NUM_MODULES must be 4, 8 or 16, got %0d", NUM_MODULES);
`endif

  // ---------------------------------------------------------------- the layer
  logic [program_pkg::RECORD_WORDS-1:0][63:0] desc_q;  // near its users
  always_ff @(posedge clk_i) desc_q <= desc_i;
  logic in_signed;
  logic [1:0] mode;
  assign in_signed = program_pkg::descriptor_in_signed(desc_q);
  assign mode      = program_pkg::descriptor_mode(desc_q);

  // Factors of the index planes (weight_decoder); they are stable long before the first sums.
  logic [3:1][7:0] codebook;
  logic [3:1][cq_pkg::FACTOR_W-1:0] weight;
  assign codebook = {
    program_pkg::descriptor_codebook_3(desc_q),
    program_pkg::descriptor_codebook_2(desc_q),
    program_pkg::descriptor_codebook_1(desc_q)
  };
  assign weight[1] = cq_pkg::FACTOR_W'($signed(codebook[1]));
  assign weight[2] = cq_pkg::FACTOR_W'($signed(codebook[2]));
  assign weight[3] = cq_pkg::FACTOR_W'($signed(codebook[3]));
  logic [PLANES-1:0][cq_pkg::FACTOR_W-1:0] factor_q;
  always_ff @(posedge clk_i) begin
    factor_q <= (PLANES * cq_pkg::FACTOR_W)'({weight[3] - weight[1] - weight[2], weight[2], weight[1]});
  end

  // ---------------------------------------------------------------- positions
  logic seq_busy, tag_valid, tag_load, tag_first, tag_buf, tag_tile_done, tile_free, tile_take;
  logic [program_pkg::TILE_W-1:0] tag_pixel;
  logic [4:0] tag_col_mask;
  logic [7:0] tag_row_mask;

  pass_sequencer u_pass_sequencer (
      .clk_i            (clk_i),
      .rst_ni           (rst_ni),
      .start_i          (start_i),
      .busy_o           (seq_busy),
      .starved_o        (starved_o),
      .blocked_o        (blocked_o),
      .desc_i           (desc_q),
      .weights_ready_i  (weights_ready_i),
      .weights_full_i   (weights_full_i),
      .weights_take_o   (weights_take_o),
      .weights_drop_o   (weights_drop_o),
      .tile_free_i      (tile_free),
      .tile_take_o      (tile_take),
      .rd_valid_o       (rd_valid_o),
      .rd_addr_o        (rd_addr_o),
      .tag_valid_o      (tag_valid),
      .tag_load_o       (tag_load),
      .tag_first_o      (tag_first),
      .tag_buf_o        (tag_buf),
      .tag_pixel_o      (tag_pixel),
      .tag_col_mask_o   (tag_col_mask),
      .tag_row_mask_o   (tag_row_mask),
      .tag_tile_done_o  (tag_tile_done)
  );

  // A tag leaves the sequencer one cycle after its last slot's request: RD_LATENCY - 1 more to meet the data.
  localparam int TAG_TO_DATA = cq_pkg::RD_LATENCY - 1;
  localparam int DATA_TO_READ = 2 + cq_pkg::STAGES;  // window, chain: partial sum read
  localparam int READ_TO_DONE = 8;                   // written and visible

  // Valid bits have a reset, the words beside them need none.
  logic [TAG_TO_DATA+DATA_TO_READ-1:0] valid_q;
  logic [TAG_TO_DATA+DATA_TO_READ+READ_TO_DONE-1:0] done_q;
  logic [TAG_TO_DATA-1:0] load_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      valid_q <= '0;
      done_q  <= '0;
      load_q  <= '0;
    end else begin
      valid_q <= {valid_q[TAG_TO_DATA+DATA_TO_READ-2:0], tag_valid};
      done_q  <= {done_q[TAG_TO_DATA+DATA_TO_READ+READ_TO_DONE-2:0], tag_tile_done};
      load_q  <= {load_q[TAG_TO_DATA-2:0], tag_valid && tag_load};
    end
  end

  logic [4:0] col_mask;
  logic [7:0] row_mask;
  delay_line #(
      .WIDTH(13),
      .DEPTH(TAG_TO_DATA)
  ) u_mask_delay (
      .clk_i(clk_i),
      .d_i  ({tag_col_mask, tag_row_mask}),
      .d_o  ({col_mask, row_mask})
  );

  logic acc_ren, acc_first, acc_buf;
  logic [program_pkg::TILE_W-1:0] acc_pixel;
  assign acc_ren = valid_q[TAG_TO_DATA+DATA_TO_READ-1];
  delay_line #(
      .WIDTH(2 + program_pkg::TILE_W),
      .DEPTH(TAG_TO_DATA + DATA_TO_READ)
  ) u_psum_delay (
      .clk_i(clk_i),
      .d_i  ({tag_first, tag_buf, tag_pixel}),
      .d_o  ({acc_first, acc_buf, acc_pixel})
  );

  // ---------------------------------------------------------------- activations
  logic [cq_pkg::STAGES-1:0] load;
  logic [program_pkg::ARRAYS-1:0][7:0] single;
  logic [program_pkg::ARRAYS-1:0][11:0][8:0] x, y, xy;

  window_generator u_window_generator (
      .clk_i     (clk_i),
      .mode_i    (mode),
      .signed_i  (in_signed),
      .data_i    (rd_data_i),
      .col_mask_i(col_mask),
      .row_mask_i(row_mask),
      .load_i    (load_q[TAG_TO_DATA-1]),
      .load_o    (load),
      .single_o  (single),
      .x_o       (x),
      .y_o       (y),
      .xy_o      (xy)
  );
  assign weights_switch_o = load[0];

  // ---------------------------------------------------------------- modules
  logic drain_valid, drain_buf, drain_busy, tile_freed;
  logic [1:0] drain_lane;
  logic [program_pkg::TILE_W-1:0] drain_pixel;
  logic [8:0] drain_word;
  logic [program_pkg::QUAD_ADDR_W-1:0] drain_addr;
  logic [NUM_MODULES/4-1:0] drain_mask;

  logic [program_pkg::TILE_W-1:0] drain_pixel_q;
  logic drain_buf_q;
  logic [2:0][1:0] drain_lane_q;

  always_ff @(posedge clk_i) begin
    drain_pixel_q <= drain_pixel;
    drain_buf_q   <= drain_buf;
    drain_lane_q  <= {drain_lane_q[1:0], drain_lane};
  end

  logic [NUM_MODULES-1:0][program_pkg::ARRAYS-1:0][2*program_pkg::PES-1:0] idx;
  logic [NUM_MODULES-1:0][2:0][cq_pkg::ACC_W-1:0] partial, sum, drain;  // [module][lane]
  psum_memory #(
      .NUM_MODULES(NUM_MODULES)
  ) u_psum_memory (
      .clk_i       (clk_i),
      .acc_ren_i   (acc_ren),
      .acc_buf_i   (acc_buf),
      .acc_addr_i  (acc_pixel),
      .acc_first_i (acc_first),
      .three_i     (mode == program_pkg::MODE_1),
      .partial_o   (partial),
      .sum_i       (sum),
      .drain_buf_i (drain_buf_q),
      .drain_addr_i(drain_pixel_q),
      .drain_o     (drain)
  );
  genvar m, a;
  generate
    for (m = 0; m < NUM_MODULES; m = m + 1) begin : gen_module
      logic [cq_pkg::ACC_W-1:0] acc_q;
      // The module's own copies, placed near to what they select. They change between layers only.
      logic [1:0] mode_q;
      logic signed_q;
      (* keep *) always_ff @(posedge clk_i) begin
        mode_q   <= mode;
        signed_q <= in_signed;
      end
      for (a = 0; a < program_pkg::ARRAYS; a = a + 1) begin : gen_idx
        assign idx[m][a] = idx_i[2*program_pkg::PES*(NUM_MODULES*a+m)+:2*program_pkg::PES];
      end
      conv_module #(
          .PLANES(PLANES)
      ) u_module (
          .clk_i    (clk_i),
          .mode_i   (mode_q),
          .signed_i (signed_q),
          .factor_i (factor_q),
          .load_i   (load),
          .idx_i    (idx[m]),
          .single_i (single),
          .x_i      (x),
          .y_i      (y),
          .xy_i     (xy),
          .partial_i(partial[m]),
          .sum_o    (sum[m])
      );
      always_ff @(posedge clk_i) begin
        case (drain_lane_q[2])
          2'd0:    acc_q <= drain[m][0];
          2'd1:    acc_q <= drain[m][1];
          default: acc_q <= drain[m][2];
        endcase
      end
      assign acc_o[m] = acc_q;
    end
  endgenerate

  // ---------------------------------------------------------------- tiles
  logic [1:0] tiles_q;  // partial-sum buffers in use
  always_ff @(posedge clk_i) begin
    if (!rst_ni) tiles_q <= '0;
    else if (tile_take && !tile_freed) tiles_q <= tiles_q + 2'd1;
    else if (tile_freed && !tile_take) tiles_q <= tiles_q - 2'd1;
  end
  logic tile_free_q;  // tiles_q != 2
  always_ff @(posedge clk_i) begin
    if (!rst_ni || tile_freed) tile_free_q <= 1'b1;
    else if (tile_take) tile_free_q <= tiles_q != 2'd1;
  end
  assign tile_free = tile_free_q;

  // room_i stays high for 8-bit results, and with a single kernel-row step no pass of a tile begins beyond its first
  // pixel. A fused sum halves the pace of the drain.
  logic raw, one_row, early;
  assign raw     = program_pkg::descriptor_raw(desc_q);
  assign one_row = program_pkg::descriptor_vertical(desc_q) || program_pkg::descriptor_kr_count(desc_q) == 4'd1;
  assign early   = mode != program_pkg::MODE_1 && !raw && one_row && !program_pkg::descriptor_fused(desc_q);

  drain_sequencer #(
      .NUM_MODULES(NUM_MODULES)
  ) u_drain_sequencer (
      .clk_i           (clk_i),
      .rst_ni          (rst_ni),
      .start_i         (start_i),
      .tile_done_i     (done_q[TAG_TO_DATA+DATA_TO_READ+READ_TO_DONE-1]),
      .room_i          (room_i),
      .early_i         (early),
      .tile_freed_o    (tile_freed),
      .busy_o          (drain_busy),
      .desc_i          (desc_q),
      .valid_o         (drain_valid),
      .buf_o           (drain_buf),
      .lane_o          (drain_lane),
      .pixel_o         (drain_pixel),
      .word_o          (drain_word),
      .addr_o          (drain_addr),
      .mask_o          (drain_mask)
  );

  // Drain read: address register, RAM, output register, lane multiplexer.
  localparam int DRAIN_LATENCY = 4;
  logic [DRAIN_LATENCY-1:0] acc_valid_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) acc_valid_q <= '0;
    else acc_valid_q <= {acc_valid_q[DRAIN_LATENCY-2:0], drain_valid};
  end
  assign acc_valid_o = acc_valid_q[DRAIN_LATENCY-1];
  delay_line #(
      .WIDTH(9 + program_pkg::QUAD_ADDR_W + NUM_MODULES / 4),
      .DEPTH(DRAIN_LATENCY)
  ) u_drain_delay (
      .clk_i(clk_i),
      .d_i  ({drain_word, drain_addr, drain_mask}),
      .d_o  ({acc_word_o, acc_addr_o, acc_mask_o})
  );

  logic busy_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) busy_q <= 1'b0;
    else busy_q <= start_i || seq_busy || tiles_q != '0 || drain_busy || acc_valid_q != '0;
  end
  assign busy_o = busy_q;

endmodule

`default_nettype wire
