// Weight loader: unpacks the weight stream into the parameter memory and the shadow registers of the PEs' indices.
//
// Purpose: reads chunk after chunk from the weight buffer, ahead of the layers that use them. The parameters of the
// output channels go into the free bank of the parameter memory. Then each pass takes BEATS words of 2-bit indices into
// the shadow registers. A pass begins only when the buffer holds all its words, so it takes exactly BEATS cycles and
// ready_o rises LEAD cycles before full_o. Each group is replayed n_tiles times. The indices move along
// the chain one stage a cycle, and the words arrive array by array. Loading of the next pass starts START_DELAY cycles
// after the switch, so that it stays behind that wave.
// Latency: BEATS + START_DELAY + 4 cycles from the switch to full_o. It is also the length of the shortest pass: one
// taken a cycle after ready_o and switched to 9 cycles later.
// Throughput: one word a cycle while a pass is loaded.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module weight_loader #(
    parameter NUM_MODULES = 4,
    parameter LEVEL_W     = 13,
    parameter LEAD        = 10
) (
    input  wire logic                                                          clk_i,
    input  wire logic                                                          rst_ni,
    // weight buffer
    input  wire logic [LEVEL_W-1:0]                                            level_i,
    output wire logic                                                          re_o,
    input  wire logic [63:0]                                                   data_i,
    output wire logic                                                          rewind_o,
    output wire logic                                                          commit_o,
    // parameter memory
    output wire logic                                                          param_we_o,
    output wire logic                                                          param_bank_o,
    output wire logic [8:0]                                                    param_channel_o,
    output wire logic [63:0]                                                   param_data_o,
    // a layer with a chunk has finished: its bank is free
    input  wire logic                                                          layer_done_i,
    // the current layer's parameters are in place
    output wire logic                                                          params_ready_o,
    output wire logic                                                          idle_o,          // between chunks
    // shadow registers of the PE indices, array-major
    output wire logic [program_pkg::ARRAYS*NUM_MODULES*2*program_pkg::PES-1:0] idx_o,
    output wire logic                                                          ready_o,
    output wire logic                                                          full_o,
    // the pass has begun, a cycle after ready_o at the earliest: its switch will follow
    input  wire logic                                                          take_i,
    input  wire logic                                                          drop_i,          // skip this pass
    // the first stage takes the indices in this cycle
    input  wire logic                                                          switch_i
);

  localparam int IDX_W = program_pkg::ARRAYS * NUM_MODULES * 2 * program_pkg::PES;
  localparam int BEATS = (IDX_W + 63) / 64;
  // Array a's first word is word floor(a * IDX_W / 256); it is visible START_DELAY + 7 cycles (and its number) after
  // switch_i, and must not be before the array's last stage has switched 5a + 4 cycles after switch_i.
  localparam int START_DELAY = (NUM_MODULES == 4) ? 4 : 0;

