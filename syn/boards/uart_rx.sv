// UART receiver: bytes with a start bit, eight data bits, the lowest first, and a stop bit.
//
// Purpose: takes the middle of each bit. A byte whose stop bit is low is dropped, and so is a start bit that has ended
// at its middle. There is no back-pressure: a byte has to be taken when it is there.
// Latency: byte_valid_o two cycles and half a bit after the stop bit has begun.
// Throughput: one byte in ten bits.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module uart_rx #(
    parameter int CLOCKS_PER_BIT = 20
) (
    input  wire logic       clk_i,
    input  wire logic       rst_ni,
    input  wire logic       rx_i,          // from a pin
    output wire logic       byte_valid_o,  // one cycle
    output wire logic [7:0] byte_o
);

  localparam int W = $clog2(CLOCKS_PER_BIT + 1);
  localparam logic [W-1:0] BIT = W'(CLOCKS_PER_BIT - 1);
  localparam logic [W-1:0] HALF = W'((CLOCKS_PER_BIT - 1) / 2);

`ifndef YOSYS
  initial if (CLOCKS_PER_BIT < 4) $fatal(1, "uart_rx: CLOCKS_PER_BIT %0d must be >= 4", CLOCKS_PER_BIT);
`endif

  logic [1:0]   sync_q;   // the pin, synchronous
  logic [W-1:0] timer_q;  // cycles to the middle of the bit
  logic [3:0]   bits_q;   // bits to come; 0: none
  logic [9:0]   frame_q;  // bits that have come, the stop bit in 9
  logic         done_q;

  always_ff @(posedge clk_i) sync_q <= {sync_q[0], rx_i};

  always_ff @(posedge clk_i) begin
    done_q <= rst_ni && bits_q == 4'd1 && timer_q == '0;
    if (!rst_ni) begin
      bits_q  <= '0;
      timer_q <= '0;
    end else if (bits_q == '0) begin
      if (!sync_q[1]) bits_q <= 4'd10;
      timer_q <= HALF;
    end else if (timer_q != '0) begin
      timer_q <= timer_q - 1'b1;
    end else begin
      bits_q  <= (bits_q == 4'd10 && sync_q[1]) ? '0 : bits_q - 1'b1;
      timer_q <= BIT;
    end
  end

  always_ff @(posedge clk_i) if (timer_q == '0) frame_q <= {sync_q[1], frame_q[9:1]};

  assign byte_valid_o = done_q && frame_q[9];
  assign byte_o       = frame_q[8:1];

  logic unused_start;
  assign unused_start = frame_q[0];

endmodule

`default_nettype wire
