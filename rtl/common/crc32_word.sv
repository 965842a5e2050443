// CRC-32 step: the next CRC (zlib, IEEE 802.3, reflected polynomial 0xEDB88320) after a 64-bit little-endian word.
//
// Purpose: the CRC of a message starts with 32'hffffffff, takes one step a word (byte 0 is bits 7:0) and ends with an
// inversion. CRC is linear over GF(2), so every output bit is the parity of a fixed subset of the 64 bits data ^ crc.
// This takes three levels of LUTs instead of the 64 of the bit-serial loop.
// Latency: combinational.
// Throughput: one word a cycle.
`default_nettype none
`timescale 1ns / 1ps

module crc32_word (
    input  wire logic [31:0] crc_i,
    input  wire logic [63:0] data_i,
    output logic      [31:0] crc_o
);

  localparam logic [31:0] POLY = 32'hedb88320;

  // Bits 64*j +: 64 select the inputs of output bit j.  Input bit i contributes the polynomial shifted 63 - i times.
  function automatic logic [2047:0] parity_masks(input logic [31:0] poly);
    logic [31:0] column;
    column = poly;
    parity_masks = '0;
    for (int i = 63; i >= 0; i = i - 1) begin
      for (int j = 0; j < 32; j = j + 1) parity_masks[64*j+i] = column[j];
      column = {1'b0, column[31:1]} ^ (column[0] ? poly : 32'b0);
    end
  endfunction

  localparam logic [2047:0] MASKS = parity_masks(POLY);

  logic [63:0] state;
  assign state = data_i ^ {32'b0, crc_i};

  genvar j;
  for (j = 0; j < 32; j = j + 1) begin : g_bit
    assign crc_o[j] = ^(state & MASKS[64*j+:64]);
  end

endmodule

`resetall
`default_nettype wire
