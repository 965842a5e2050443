// Constants of the datapath.
//
// Purpose: the widths and latencies that do not depend on the program; program_pkg has those of the program format.
// Users name them by scope (cq_pkg::NAME) and do not import the package.
`default_nettype none
`timescale 1ns / 1ps

package cq_pkg;

  localparam int ACC_W        = 32;  // partial sum
  localparam int RD_LATENCY   = 7;   // feature buffer: request to data, through the port multiplexer
  localparam int PORT_LATENCY = 9;   // the same of a read through the write port
  localparam int RESIDUAL     = 21;  // residual stage: result of a convolution to sum
  localparam int SUM_DELAY    = 7;   // partial-sum memory: read of a pixel's sum to its write
  localparam int STAGES       = 20;  // adder chain: 4 arrays x (1 single PE + 4 pairs)
  localparam int SUM_W        = 14;  // sum of 36 gated activations with its offset
  localparam int FACTOR_W     = 10;  // factor of an index plane: -382..383
  localparam int PRODUCT_W    = 24;  // codebook-weighted sum of 100 activations

  // In a signed layer the sum of a segment is too large by a power of two, the offset of its PEs (pe, pe_pair) and of
  // the value with which segment 0 begins.
  localparam int SUM_OFFSET   = 16 * 256;        // segments 1 and 2: four pairs in each of four arrays
  localparam int SUM_OFFSET_0 = 2 * SUM_OFFSET;  // segment 0
  localparam int SUM_BEGIN_0  = SUM_OFFSET_0 - SUM_OFFSET - 4 * 128;

endpackage

`default_nettype wire
