// Model of the ECP5's PLL, for simulation and lint: a wire, which is locked after 16 cycles.
//
// Purpose: the clock of a simulated board is the one that the PLL would make.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module EHXPLLL #(
    parameter CLKI_DIV = 1,
    parameter CLKFB_DIV = 1,
    parameter CLKOP_DIV = 8,
    parameter CLKOP_CPHASE = 0,
    parameter CLKOP_FPHASE = 0,
    parameter CLKOP_ENABLE = "ENABLED",
    parameter FEEDBK_PATH = "CLKOP"
) (
    input  wire logic CLKI,
    input  wire logic CLKFB,
    input  wire logic PHASESEL0,
    input  wire logic PHASESEL1,
    input  wire logic PHASEDIR,
    input  wire logic PHASESTEP,
    input  wire logic PHASELOADREG,
    input  wire logic STDBY,
    input  wire logic PLLWAKESYNC,
    input  wire logic RST,
    input  wire logic ENCLKOP,
    output wire logic CLKOP,
    output wire logic LOCK
);

  logic [4:0] count_q = '0;
  always_ff @(posedge CLKI) if (!count_q[4]) count_q <= count_q + 1'b1;

  assign CLKOP = CLKI;
  assign LOCK  = count_q[4];

endmodule

`default_nettype wire
