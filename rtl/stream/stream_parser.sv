// Stream parser: receives the program and weights stream and checks magic, length, CRC-32, TKEEP and TLAST.
//
// Purpose: a packet is a header beat, as many payload beats as the header says, and a trailer beat with TLAST
// (docs/program-format.md). The payload is forwarded before its CRC is known: its user waits for prog_valid_o, or
// aborts at err_valid_o. After an error every beat is accepted and dropped, without a second error, until clear_i.
// clear_i also drops a packet that has begun, so the next beat is a header. A loaded program survives clear_i.
// Latency: from the handshake on s_axis, 1 cycle to the payload at weights_*; 2 cycles to prog_we_o, prog_start_o and
// err_valid_o (PACKET_CRC: 3); 3 cycles to *_done_o, so prog_done_o may coincide with prog_start_o of the next packet.
// first_beat_o follows exactly 1 cycle after the handshake: it is taken before the skid buffer.
// Throughput: one beat a cycle, packets back to back; only weights_ready_i low stalls the stream.
`default_nettype none
`timescale 1ns / 1ps

module stream_parser #(
    parameter int PROG_WORDS = 1024  // program memory; a longer program is refused
) (
    input  wire logic        clk_i,
    input  wire logic        rst_ni,
    input  wire logic        clear_i,
    input  wire logic        busy_i,           // a run or an error: the program must not change

    input  wire logic [63:0] s_axis_tdata,
    input  wire logic [7:0]  s_axis_tkeep,
    input  wire logic        s_axis_tvalid,
    output logic             s_axis_tready,
    input  wire logic        s_axis_tlast,

    output logic             prog_we_o,
    output logic      [10:0] prog_addr_o,
    output logic      [63:0] prog_data_o,
    output logic             prog_valid_o,     // level: a whole program with the right CRC is in the memory
    output logic             prog_start_o,     // pulse: a program header was accepted
    output logic             prog_done_o,      // pulse: prog_valid_o rises

    output logic             weights_valid_o,
    input  wire logic        weights_ready_i,
    output logic      [63:0] weights_data_o,
    output logic             weights_done_o,   // pulse: whole packet, right CRC
    output logic             first_beat_o,     // pulse: header of a weights packet accepted

    output logic             err_valid_o,      // pulse
    output logic      [7:0]  err_code_o        // with err_valid_o; holds its value afterwards
);

  localparam logic [31:0] CRC_INIT = 32'hffffffff;

  localparam logic [2:0] ST_HEADER  = 3'd0;
  localparam logic [2:0] ST_PROGRAM = 3'd1;
  localparam logic [2:0] ST_WEIGHTS = 3'd2;
  localparam logic [2:0] ST_TRAILER = 3'd3;
  localparam logic [2:0] ST_DROP    = 3'd4;

