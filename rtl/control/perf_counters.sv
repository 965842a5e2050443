// Performance counters: cycles, stalls and memory traffic of every layer, and the cycles of the image.
//
// Purpose: counts while a layer is active and stores the counts at its end, readable by layer number. The cycles of an
// image are counted from the first beat accepted on an input stream to the last result beat. A layer that has not run
// since reset and START reads as zero.
// Latency: 2 cycles from sel_i to the counts of a layer, less than lie between two accesses of the register port.
// Throughput: one layer end in 3 cycles.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module perf_counters #(
    parameter MAX_LAYERS = program_pkg::MAX_LAYERS
) (
    input  wire logic       clk_i,
    input  wire logic       rst_ni,
    input  wire logic       start_i,        // images are counted from here
    input  wire logic       layer_active_i,
    input  wire logic       layer_end_i,
    input  wire logic [5:0] layer_i,
    input  wire logic       stall_i,
    input  wire logic [3:0] reads_i,        // words of 32 bits in this cycle
    input  wire logic [3:0] writes_i,
    input  wire logic       weight_i,       // a 64-bit word left the weight buffer
    input  wire logic       first_beat_i,
    input  wire logic       results_done_i, // level: the image's results are all sent; its weights packet may still end
    input  wire logic       image_end_i,
    input  wire logic [5:0] sel_i,
    output wire logic [31:0] cycles_o,
    output wire logic [31:0] stalls_o,
    output wire logic [31:0] reads_o,
    output wire logic [31:0] writes_o,
    output wire logic [31:0] weights_o,
    output wire logic [31:0] total_cycles_o,
    output wire logic [31:0] images_o
);

  logic [31:0] cycles_q, stalls_q, reads_q, writes_q, weights_q;
  logic [31:0] running_q, total_q, images_q;
  logic counting_q;

  // Weights are fetched ahead: they are counted to the layer during which they leave the buffer.
  always_ff @(posedge clk_i) begin
    if (!rst_ni || layer_end_i) begin
      cycles_q  <= '0;
      stalls_q  <= '0;
      reads_q   <= '0;
      writes_q  <= '0;
      weights_q <= {31'b0, rst_ni && weight_i};  // fetched ahead in a layer's last cycle
    end else begin
      if (layer_active_i) begin
        cycles_q <= cycles_q + 32'd1;
        reads_q  <= reads_q + {28'b0, reads_i};
        writes_q <= writes_q + {28'b0, writes_i};
        if (stall_i) stalls_q <= stalls_q + 32'd1;
      end
      if (weight_i) weights_q <= weights_q + 32'd1;
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      running_q  <= '0;
      total_q    <= '0;
      images_q   <= '0;
      counting_q <= 1'b0;
    end else begin
      if (image_end_i) begin
        counting_q <= 1'b0;
        total_q    <= running_q;
      end else if (first_beat_i) begin
        counting_q <= 1'b1;
      end
      if (start_i) images_q <= '0;
      else if (image_end_i) images_q <= images_q + 32'd1;
      // Starts at the first beat's own cycle and the one in which it is seen.
      if (!counting_q) running_q <= 32'd2;
      else if (!results_done_i) running_q <= running_q + 32'd1;
    end
  end

  localparam int L_W = (MAX_LAYERS > 1) ? $clog2(MAX_LAYERS) : 1;
  logic [L_W-1:0] layer, sel;
  logic unused_layer;
  assign layer        = L_W'(layer_i);
  assign sel          = L_W'(sel_i);
  assign unused_layer = ^(layer_i >> L_W);

  logic [MAX_LAYERS-1:0] known_q;  // layers that have ended since START
  logic [1:0] sel_known_q;  // beside the RAM's word and the register behind it
  always_ff @(posedge clk_i) begin
    if (!rst_ni || start_i) known_q <= '0;
    else if (layer_end_i) known_q[layer] <= 1'b1;
    sel_known_q <= {sel_known_q[0], {1'b0, sel_i} < 7'(MAX_LAYERS) && known_q[sel]};
  end

  logic [159:0] stored, stored_q;
  ram_1r1w #(
      .WIDTH(160),
      .DEPTH(MAX_LAYERS)
  ) u_ram (
      .clk_i  (clk_i),
      .we_i   (layer_end_i),
      .waddr_i(layer),
      .wdata_i({weights_q, writes_q, reads_q, stalls_q, cycles_q + 32'd1}),
      .re_i   (1'b1),
      .raddr_i(sel),
      .rdata_o(stored)
  );
  always_ff @(posedge clk_i) stored_q <= stored;
  assign {weights_o, writes_o, reads_o, stalls_o, cycles_o} = sel_known_q[1] ? stored_q : '0;
  assign total_cycles_o = total_q;
  assign images_o       = images_q;

endmodule

`default_nettype wire
