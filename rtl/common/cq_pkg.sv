// Constants shared by every block of the accelerator.
//
// Purpose: the widths and limits of docs/architecture.md, in one place.  Referred to by scope (cq_pkg::NAME), never imported.
`default_nettype none
`timescale 1ns / 1ps

package cq_pkg;

  localparam int QUAD_ADDR_W = 17;  // address of a quad (four channels of a pixel) in the feature buffer
  localparam int VSTEP_W     = 14;  // row step between the vertical taps of an unrolled read
  localparam int DIM_W       = 16;  // picture height or width
  localparam int QUADS_W     = 8;   // quads per pixel, 1..128
  localparam int TILE_W      = 8;   // pixel of a tile
  localparam int TILE_PIXELS = 256;
  localparam int ACC_W       = 32;  // partial sum
  localparam int RD_LATENCY  = 3;   // feature buffer: request to data
  localparam int PES         = 25;  // per array
  localparam int ARRAYS      = 4;   // per conv module
  localparam int STAGES      = 20;  // adder chain: 4 arrays x (1 single PE + 4 pairs)
  localparam int SUM_W       = 15;  // sum of 36 gated activations
  localparam int PRODUCT_W   = 24;  // codebook-weighted sum of 100 activations

  // Operations of a layer descriptor.
  localparam logic [3:0] OP_CONV    = 4'd1;
  localparam logic [3:0] OP_MAXPOOL = 4'd2;
  localparam logic [3:0] OP_AVGPOOL = 4'd3;

  // Conv modes: the width of the kernel pieces that an array holds.
  localparam logic [1:0] MODE_1 = 2'd0;  // 8 input channels x 3 output channels
  localparam logic [1:0] MODE_3 = 2'd1;  // 8 input channels x 3 horizontal taps
  localparam logic [1:0] MODE_5 = 2'd2;  // 5 input channels x 5 horizontal taps

  // Signed width that holds the sum of n gated activations of -128..255.
  function automatic int sum_width(input int n);
    sum_width = $clog2(255 * n + 1) + 1;
  endfunction

endpackage

`default_nettype wire
