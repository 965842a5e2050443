// Top level for the ULX3S board with an LFE5U-85F.
//
// Purpose: the accelerator on the board's USB serial port, 2 Mbaud, on a clock of 40 MHz from the PLL. Button FIRE 1
// resets it. LEDs: 0 out of reset, 1 bytes come, 2 bytes leave, 3 interrupt. Pins in ulx3s.lpf.
// Latency, throughput: those of clipq_uart.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module ulx3s #(
    parameter int NUM_MODULES    = 4,
    parameter int PLANES         = 3,
    parameter int BANK_WORDS     = 8192,
    parameter int WEIGHT_WORDS   = 2048,
    parameter int CLOCKS_PER_BIT = 20,
    parameter int GAP_CYCLES     = 1 << 19
) (
    input  wire logic       clk_25mhz,
    input  wire logic [1:1] btn,
    input  wire logic       ftdi_txd,    // from the host
    output wire logic       ftdi_rxd,
    output wire logic [3:0] led,
    output wire logic       wifi_gpio0   // high: the ESP32 leaves the FPGA alone
);

  logic clk, locked, irq;
  logic [3:0] reset_q;  // zero after configuration
  always_ff @(posedge clk) reset_q <= {reset_q[2:0], locked && !btn[1]};

  // 25 MHz * 8 / 5; the oscillator runs at 600 MHz
  (* FREQUENCY_PIN_CLKI = "25", FREQUENCY_PIN_CLKOP = "40" *)
  (* ICP_CURRENT = "12", LPF_RESISTOR = "8", MFG_ENABLE_FILTEROPAMP = "1", MFG_GMCREF_SEL = "2" *)
  EHXPLLL #(
      .CLKI_DIV    (5),
      .CLKFB_DIV   (8),
      .CLKOP_DIV   (15),
      .CLKOP_CPHASE(7),
      .CLKOP_FPHASE(0),
      .CLKOP_ENABLE("ENABLED"),
      .FEEDBK_PATH ("CLKOP")
  ) u_pll (
      .CLKI        (clk_25mhz),
      .CLKFB       (clk),
      .CLKOP       (clk),
      .LOCK        (locked),
      .RST         (1'b0),
      .STDBY       (1'b0),
      .PHASESEL0   (1'b0),
      .PHASESEL1   (1'b0),
      .PHASEDIR    (1'b1),
      .PHASESTEP   (1'b1),
      .PHASELOADREG(1'b1),
      .PLLWAKESYNC (1'b0),
      .ENCLKOP     (1'b0)
  );

  clipq_uart #(
      .NUM_MODULES   (NUM_MODULES),
      .PLANES        (PLANES),
      .BANK_WORDS    (BANK_WORDS),
      .WEIGHT_WORDS  (WEIGHT_WORDS),
      .CLOCKS_PER_BIT(CLOCKS_PER_BIT),
      .GAP_CYCLES    (GAP_CYCLES)
  ) u_clipq (
      .clk_i (clk),
      .rst_ni(reset_q[3]),
      .rx_i  (ftdi_txd),
      .tx_o  (ftdi_rxd),
      .irq_o (irq)
  );

  assign led        = {irq, !ftdi_rxd, !ftdi_txd, reset_q[3]};
  assign wifi_gpio0 = 1'b1;

endmodule

`default_nettype wire
