// Image loader: receives the image stream and writes two quads a beat into the feature buffer.
//
// Purpose: an image is n_rows_i rows of row_quads_i quads, sent without padding between the rows. Row y goes to
// base_i + y * row_stride_i. The image takes exactly ceil(n_rows_i * row_quads_i / 2) beats, with TLAST on the last.
// base_i and n_rows_i are sampled in the first cycle of enable_i, the others are constant meanwhile. The stream is
// stalled (tready low) unless an image is expected, from the rising edge of enable_i to TLAST. enable_i must fall
// before the next image. If enable_i falls before the first beat, no image is loaded: no beat is accepted while
// enable_i is low, and first_beat_o shows in the next cycle whether one was accepted before. An image that has begun is
// loaded to its end, whatever enable_i does. After an error every beat is accepted and dropped until clear_i.
// Latency: 2 cycles from the handshake to wr_valid_o, and to err_valid_o for a wrong beat; 1 cycle from the last
// wr_valid_o to done_o; exactly 1 cycle from the first handshake to first_beat_o.
// Throughput: one beat a cycle; a beat that straddles a row end (odd row_quads_i) takes two.
`default_nettype none
`timescale 1ns / 1ps

module image_loader #(
    parameter int ADDR_W = 17,
    parameter int ROWS_W = 16
) (
    input  wire logic              clk_i,
    input  wire logic              rst_ni,
    input  wire logic              clear_i,

    input  wire logic              enable_i,
    input  wire logic [ADDR_W-1:0] base_i,        // quad address of the first quad
    input  wire logic [ADDR_W-1:0] row_quads_i,   // W * Q, at least 1
    input  wire logic [ADDR_W-1:0] row_stride_i,
    input  wire logic [ROWS_W-1:0] n_rows_i,      // at least 1

    input  wire logic [63:0]       s_axis_tdata,
    input  wire logic [7:0]        s_axis_tkeep,
    input  wire logic              s_axis_tvalid,
    output logic                   s_axis_tready,
    input  wire logic              s_axis_tlast,

    output logic                   wr_valid_o,
    output logic      [ADDR_W-1:0] wr_addr_o,
    output logic      [7:0]        wr_mask_o,     // entries 0 and 1 only
    output logic      [7:0][31:0]  wr_data_o,

    output logic                   first_beat_o,  // pulse: the first beat of the image was accepted
    output logic                   done_o,        // pulse: the whole image is written
    output logic                   err_valid_o,   // pulse
    output logic      [7:0]        err_code_o     // with err_valid_o; holds its value afterwards
);

  localparam logic [1:0] ST_IDLE = 2'd0;
  localparam logic [1:0] ST_LOAD = 2'd1;
  localparam logic [1:0] ST_DONE = 2'd2;  // until enable_i goes low
  localparam logic [1:0] ST_DROP = 2'd3;

  localparam logic [7:0] KEEP_BOTH = 8'hff;
  localparam logic [7:0] KEEP_HALF = 8'h0f;

