// Constants of the datapath.
//
// Purpose: the widths and latencies that do not depend on the program; program_pkg has those of the program format.
// Users name them by scope (cq_pkg::NAME) and do not import the package.
`default_nettype none
`timescale 1ns / 1ps

package cq_pkg;

  localparam int ACC_W        = 32;  // partial sum
  localparam int RD_LATENCY   = 6;   // feature buffer: request to data
  localparam int PORT_LATENCY = 9;   // the same of a read through the write port
  localparam int RESIDUAL     = 19;  // residual stage: result of a convolution to sum
  localparam int STAGES       = 20;  // adder chain: 4 arrays x (1 single PE + 4 pairs)
  localparam int SUM_W        = 15;  // sum of 36 gated activations
  localparam int PRODUCT_W    = 24;  // codebook-weighted sum of 100 activations

  // Signed width that holds the sum of n gated activations of -128..255.
  function automatic int sum_width(input int n);
    sum_width = $clog2(255 * n + 1) + 1;
  endfunction

endpackage

`default_nettype wire
