// UART transmitter: bytes with a start bit, eight data bits, the lowest first, and a stop bit.
//
// Purpose: the partner of uart_rx.
// Latency: the start bit begins in the cycle after the handshake.
// Throughput: one byte in ten bits.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module uart_tx #(
    parameter int CLOCKS_PER_BIT = 20
) (
    input  wire logic       clk_i,
    input  wire logic       rst_ni,
    input  wire logic       byte_valid_i,
    output wire logic       byte_ready_o,
    input  wire logic [7:0] byte_i,
    output wire logic       tx_o
);

  localparam int W = $clog2(CLOCKS_PER_BIT + 1);
  localparam logic [W-1:0] BIT = W'(CLOCKS_PER_BIT - 1);

  logic [W-1:0] timer_q;
  logic [3:0]   bits_q;   // bits to send, the one on the line included; 0: none
  logic [8:0]   frame_q;  // the lowest bit is on the line

  assign byte_ready_o = bits_q == '0;
  assign tx_o         = frame_q[0];

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      bits_q  <= '0;
      timer_q <= '0;
      frame_q <= '1;
    end else if (bits_q == '0) begin
      timer_q <= BIT;
      if (byte_valid_i) begin
        bits_q  <= 4'd10;
        frame_q <= {byte_i, 1'b0};
      end
    end else if (timer_q != '0) begin
      timer_q <= timer_q - 1'b1;
    end else begin
      bits_q  <= bits_q - 1'b1;
      timer_q <= BIT;
      frame_q <= {1'b1, frame_q[8:1]};
    end
  end

endmodule

`default_nettype wire