`ifndef YOSYS
  initial if (ADDR_W < 2 || ROWS_W < 1) $fatal(1, "image_loader: ADDR_W %0d must be >= 2, ROWS_W %0d >= 1", ADDR_W,
      ROWS_W);
`endif

  // ------------------------------------------------------------------------------------------------ input slice
  logic        rst_n;
  logic [1:0]  state_q, state_d;
  logic        starting, cancelled;
  logic        gate;
  logic        open_q;   // beats are accepted: until TLAST, so that none of the next image is
  logic        first_q;  // no beat has been accepted
  logic        first_beat_q;
  logic        skid_ready, handshake;
  logic        beat_valid, beat_ready, beat_last, beat_keep_both, beat_keep_half;
  logic [63:0] beat_data;

  assign rst_n         = rst_ni && !clear_i;
  assign gate          = open_q && (enable_i || !first_q);
  assign s_axis_tready = skid_ready && gate;
  assign handshake     = s_axis_tvalid && s_axis_tready;
  assign starting      = state_q == ST_IDLE && enable_i;
  assign cancelled     = state_q == ST_LOAD && first_q && !enable_i;

  always_ff @(posedge clk_i) begin
    if (!rst_n) begin
      open_q       <= 1'b0;
      first_q      <= 1'b0;
      first_beat_q <= 1'b0;
    end else begin
      if (starting || state_q == ST_DROP) open_q <= 1'b1;
      else if (cancelled || (handshake && s_axis_tlast)) open_q <= 1'b0;
      if (starting) first_q <= 1'b1;
      else if (handshake) first_q <= 1'b0;
      first_beat_q <= handshake && first_q;
    end
  end

  assign first_beat_o = first_beat_q;

  skid_buffer #(
      .WIDTH(67)
  ) u_skid (
      .clk_i      (clk_i),
      .rst_ni     (rst_n),
      .in_valid_i (s_axis_tvalid && gate),
      .in_ready_o (skid_ready),
      .in_data_i  ({s_axis_tlast, s_axis_tkeep == KEEP_BOTH, s_axis_tkeep == KEEP_HALF, s_axis_tdata}),
      .out_valid_o(beat_valid),
      .out_ready_i(beat_ready),
      .out_data_o ({beat_last, beat_keep_both, beat_keep_half, beat_data})
  );

  // ------------------------------------------------------------------------------------------- position in the image
  logic [ADDR_W-1:0] addr_q;      // of the next quad
  logic [ADDR_W-1:0] next_row_q;  // address of the row after this one
  logic [ADDR_W-1:0] left_q;      // quads left in this row
  logic [ROWS_W-1:0] rows_left_q; // this row included
  logic              second_q;    // quad 0 of the beat is written, quad 1 begins this row
  logic              step;        // a write takes place
  // left_q == 1, left_q == 2 and rows_left_q == 1 as registers, and the first two for a new row: all decisions use them
  logic              one_left_q, two_left_q, last_row_q, row_one_q, row_two_q;
  logic              pair;        // both quads of the beat belong to this row
  logic              row_ends, straddles, final_beat;

  assign pair       = !second_q && !one_left_q;
  assign row_ends   = pair ? two_left_q : one_left_q;
  assign straddles  = !second_q && one_left_q && !last_row_q;
  assign final_beat = row_ends && last_row_q;
  assign step       = beat_valid && state_q == ST_LOAD;
  assign beat_ready = (state_q == ST_LOAD && !straddles) || state_q == ST_DROP;

  always_ff @(posedge clk_i) begin
    if (starting) begin
      addr_q      <= base_i;
      next_row_q  <= base_i + row_stride_i;
      left_q      <= row_quads_i;
      rows_left_q <= n_rows_i;
      second_q    <= 1'b0;
      one_left_q  <= row_quads_i == ADDR_W'(1);
      two_left_q  <= row_quads_i == ADDR_W'(2);
      row_one_q   <= row_quads_i == ADDR_W'(1);
      row_two_q   <= row_quads_i == ADDR_W'(2);
      last_row_q  <= n_rows_i == ROWS_W'(1);
    end else if (step) begin
      second_q <= straddles;
      if (row_ends) begin
        addr_q      <= next_row_q;
        next_row_q  <= next_row_q + row_stride_i;
        left_q      <= row_quads_i;
        one_left_q  <= row_one_q;
        two_left_q  <= row_two_q;
        rows_left_q <= rows_left_q - ROWS_W'(1);
        last_row_q  <= rows_left_q == ROWS_W'(2);
      end else begin
        addr_q     <= addr_q + (pair ? ADDR_W'(2) : ADDR_W'(1));
        left_q     <= left_q - (pair ? ADDR_W'(2) : ADDR_W'(1));
        one_left_q <= left_q == (pair ? ADDR_W'(3) : ADDR_W'(2));
        two_left_q <= left_q == (pair ? ADDR_W'(4) : ADDR_W'(3));
      end
    end
  end

  // ------------------------------------------------------------------------------------------- errors and state
  logic       error;
  logic [7:0] error_code;
  logic       keep_ok;

  // an odd image ends in half a beat; the sender may mark it or not
  assign keep_ok = beat_keep_both || (beat_keep_half && final_beat && !pair && !second_q);

  always_comb begin
    error_code = clipq_error_pkg::NONE;
    if (!keep_ok) error_code = clipq_error_pkg::IMAGE_TKEEP;
    else if (beat_last && !final_beat) error_code = clipq_error_pkg::IMAGE_TRUNCATED;
    else if (!beat_last && final_beat) error_code = clipq_error_pkg::IMAGE_OVERLONG;
  end

  assign error = step && beat_ready && error_code != clipq_error_pkg::NONE;

  always_comb begin
    state_d = state_q;
    case (state_q)
      ST_IDLE: if (enable_i) state_d = ST_LOAD;
      ST_LOAD: begin
        if (cancelled) state_d = ST_IDLE;
        else if (error) state_d = ST_DROP;
        else if (step && final_beat) state_d = ST_DONE;
      end
      ST_DONE: if (!enable_i) state_d = ST_IDLE;
      default: state_d = state_q;
    endcase
  end

  always_ff @(posedge clk_i) begin
    if (!rst_n) state_q <= ST_IDLE;
    else state_q <= state_d;
  end

  // ---------------------------------------------------------------------------------------------------- outputs
  logic       wr_valid_q, last_write_q, done_q, err_valid_q;
  logic [7:0] err_code_q;

  always_ff @(posedge clk_i) begin
    if (!rst_n) begin
      wr_valid_q   <= 1'b0;
      last_write_q <= 1'b0;
      done_q       <= 1'b0;
      err_valid_q  <= 1'b0;
    end else begin
      wr_valid_q   <= step && !error;
      last_write_q <= step && !error && final_beat;
      done_q       <= last_write_q;
      err_valid_q  <= error;
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) err_code_q <= clipq_error_pkg::NONE;
    else if (error && !clear_i) err_code_q <= error_code;
  end

  always_ff @(posedge clk_i) begin
    wr_addr_o <= addr_q;
    wr_mask_o <= pair ? 8'h03 : 8'h01;
    wr_data_o <= {192'b0, beat_data[63:32], second_q ? beat_data[63:32] : beat_data[31:0]};
  end

  assign wr_valid_o  = wr_valid_q;
  assign done_o      = done_q;
  assign err_valid_o = err_valid_q;
  assign err_code_o  = err_code_q;

endmodule

`resetall
`default_nettype wire
