// Layer monitor: counts what the accelerator's performance counters count, at the ports of its units (simulation only).
//
// Purpose: the counts of each layer's last run, for comparison with the LAYER_* registers, which follow from the same
// events on another way: every event is added up from time zero, and a layer has the difference between two layer ends.
// Latency: 1 cycle from a layer's last cycle to its counts.
// Throughput: one event of each kind a cycle, of any number of words.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module layer_monitor (
    input  wire logic             clk_i,
    input  wire logic             rst_ni,
    input  wire logic             active_i,   // a layer is computed
    input  wire logic             end_i,      // its last cycle
    input  wire logic [5:0]       layer_i,
    input  wire logic             starved_i,  // waits for weights
    input  wire logic             blocked_i,  // waits for a partial-sum buffer
    input  wire logic [3:0]       reads_i,    // words read from the feature buffer
    input  wire logic [7:0]       writes_i,   // mask of those written
    input  wire logic             weight_i,   // a word leaves the weight buffer
    input  wire logic [5:0]       sel_i,
    output wire logic [5:0][31:0] counts_o    // cycles, waits for weights and for buffers, reads, writes, weight words
);

  logic [5:0][31:0] total_q, before_q, now, of_layer;
  logic [5:0][31:0] layers[64];
  logic [3:0] written;

  assign written = 4'(writes_i[0]) + 4'(writes_i[1]) + 4'(writes_i[2]) + 4'(writes_i[3]) + 4'(writes_i[4]) +
      4'(writes_i[5]) + 4'(writes_i[6]) + 4'(writes_i[7]);
  assign now[0]  = total_q[0] + 32'(active_i);
  assign now[1]  = total_q[1] + 32'(active_i && starved_i);
  assign now[2]  = total_q[2] + 32'(active_i && blocked_i && !starved_i);
  assign now[3]  = total_q[3] + (active_i ? 32'(reads_i) : 32'd0);
  assign now[4]  = total_q[4] + (active_i ? 32'(written) : 32'd0);
  assign now[5]  = total_q[5];  // a word that leaves in a layer's last cycle is the next layer's

  genvar i;
  generate
    for (i = 0; i < 6; i = i + 1) begin : gen_count
      assign of_layer[i] = now[i] - before_q[i];
    end
  endgenerate

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      total_q  <= '0;
      before_q <= '0;
    end else begin
      total_q <= {now[5] + 32'(weight_i), now[4:0]};
      if (end_i) begin
        before_q        <= now;
        layers[layer_i] <= of_layer;
      end
    end
  end
  assign counts_o = layers[sel_i];

endmodule

`default_nettype wire
