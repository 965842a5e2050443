// UART bridge: the accelerator's registers and streams on two wires to a host.
//
// Purpose: the host asks, the bridge answers, one request at a time (host/serial_link.py). Requests and replies are
// frames of 64-bit words, little endian: header, 0..64 payload words, trailer.
//   header  7:0 0xC5 in requests, 0xCA in replies; 15:8 sequence number; 19:16 operation; 23 last; 31:24 payload words;
//           requests: 43:32 register, 39:32 TKEEP of a packet's last word; replies: 39:32 result
//   trailer CRC-32 of all words before it; 63:32 are zero
//   0 hello    no effect; result: payload words that a request may hold
//   1 read     payload of the reply: the register's value; result: RRESP
//   2 write    payload: the value; result: BRESP
//   3 program  payload: words of the program and weights stream, with last to the end of a packet; result: words taken
//   4 image    the same for the image stream
//   5 take     payload of the reply: words of the result stream up to the end of a packet, which sets last
// A frame that is damaged gets no answer, and one that is not complete is forgotten after GAP_CYCLES of silence. A
// request with the sequence number of the one before it, which has come again because the reply was lost, gets the
// same reply and has no further effect; a hello makes every number new. Streams are waited for WAIT_CYCLES at a word.
// Latency: a request is carried out from the third cycle after its last byte on.
// Throughput: that of the UART.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module uart_bridge #(
    parameter int CLOCKS_PER_BIT = 20,
    parameter int GAP_CYCLES     = 1 << 19
) (
    input  wire logic        clk_i,
    input  wire logic        rst_ni,

    input  wire logic        rx_i,
    output wire logic        tx_o,

    output wire logic        m_axil_awvalid,
    input  wire logic        m_axil_awready,
    output wire logic [11:0] m_axil_awaddr,
    output wire logic [2:0]  m_axil_awprot,
    output wire logic        m_axil_wvalid,
    input  wire logic        m_axil_wready,
    output wire logic [31:0] m_axil_wdata,
    output wire logic [3:0]  m_axil_wstrb,
    input  wire logic        m_axil_bvalid,
    output wire logic        m_axil_bready,
    input  wire logic [1:0]  m_axil_bresp,
    output wire logic        m_axil_arvalid,
    input  wire logic        m_axil_arready,
    output wire logic [11:0] m_axil_araddr,
    output wire logic [2:0]  m_axil_arprot,
    input  wire logic        m_axil_rvalid,
    output wire logic        m_axil_rready,
    input  wire logic [31:0] m_axil_rdata,
    input  wire logic [1:0]  m_axil_rresp,

    output wire logic [63:0] m_axis_prog_tdata,
    output wire logic [7:0]  m_axis_prog_tkeep,
    output wire logic        m_axis_prog_tvalid,
    input  wire logic        m_axis_prog_tready,
    output wire logic        m_axis_prog_tlast,

    output wire logic [63:0] m_axis_image_tdata,
    output wire logic [7:0]  m_axis_image_tkeep,
    output wire logic        m_axis_image_tvalid,
    input  wire logic        m_axis_image_tready,
    output wire logic        m_axis_image_tlast,

    input  wire logic [63:0] s_axis_result_tdata,
    input  wire logic        s_axis_result_tvalid,
    output wire logic        s_axis_result_tready,
    input  wire logic        s_axis_result_tlast
);

  localparam logic [7:0] REQUEST = 8'hc5, ANSWER = 8'hca;
  localparam logic [3:0] HELLO = 4'd0, READ = 4'd1, WRITE = 4'd2, PROGRAM = 4'd3, IMAGE = 4'd4, TAKE = 4'd5;
  localparam logic [7:0] WORDS = 8'd64;
  localparam int WAIT_CYCLES = 64;
  localparam int GAP_W = $clog2(GAP_CYCLES + 1);