`ifndef YOSYS
  initial if (NUM_MODULES != 4 && NUM_MODULES != 8 && NUM_MODULES != 16) $fatal(1,
      "weight_loader: NUM_MODULES must be 4, 8 or 16, got %0d", NUM_MODULES);
  initial if (LEAD < 1 || LEAD > BEATS) $fatal(1, "weight_loader: LEAD must be 1..%0d, got %0d", BEATS, LEAD);
  initial if (LEVEL_W < 2 || (1 << (LEVEL_W - 1)) < BEATS) $fatal(1,
      "weight_loader: a pass has %0d words, the weight buffer holds %0d", BEATS, 1 << (LEVEL_W - 1));
`endif

  localparam logic [2:0] HEADER = 3'd0, PARSE = 3'd1, PARAMS = 3'd2, WAIT = 3'd3, LOAD = 3'd4, FULL = 3'd5,
      TAKEN = 3'd6, HOLD = 3'd7;

  logic [2:0] state_q;
  logic [11:0] param_left_q;
  logic [15:0] tiles_q, tile_left_q, passes_q, pass_left_q;
  logic [19:0] group_left_q;
  logic [8:0] channel_q;
  logic [1:0] pending_q;  // chunks whose parameters are in place and whose layer has not finished
  logic bank_q;
  logic [2:0] banks_q, param_valid_q;  // beside the words that are read, that arrive, and behind param_data_q
  logic [6:0] beat_q;
  logic [3:0] hold_q;
  logic taken_q, ready_q, params_ready_q;

  // Counters change when a pass is over: what the next one is the last of is known long before its own end.
  logic last_pass_q, last_tile_q, last_group_q, last_beat_q;
  logic enough, pass_over, chunk_end;
  assign enough     = level_i >= LEVEL_W'(BEATS);
  assign pass_over  = (state_q == FULL && drop_i) || (state_q == TAKEN && switch_i);
  assign chunk_end  = pass_over && last_pass_q && last_tile_q && last_group_q;

  // A chunk without parameters also waits for a free bank; no program needs one.
  logic params_end;
  assign params_end = state_q == PARAMS && param_left_q == '0 && pending_q != 2'd2;

  // Reads of parameters and indices, one word after the other; the data follows two cycles later.
  logic reading, header_read, param_read, parse, parse_q;
  assign header_read = state_q == HEADER && level_i != '0;
  assign param_read  = state_q == PARAMS && param_left_q != '0 && level_i != '0 && pending_q != 2'd2;
  assign reading     = state_q == LOAD && !last_beat_q;
  assign re_o        = header_read || param_read || reading;
  assign parse       = state_q == PARSE && parse_q;  // the header arrives

  // The pointers move when the words of a pass have been read, and never together with a read.  The last tile frees its
  // words pass by pass, so a group larger than the buffer streams through it.  Parameters are freed whenever the buffer
  // runs empty, for the same reason.
  logic pass_read_q;
  assign rewind_o = pass_read_q && last_pass_q && !last_tile_q;
  assign commit_o = (pass_read_q && last_tile_q) || parse || params_end ||
      (state_q == PARAMS && level_i == '0);

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q        <= HEADER;
      pass_read_q    <= 1'b0;
      taken_q        <= 1'b0;
      bank_q         <= 1'b0;
      param_valid_q  <= '0;
      pending_q      <= '0;
      ready_q        <= 1'b0;
      parse_q        <= 1'b0;
      params_ready_q <= 1'b0;
    end else begin
      param_valid_q  <= {param_valid_q[1:0], param_read};
      parse_q        <= state_q == PARSE;
      params_ready_q <= pending_q != '0 && !(layer_done_i && pending_q == 2'd1);
      pass_read_q    <= state_q == LOAD && last_beat_q;
      if (params_end && !layer_done_i) pending_q <= pending_q + 2'd1;
      else if (!params_end && layer_done_i) pending_q <= pending_q - 2'd1;
      if (take_i) taken_q <= 1'b1;
      else if (switch_i) taken_q <= 1'b0;
      if (take_i || drop_i) ready_q <= 1'b0;
      else if (state_q == LOAD && beat_q == 7'(BEATS - LEAD)) ready_q <= 1'b1;
      case (state_q)
        HEADER: if (header_read) state_q <= PARSE;
        PARSE: if (parse) state_q <= PARAMS;
        PARAMS: if (params_end) begin
          state_q <= (group_left_q == '0) ? HEADER : WAIT;
          bank_q  <= !bank_q;
        end
        WAIT: if (enough) state_q <= LOAD;
        LOAD: if (last_beat_q) state_q <= taken_q ? TAKEN : FULL;
        FULL: begin
          if (drop_i) state_q <= chunk_end ? HEADER : WAIT;
          else if (taken_q) state_q <= TAKEN;
        end
        TAKEN: if (switch_i) state_q <= chunk_end ? HEADER : HOLD;
        default: if (hold_q == '0) state_q <= WAIT;
      endcase
    end
  end

  always_ff @(posedge clk_i) begin
    banks_q        <= {banks_q[1:0], bank_q};
    hold_q         <= (state_q == HOLD) ? hold_q - 4'd1 : 4'(START_DELAY);
    if (param_we_o) channel_q <= channel_q + 9'd1;
    if (parse) begin
      param_left_q <= program_pkg::chunk_n_params(data_i);
      tiles_q      <= program_pkg::chunk_n_tiles(data_i);
      passes_q     <= program_pkg::chunk_n_passes(data_i);
      group_left_q <= program_pkg::chunk_n_groups(data_i);
      channel_q    <= '0;
      tile_left_q  <= program_pkg::chunk_n_tiles(data_i);
      pass_left_q  <= program_pkg::chunk_n_passes(data_i);
    end
    if (param_read) param_left_q <= param_left_q - 12'd1;
    beat_q       <= (state_q == LOAD) ? beat_q + 7'd1 : '0;
    last_beat_q  <= state_q == LOAD && beat_q == 7'(BEATS - 1);
    last_pass_q  <= pass_left_q == 16'd1;
    last_tile_q  <= tile_left_q == 16'd1;
    last_group_q <= group_left_q == 20'd1;
    if (pass_over) begin
      pass_left_q <= last_pass_q ? passes_q : pass_left_q - 16'd1;
      if (last_pass_q) begin
        tile_left_q <= last_tile_q ? tiles_q : tile_left_q - 16'd1;
        if (last_tile_q) group_left_q <= group_left_q - 20'd1;
      end
    end
  end

  // The parameter memory and the PEs lie far apart: each gets the words from a register of its own.
  logic [63:0] param_data_q, load_data_q;
  (* keep *) always_ff @(posedge clk_i) param_data_q <= data_i;
  (* keep *) always_ff @(posedge clk_i) load_data_q <= data_i;

  assign param_we_o      = param_valid_q[2];
  assign param_bank_o    = banks_q[2];
  assign param_channel_o = channel_q;
  assign param_data_o    = param_data_q;
  assign params_ready_o  = params_ready_q;  // not before the last parameter is written
  assign idle_o          = state_q == HEADER;

  // Shadow registers: a word is in load_data_q three cycles after its read.
  logic [IDX_W-1:0] shadow_q;
  logic [BEATS-1:0] write_q;  // which word it is
  logic [1:0] reading_q;
  logic [1:0][6:0] beats_q;
  always_ff @(posedge clk_i) begin
    reading_q <= {reading_q[0], rst_ni && reading};
    beats_q   <= {beats_q[0], beat_q};
  end
  genvar w;
  generate
    for (w = 0; w < BEATS; w = w + 1) begin : gen_shadow
      localparam int BITS = (w == BEATS - 1) ? IDX_W - 64 * w : 64;
      always_ff @(posedge clk_i) begin
        write_q[w] <= reading_q[1] && beats_q[1] == 7'(w);
        if (write_q[w]) shadow_q[64*w+:BITS] <= load_data_q[BITS-1:0];
      end
    end
  endgenerate
  assign idx_o = shadow_q;

  // All words have been read in the cycle after beat_q == BEATS; LEAD cycles before that a pass may start.
  assign full_o  = state_q == FULL && !taken_q;
  assign ready_o = ready_q;

endmodule

`default_nettype wire