`ifndef YOSYS
  initial if (PROG_WORDS < 1 || PROG_WORDS > 2048) $fatal(1, "stream_parser: PROG_WORDS %0d must be 1..2048",
      PROG_WORDS);
`endif

  // ------------------------------------------------------------------------------------------------ input slice
  logic        rst_n;
  logic        beat_valid, beat_ready, beat_last, beat_keep_ok;
  logic [63:0] beat_data;
  // What a beat means if it is a header: decoded before the slice, so that no wide comparison follows it.
  logic [31:0] in_length;
  logic        in_program, in_weights, in_empty, in_single, in_fits;
  logic        header_program, header_weights, length_empty, length_single, length_fits;

  assign rst_n      = rst_ni && !clear_i;
  assign in_length  = program_pkg::packet_length(s_axis_tdata);
  assign in_program = program_pkg::packet_magic(s_axis_tdata) == program_pkg::MAGIC_PROGRAM;
  assign in_weights = program_pkg::packet_magic(s_axis_tdata) == program_pkg::MAGIC_WEIGHTS;
  assign in_empty   = in_length == 32'd0;
  assign in_single  = in_length == 32'd1;
  assign in_fits    = !in_empty && in_length <= 32'(PROG_WORDS);

  skid_buffer #(
      .WIDTH(71)
  ) u_skid (
      .clk_i      (clk_i),
      .rst_ni     (rst_n),
      .in_valid_i (s_axis_tvalid),
      .in_ready_o (s_axis_tready),
      .in_data_i  ({in_program, in_weights, in_empty, in_single, in_fits, s_axis_tlast, &s_axis_tkeep, s_axis_tdata}),
      .out_valid_o(beat_valid),
      .out_ready_i(beat_ready),
      .out_data_o ({
        header_program, header_weights, length_empty, length_single, length_fits, beat_last, beat_keep_ok, beat_data
      })
  );

  // Packet boundaries at the pins: first_beat_o has a fixed latency even when the skid buffer is full.
  logic packet_start_q, first_beat_q;

  always_ff @(posedge clk_i) begin
    if (!rst_n) begin
      packet_start_q <= 1'b1;
      first_beat_q   <= 1'b0;
    end else begin
      if (s_axis_tvalid && s_axis_tready) packet_start_q <= s_axis_tlast;
      first_beat_q <= s_axis_tvalid && s_axis_tready && packet_start_q && in_weights;
    end
  end

  assign first_beat_o = first_beat_q;

  // --------------------------------------------------------------------------------------------- packet machine
  logic [2:0]  state_q, state_d;
  logic        is_program_q, is_program_d;  // the packet is a program
  logic [31:0] left_q;                      // payload beats still to come
  logic        left_one_q;                  // left_q == 1, a register because it steers the state machine
  logic [31:0] crc_q, crc_next;
  logic [10:0] addr_q;
  logic        take, payload_ok;
  logic        beat_error;
  logic [7:0]  error_code;
  logic        check_q, crc_wrong_q, check_program_q;  // a trailer was accepted in the cycle before
  logic        crc_error;

  assign take       = beat_valid && beat_ready;
  assign beat_ready = state_q != ST_WEIGHTS || weights_ready_i;
  assign payload_ok = beat_keep_ok && !beat_last;

  assign weights_valid_o = beat_valid && state_q == ST_WEIGHTS && payload_ok;
  assign weights_data_o  = beat_data;

  crc32_word u_crc (
      .crc_i (crc_q),
      .data_i(beat_data),
      .crc_o (crc_next)
  );

  // the error of this beat, the first that applies; the CRC is checked later
  always_comb begin
    error_code = clipq_error_pkg::NONE;
    if (state_q != ST_DROP) begin
      if (!beat_keep_ok) error_code = clipq_error_pkg::PACKET_TKEEP;
      else if (state_q == ST_HEADER) begin
        if (!header_program && !header_weights) error_code = clipq_error_pkg::PACKET_MAGIC;
        else if (header_program && busy_i) error_code = clipq_error_pkg::PROGRAM_BUSY;
        else if (header_program && !length_fits) error_code = clipq_error_pkg::PROGRAM_LENGTH;
        else if (beat_last) error_code = clipq_error_pkg::PACKET_TRUNCATED;
      end else if (state_q == ST_TRAILER) begin
        if (!beat_last) error_code = clipq_error_pkg::PACKET_OVERLONG;
      end else if (beat_last) error_code = clipq_error_pkg::PACKET_TRUNCATED;
    end
  end

  assign beat_error = take && error_code != clipq_error_pkg::NONE;

  // The CRC is compared in one cycle and takes effect in the next one, where it overrides the next packet's header.
  always_ff @(posedge clk_i) begin
    if (!rst_n) check_q <= 1'b0;
    else check_q <= take && state_q == ST_TRAILER && !beat_error;
    crc_wrong_q     <= !length_empty || program_pkg::trailer_crc(beat_data) != ~crc_q;
    check_program_q <= is_program_q;
  end

  assign crc_error = check_q && crc_wrong_q;

  always_comb begin
    state_d      = state_q;
    is_program_d = is_program_q;
    if (beat_error || crc_error) begin
      state_d = ST_DROP;
    end else if (take) begin
      case (state_q)
        ST_HEADER: begin
          is_program_d = header_program;
          if (header_program) state_d = ST_PROGRAM;
          else state_d = length_empty ? ST_TRAILER : ST_WEIGHTS;
        end
        ST_PROGRAM, ST_WEIGHTS: if (left_one_q) state_d = ST_TRAILER;
        ST_TRAILER: state_d = ST_HEADER;
        default: state_d = state_q;
      endcase
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_n) state_q <= ST_HEADER;
    else state_q <= state_d;
  end

  always_ff @(posedge clk_i) begin
    if (take) begin
      is_program_q <= is_program_d;
      if (state_q == ST_HEADER) begin
        left_q     <= program_pkg::packet_length(beat_data);
        left_one_q <= length_single;
        crc_q      <= CRC_INIT;
        addr_q     <= '0;
      end else begin
        left_q     <= left_q - 32'd1;
        left_one_q <= left_q == 32'd2;
        crc_q      <= crc_next;
        addr_q     <= addr_q + 11'd1;
      end
    end
  end

  // ---------------------------------------------------------------------------------------------------- outputs
  logic       prog_we_q, prog_valid_q, prog_start_q, prog_done_q, weights_done_q, err_valid_q;
  logic [7:0] err_code_q;
  logic       program_begins, packet_ends;

  // a program that is too long or empty also invalidates the old one; one that arrives while busy does not
  assign program_begins = take && state_q == ST_HEADER && !crc_error && beat_keep_ok && header_program && !busy_i;
  assign packet_ends    = check_q && !crc_wrong_q;

  always_ff @(posedge clk_i) begin
    if (!rst_n) begin
      prog_we_q      <= 1'b0;
      prog_start_q   <= 1'b0;
      prog_done_q    <= 1'b0;
      weights_done_q <= 1'b0;
      err_valid_q    <= 1'b0;
    end else begin
      prog_we_q      <= take && state_q == ST_PROGRAM && payload_ok;
      prog_start_q   <= program_begins;
      prog_done_q    <= packet_ends && check_program_q;
      weights_done_q <= packet_ends && !check_program_q;
      err_valid_q    <= beat_error || crc_error;
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      prog_valid_q <= 1'b0;
      err_code_q   <= clipq_error_pkg::NONE;
    end else if (!clear_i) begin
      if (program_begins) prog_valid_q <= 1'b0;
      else if (packet_ends && check_program_q) prog_valid_q <= 1'b1;
      if (crc_error) err_code_q <= clipq_error_pkg::PACKET_CRC;
      else if (beat_error) err_code_q <= error_code;
    end
  end

  always_ff @(posedge clk_i) begin
    prog_addr_o <= addr_q;
    prog_data_o <= beat_data;
  end

  assign prog_we_o      = prog_we_q;
  assign prog_valid_o   = prog_valid_q;
  assign prog_start_o   = prog_start_q;
  assign prog_done_o    = prog_done_q;
  assign weights_done_o = weights_done_q;
  assign err_valid_o    = err_valid_q;
  assign err_code_o     = err_code_q;

endmodule

`resetall
`default_nettype wire