`ifndef YOSYS
  initial if (GAP_CYCLES < 2) $fatal(1, "uart_bridge: GAP_CYCLES %0d must be >= 2", GAP_CYCLES);
`endif

  localparam logic [3:0] S_HEADER = 4'd0, S_PAYLOAD = 4'd1, S_TRAILER = 4'd2;  // of the request
  localparam logic [3:0] S_EXECUTE = 4'd3, S_READ = 4'd4, S_WRITE = 4'd5, S_FETCH = 4'd6, S_SEND = 4'd7, S_TAKE = 4'd8;
  localparam logic [3:0] S_REPLY_HEADER = 4'd9, S_REPLY_PAYLOAD = 4'd10, S_REPLY_TRAILER = 4'd11, S_REPLY_END = 4'd12;

  logic [3:0]  state_q;
  logic [63:0] header_q;  // of the request
  logic [7:0]  index_q;   // payload word of the request or the reply
  logic [7:0]  words_q, result_q;  // of the reply
  logic        last_q;
  logic        known_q;   // a request has been carried out, whose sequence number is
  logic [7:0]  sequence_q;

  logic [7:0]  sequence_number, request_words, request_keep;
  logic [3:0]  operation;
  logic        request_last, unused_bits;
  assign sequence_number = header_q[15:8];
  assign operation       = header_q[19:16];
  assign request_last    = header_q[23];
  assign request_words   = header_q[31:24];
  assign request_keep    = header_q[39:32];
  assign unused_bits     = ^{header_q[63:44], header_q[22:20], header_q[7:0]};

  logic        rx_valid, tx_valid, tx_ready;
  logic [7:0]  rx_byte;
  logic [63:0] tx_word_q;

  uart_rx #(
      .CLOCKS_PER_BIT(CLOCKS_PER_BIT)
  ) u_rx (
      .clk_i       (clk_i),
      .rst_ni      (rst_ni),
      .rx_i        (rx_i),
      .byte_valid_o(rx_valid),
      .byte_o      (rx_byte)
  );

  uart_tx #(
      .CLOCKS_PER_BIT(CLOCKS_PER_BIT)
  ) u_tx (
      .clk_i       (clk_i),
      .rst_ni      (rst_ni),
      .byte_valid_i(tx_valid),
      .byte_ready_o(tx_ready),
      .byte_i      (tx_word_q[7:0]),
      .tx_o        (tx_o)
  );

  // ---------------------------------------------------------------- bytes to words
  logic              receiving, begins, take_byte, word_q_valid;
  logic [63:0]       word_q;
  logic [2:0]        bytes_q;   // of the word that have come
  logic              whole_q;   // word_q is complete
  logic [GAP_W-1:0]  silent_q;  // cycles of silence until a frame is forgotten
  logic              forgotten;

  assign receiving    = state_q <= S_TRAILER;
  assign begins       = state_q == S_HEADER && bytes_q == '0 && !whole_q;
  assign take_byte    = rx_valid && receiving && (!begins || rx_byte == REQUEST);
  assign word_q_valid = whole_q && receiving;
  assign forgotten    = silent_q == '0;

  always_ff @(posedge clk_i) begin
    whole_q <= rst_ni && take_byte && bytes_q == 3'd7;
    if (!rst_ni || !receiving || forgotten) bytes_q <= '0;
    else if (take_byte) bytes_q <= bytes_q + 1'b1;
    if (!rst_ni || !receiving || begins || rx_valid) silent_q <= GAP_W'(GAP_CYCLES);
    else if (!forgotten) silent_q <= silent_q - 1'b1;
  end
  always_ff @(posedge clk_i) if (take_byte) word_q <= {rx_byte, word_q[63:8]};

  // ---------------------------------------------------------------- CRC of the frame that comes or leaves
  logic [31:0] crc_q, crc_next;
  logic [63:0] crc_word, reply_header, stored;
  logic        tx_load, from_start;

  assign from_start = state_q == S_HEADER || state_q == S_REPLY_HEADER;
  assign crc_word   = receiving ? word_q : (from_start ? reply_header : stored);
  crc32_word u_crc (
      .crc_i (from_start ? 32'hffff_ffff : crc_q),
      .data_i(crc_word),
      .crc_o (crc_next)
  );
  always_ff @(posedge clk_i) if (word_q_valid || tx_load) crc_q <= crc_next;

  // ---------------------------------------------------------------- payloads: of the request, then of the reply
  logic        read_end, beat, store;
  logic [63:0] stored_word;

  assign read_end    = state_q == S_READ && m_axil_rvalid;
  assign beat        = s_axis_result_tvalid && s_axis_result_tready;
  assign store       = (word_q_valid && state_q == S_PAYLOAD) || read_end || beat;
  assign stored_word = receiving ? word_q : (read_end ? {32'b0, m_axil_rdata} : s_axis_result_tdata);

  ram_1r1w #(
      .WIDTH(64),
      .DEPTH(128),
      .READ_OLD(0)
  ) u_payload (
      .clk_i  (clk_i),
      .we_i   (store),
      .waddr_i({!receiving, index_q[5:0]}),
      .wdata_i(stored_word),
      .re_i   (1'b1),
      .raddr_i({state_q >= S_TAKE, index_q[5:0]}),
      .rdata_o(stored)
  );

  // ---------------------------------------------------------------- requests
  logic [$clog2(WAIT_CYCLES)-1:0] wait_q;  // cycles until a stream is not waited for any more
  logic send_image, room, late, again;
  logic prog_valid_q, image_valid_q, prog_last_q, image_last_q, ar_q, aw_q, w_q;
  logic [63:0] prog_q, image_q;
  logic [7:0] prog_keep_q, image_keep_q;

  assign send_image = operation == IMAGE;
  assign room       = send_image ? !image_valid_q || m_axis_image_tready : !prog_valid_q || m_axis_prog_tready;
  assign late       = wait_q == '0;
  assign again      = known_q && sequence_number == sequence_q && operation != HELLO;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= S_HEADER;
      index_q <= '0;
      known_q <= 1'b0;
    end else begin
      case (state_q)
        S_HEADER: begin
          index_q <= '0;
          if (whole_q && word_q[31:24] <= WORDS) state_q <= word_q[31:24] == '0 ? S_TRAILER : S_PAYLOAD;
        end
        S_PAYLOAD: if (whole_q) begin
          index_q <= index_q + 1'b1;
          if (index_q + 1'b1 == request_words) state_q <= S_TRAILER;
        end
        S_TRAILER: if (whole_q) state_q <= word_q == {32'b0, ~crc_q} ? S_EXECUTE : S_HEADER;
        S_EXECUTE: begin
          index_q    <= '0;
          known_q    <= 1'b1;
          sequence_q <= sequence_number;
          if (again) state_q <= S_REPLY_HEADER;
          else begin
            words_q  <= '0;
            last_q   <= 1'b0;
            result_q <= operation == HELLO ? WORDS : '0;
            case (operation)
              READ:           state_q <= S_READ;
              WRITE:          state_q <= S_FETCH;
              PROGRAM, IMAGE: state_q <= request_words == '0 ? S_REPLY_HEADER : S_FETCH;
              TAKE:           state_q <= S_TAKE;
              default:        state_q <= S_REPLY_HEADER;
            endcase
          end
        end
        S_READ: if (m_axil_rvalid) begin
          words_q  <= 8'd1;
          result_q <= {6'b0, m_axil_rresp};
          state_q  <= S_REPLY_HEADER;
        end
        S_WRITE: if (m_axil_bvalid) begin
          result_q <= {6'b0, m_axil_bresp};
          state_q  <= S_REPLY_HEADER;
        end
        S_FETCH: state_q <= operation == WRITE ? S_WRITE : S_SEND;
        S_SEND: begin
          if (room) begin
            index_q  <= index_q + 1'b1;
            result_q <= index_q + 1'b1;
          end
          if (late || (room && index_q + 1'b1 == request_words)) begin
            index_q <= '0;
            state_q <= S_REPLY_HEADER;
          end else if (room) state_q <= S_FETCH;
        end
        S_TAKE: begin
          if (beat) begin
            index_q <= index_q + 1'b1;
            words_q <= index_q + 1'b1;
            last_q  <= s_axis_result_tlast;
          end
          if (beat ? s_axis_result_tlast || index_q == WORDS - 1'b1 : late) begin
            index_q <= '0;
            state_q <= S_REPLY_HEADER;
          end
        end
        S_REPLY_HEADER: if (tx_load) state_q <= words_q == '0 ? S_REPLY_TRAILER : S_REPLY_PAYLOAD;
        S_REPLY_PAYLOAD: if (tx_load) begin
          index_q <= index_q + 1'b1;
          if (index_q + 1'b1 == words_q) state_q <= S_REPLY_TRAILER;
        end
        S_REPLY_TRAILER: if (tx_load) state_q <= S_REPLY_END;
        default: if (tx_load) state_q <= S_HEADER;
      endcase
      if (receiving && forgotten) state_q <= S_HEADER;
    end
  end

  always_ff @(posedge clk_i) begin
    if (state_q == S_HEADER && whole_q) header_q <= word_q;
    if (state_q == S_EXECUTE || state_q == S_FETCH || beat) wait_q <= '1;
    else if (!late) wait_q <= wait_q - 1'b1;
  end

  // ---------------------------------------------------------------- words to bytes
  logic [3:0] tx_left_q;  // bytes

  assign tx_load      = state_q >= S_REPLY_HEADER && tx_left_q == '0;
  assign tx_valid     = tx_left_q != '0;
  assign reply_header = {24'b0, result_q, words_q, last_q, 3'b0, operation, sequence_number, ANSWER};

  always_ff @(posedge clk_i) begin
    if (!rst_ni) tx_left_q <= '0;
    else if (tx_load) tx_left_q <= state_q == S_REPLY_END ? '0 : 4'd8;
    else if (tx_valid && tx_ready) tx_left_q <= tx_left_q - 1'b1;
  end
  always_ff @(posedge clk_i) begin
    if (tx_load) tx_word_q <= state_q == S_REPLY_TRAILER ? {32'b0, ~crc_q} : crc_word;
    else if (tx_ready) tx_word_q <= {8'b0, tx_word_q[63:8]};
  end

  // ---------------------------------------------------------------- AXI
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      {ar_q, aw_q, w_q}             <= '0;
      {prog_valid_q, image_valid_q} <= '0;
    end else begin
      if (state_q == S_EXECUTE && !again && operation == READ) ar_q <= 1'b1;
      else if (m_axil_arready) ar_q <= 1'b0;
      if (state_q == S_FETCH && operation == WRITE) {aw_q, w_q} <= '1;
      else begin
        if (m_axil_awready) aw_q <= 1'b0;
        if (m_axil_wready) w_q <= 1'b0;
      end
      if (state_q == S_SEND && room && !send_image) prog_valid_q <= 1'b1;
      else if (m_axis_prog_tready) prog_valid_q <= 1'b0;
      if (state_q == S_SEND && room && send_image) image_valid_q <= 1'b1;
      else if (m_axis_image_tready) image_valid_q <= 1'b0;
    end
  end

  logic ends;  // the packet's last word
  assign ends = request_last && index_q + 1'b1 == request_words;
  always_ff @(posedge clk_i) begin
    if (state_q == S_SEND && room && !send_image)
      {prog_last_q, prog_keep_q, prog_q} <= {ends, ends ? request_keep : 8'hff, stored};
    if (state_q == S_SEND && room && send_image)
      {image_last_q, image_keep_q, image_q} <= {ends, ends ? request_keep : 8'hff, stored};
  end

  assign m_axil_arvalid = ar_q;
  assign m_axil_araddr  = header_q[43:32];
  assign m_axil_arprot  = '0;
  assign m_axil_rready  = state_q == S_READ;
  assign m_axil_awvalid = aw_q;
  assign m_axil_awaddr  = header_q[43:32];
  assign m_axil_awprot  = '0;
  assign m_axil_wvalid  = w_q;
  assign m_axil_wdata   = stored[31:0];
  assign m_axil_wstrb   = '1;
  assign m_axil_bready  = state_q == S_WRITE;

  assign m_axis_prog_tdata    = prog_q;
  assign m_axis_prog_tkeep    = prog_keep_q;
  assign m_axis_prog_tvalid   = prog_valid_q;
  assign m_axis_prog_tlast    = prog_last_q;
  assign m_axis_image_tdata   = image_q;
  assign m_axis_image_tkeep   = image_keep_q;
  assign m_axis_image_tvalid  = image_valid_q;
  assign m_axis_image_tlast   = image_last_q;
  assign s_axis_result_tready = state_q == S_TAKE;

endmodule

`default_nettype wire
