// Pass walker: issues the reads of a pass, one pixel a cycle, and the output position of each slot.
//
// Purpose: takes prepared passes one after the other. Row prefetch: the left-edge columns of the next row are read
// while the current row finishes, so the tag of a position trails its slot by delay_o = 0..4 slots. A row takes
// max(output columns, columns to read) slots. A pass starts when four conditions hold: its weights are in the shadow
// registers (or nearly), a partial-sum buffer is free (first pass of a tile), its tags cannot overtake those of the
// pass before, and the sums to which it adds are written.
// Latency: 2 cycles from a pass to its first read.
// Throughput: one slot a cycle, without a gap between rows and passes.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module pass_walker #(
    localparam int S_W = program_pkg::DIM_W + 2  // signed row and column numbers
) (
    input  wire logic                                clk_i,
    input  wire logic                                rst_ni,
    input  wire logic [program_pkg::RECORD_WORDS-1:0][63:0] desc_i,
    output wire logic                                starved_o,          // waiting for weights
    output wire logic                                blocked_o,          // waiting for a partial-sum buffer
    output wire logic                                busy_o,
    // the next pass
    input  wire logic                                pass_ready_i,
    output wire logic                                pass_consumed_o,    // taken or dropped
    input  wire logic                                pass_empty_i,       // no position: to be dropped
    input  wire logic                                pass_tile_first_i,  // first pass of its tile
    input  wire logic                                pass_tile_last_i,   // last pass of its tile
    input  wire logic                                pass_near_i,        // begins at a last pixel of the pass before
    input  wire logic                                pass_first_row_i,   // first contribution to its first row's pixels
    input  wire logic                                pass_first_rest_i,  // ... of the others
    input  wire logic                                pass_buf_i,         // partial-sum buffer
    input  wire logic [program_pkg::TILE_W-1:0]      pass_pixel_i,       // of the first position
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] pass_addr_i,        // of the first slot
    input  wire logic [S_W-1:0]                      pass_rows_i,        // of positions
    input  wire logic                                pass_row_last_i,    // there is one row
    input  wire logic [S_W-1:0]                      pass_cols_rest_i,   // positions of a row behind its first one
    input  wire logic [S_W-1:0]                      pass_slots_rest_i,  // slots of a row behind its first one
    input  wire logic                                pass_slot_last_i,   // there are none
    input  wire logic [2:0]                          pass_delay_i,       // slots by which tags trail
    input  wire logic [S_W-1:0]                      pass_col_i,         // column that enters the window next
    input  wire logic [4:0]                          pass_col_mask_i,    // of a row's first position
    input  wire logic [7:0]                          pass_row_mask_i,    // of the first row
    input  wire logic [S_W-1:0]                      pass_mask_row_i,    // input row that enters the row mask next
    // weights
    // complete before the first position needs them
    input  wire logic                                weights_ready_i,
    input  wire logic                                weights_full_i,     // complete
    output wire logic                                weights_take_o,
    output wire logic                                weights_drop_o,     // the pass has no position: skip its weights
    // partial-sum buffers
    input  wire logic                                tile_free_i,
    output wire logic                                tile_take_o,
    output wire logic                                tile_end_o,         // last slot of a tile, or last pass dropped
    // feature buffer
    output wire logic                                rd_valid_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] rd_addr_o,
    // output position of this slot
    output wire logic                                position_o,         // there is one
    output wire logic [2:0]                          delay_o,            // slots by which it trails
    output wire logic                                load_o,             // first position of a pass
    output wire logic                                first_o,            // first contribution to the pixel
    output wire logic                                buf_o,
    output wire logic [program_pkg::TILE_W-1:0]      pixel_o,
    output wire logic [4:0]                          col_mask_o,
    output wire logic [7:0]                          row_mask_o
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;

  // ---------------------------------------------------------------- the layer
  logic vertical, pair, stride_h, stride_w;  // strides less one
  logic [A_W-1:0] in_row_stride;
  logic [program_pkg::DIM_W-1:0] in_w, in_h;
  logic [program_pkg::QUADS_W-1:0] in_quads;
  assign vertical      = program_pkg::descriptor_vertical(desc_i);
  assign pair          = program_pkg::descriptor_pair(desc_i);
  assign stride_h      = program_pkg::descriptor_stride_h(desc_i);
  assign stride_w      = program_pkg::descriptor_stride_w(desc_i);
  assign in_row_stride = program_pkg::descriptor_in_row_stride(desc_i);
  assign in_w          = program_pkg::descriptor_in_w(desc_i);
  assign in_h          = program_pkg::descriptor_in_h(desc_i);
  assign in_quads      = program_pkg::descriptor_in_quads(desc_i);

  logic signed [S_W-1:0] in_w_s, in_h_s, in_last_row_q;
  assign in_w_s = {{(S_W - program_pkg::DIM_W) {1'b0}}, in_w};
  assign in_h_s = {{(S_W - program_pkg::DIM_W) {1'b0}}, in_h};

  logic [A_W-1:0] row_step_q, col_step_q;  // from one output row or column to the next
  always_ff @(posedge clk_i) begin
    in_last_row_q <= in_h_s - S_W'(1);
    row_step_q    <= in_row_stride << stride_h;
    col_step_q    <= A_W'(in_quads) << stride_w;
  end

  // ---------------------------------------------------------------- slots of the current pass
  logic run_q;
  logic [A_W-1:0] addr_q, row_start_q;
  logic signed [S_W-1:0] rows_q, col_next_q, col_init_q, mask_row_q;
  logic [S_W-1:0] slots_q, slots_rest_q, cols_q, cols_rest_q;  // slots and positions of the row behind this one
  logic [2:0] delay_q;
  logic [3:0] idle_q, idle_d;
  logic [4:0] col_mask_q, col_mask_init_q;
  logic [7:0] row_mask_q;
  logic [program_pkg::TILE_W-1:0] pixel_q;
  logic first_q, first_rest_q, load_q, slot_buf_q, tile_last_q;

  // Whether a slot is the last of its row, lies in the last row, or has a position is known in the slot before it.
  logic last_slot_q, slot_init_q, last_row_q, position_q;
  logic pass_end, next_end, may_start, can_start, start_q, drop_q;
  assign pass_end = run_q && last_slot_q && last_row_q;
  // the next slot is the last one of a pass that has several
  assign next_end = run_q && (last_slot_q ? slot_init_q && rows_q == S_W'(2) : last_row_q && slots_q == S_W'(1));

  // The tags of this pass may follow those of the pass before: at once, or after the idle cycles until then.
  logic gap_ok;
  localparam logic [3:0] MAX_GAP = 4'(4 + cq_pkg::SUM_DELAY);
  logic [3:0] gap_q;  // idle cycles that must lie between
  assign idle_d = run_q ? 4'd1 : (idle_q == MAX_GAP ? MAX_GAP : idle_q + 4'd1);
  assign gap_ok = next_end ? gap_q == '0 : gap_q <= idle_d;
  logic [3:0] tag_gap;
  assign tag_gap = (pass_delay_i >= delay_q) ? '0 : {1'b0, delay_q - pass_delay_i};
  always_ff @(posedge clk_i) gap_q <= tag_gap + (pass_near_i ? 4'(cq_pkg::SUM_DELAY) : '0);

  // A pass starts, or is dropped, in the cycle after all its conditions are met: the start reaches many registers.
  logic free_next;  // the next cycle may be the first of another pass, or the last of this one
  assign free_next = !run_q || pass_end || next_end;
  assign may_start = pass_ready_i && !start_q && !drop_q && (!pass_tile_first_i || tile_free_i);
  assign can_start = may_start && free_next;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      start_q <= 1'b0;
      drop_q  <= 1'b0;
    end else begin
      start_q <= can_start && !pass_empty_i && weights_ready_i && gap_ok;
      drop_q  <= can_start && pass_empty_i && weights_full_i && !next_end;
    end
  end
  assign pass_consumed_o = start_q || drop_q;

  assign weights_take_o = start_q;
  assign weights_drop_o = drop_q;
  assign tile_take_o    = (start_q || drop_q) && pass_tile_first_i;
  assign starved_o      = can_start && !(pass_empty_i ? weights_full_i : weights_ready_i);
  assign blocked_o      = pass_ready_i && !start_q && !drop_q && pass_tile_first_i && !tile_free_i && free_next;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      run_q   <= 1'b0;
      delay_q <= '0;
      idle_q  <= MAX_GAP;
    end else begin
      if (start_q) begin
        run_q   <= 1'b1;
        delay_q <= pass_delay_i;
      end else if (pass_end) begin
        run_q <= 1'b0;
      end
      idle_q <= idle_d;
    end
  end

  logic col_next_in;
  assign col_next_in = col_next_q >= 0 && col_next_q < in_w_s;

  logic [7:0] row_mask_next;
  always_comb begin
    case ({pair, stride_h})
      2'b00:   row_mask_next = {mask_row_in[0], row_mask_q[7:1]};
      2'b01:   row_mask_next = {mask_row_in, row_mask_q[7:2]};
      2'b10:   row_mask_next = {{4{mask_row_in[0]}}, row_mask_q[7:4]};
      default: row_mask_next = {{4{mask_row_in[1]}}, {4{mask_row_in[0]}}};
    endcase
  end

  logic [1:0] mask_row_in;  // the next two rows that enter the row mask lie in the image
  assign mask_row_in[0] = !vertical || (mask_row_q >= 0 && mask_row_q < in_h_s);
  assign mask_row_in[1] = !vertical || (mask_row_q >= -S_W'(1) && mask_row_q < in_last_row_q);

  always_ff @(posedge clk_i) begin
    if (start_q) begin
      addr_q          <= pass_addr_i;
      row_start_q     <= pass_addr_i + row_step_q;
      slots_q         <= pass_slots_rest_i;
      slots_rest_q    <= pass_slots_rest_i;
      last_slot_q     <= pass_slot_last_i;
      slot_init_q     <= pass_slot_last_i;
      cols_q          <= pass_cols_rest_i;
      cols_rest_q     <= pass_cols_rest_i;
      position_q      <= 1'b1;
      rows_q          <= pass_rows_i;
      last_row_q      <= pass_row_last_i;
      col_next_q      <= pass_col_i;
      col_init_q      <= pass_col_i;
      col_mask_q      <= pass_col_mask_i;
      col_mask_init_q <= pass_col_mask_i;
      row_mask_q      <= pass_row_mask_i;
      mask_row_q      <= pass_mask_row_i;
      pixel_q         <= pass_pixel_i;
      first_q         <= pass_first_row_i;
      first_rest_q    <= pass_first_rest_i;
      load_q          <= 1'b1;
      slot_buf_q      <= pass_buf_i;
      tile_last_q     <= pass_tile_last_i;
    end else begin
      load_q <= 1'b0;
      if (position_q) pixel_q <= pixel_q + 1'b1;
      if (last_slot_q) begin
        addr_q      <= row_start_q;
        row_start_q <= row_start_q + row_step_q;
        slots_q     <= slots_rest_q;
        last_slot_q <= slot_init_q;
        cols_q      <= cols_rest_q;
        position_q  <= 1'b1;
        rows_q      <= rows_q - S_W'(1);
        last_row_q  <= rows_q == S_W'(2);
        col_next_q  <= col_init_q;
        col_mask_q  <= col_mask_init_q;
        row_mask_q  <= row_mask_next;
        mask_row_q  <= mask_row_q + (stride_h ? S_W'(2) : S_W'(1));
        first_q     <= first_rest_q;
      end else begin
        addr_q      <= addr_q + col_step_q;
        slots_q     <= slots_q - S_W'(1);
        last_slot_q <= slots_q == S_W'(1);
        cols_q      <= cols_q - S_W'(1);
        if (cols_q == '0) position_q <= 1'b0;
        col_next_q  <= col_next_q + (stride_w ? S_W'(2) : S_W'(1));
        col_mask_q  <= {col_mask_q[3:0], col_next_in};
      end
    end
  end

  assign rd_valid_o = run_q;
  assign rd_addr_o  = addr_q;
  assign busy_o     = run_q;
  assign tile_end_o = (pass_end && tile_last_q) || (drop_q && pass_tile_last_i);

  assign position_o = run_q && position_q;
  assign delay_o    = delay_q;
  assign load_o     = load_q;
  assign first_o    = first_q;
  assign buf_o      = slot_buf_q;
  assign pixel_o    = pixel_q;
  assign col_mask_o = col_mask_q;
  assign row_mask_o = row_mask_q;

endmodule

`default_nettype wire
