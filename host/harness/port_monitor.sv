// Port monitor: measures how packets flow through an AXI-Stream port (simulation only).
//
// Purpose: coverage of stalls is based on the events at a port, not on the stimulus. Counts since clear_i: beats; gaps,
// the cycles inside a packet without tvalid; held, the cycles in which a beat waits for tready; and the longest run of
// each, up to 65,535 cycles. monitor_o = {longest held[127:112], longest gap[111:96], held[95:64], gaps[63:32],
// beats[31:0]}.
// Latency: 1 cycle.
// Throughput: one beat a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module port_monitor (
    input  wire logic         clk_i,
    input  wire logic         rst_ni,
    input  wire logic         clear_i,
    input  wire logic         valid_i,
    input  wire logic         ready_i,
    input  wire logic         last_i,
    output wire logic [127:0] monitor_o
);

  logic [31:0] beats_q, gaps_q, held_q;
  logic [15:0] gap_run_q, held_run_q, longest_gap_q, longest_held_q;
  logic inside_q, beat, gap, held;

  assign beat = valid_i && ready_i;
  assign held = valid_i && !ready_i;
  assign gap  = inside_q && !valid_i;

  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      beats_q        <= '0;
      gaps_q         <= '0;
      held_q         <= '0;
      gap_run_q      <= '0;
      held_run_q     <= '0;
      longest_gap_q  <= '0;
      longest_held_q <= '0;
      inside_q       <= 1'b0;
    end else begin
      if (beat) beats_q <= beats_q + 32'd1;
      if (gap) gaps_q <= gaps_q + 32'd1;
      if (held) held_q <= held_q + 32'd1;
      gap_run_q  <= !gap ? '0 : gap_run_q == '1 ? gap_run_q : gap_run_q + 16'd1;
      held_run_q <= !held ? '0 : held_run_q == '1 ? held_run_q : held_run_q + 16'd1;
      if (gap_run_q > longest_gap_q) longest_gap_q <= gap_run_q;
      if (held_run_q > longest_held_q) longest_held_q <= held_run_q;
      if (beat) inside_q <= !last_i;
    end
  end

  assign monitor_o = {longest_held_q, longest_gap_q, held_q, gaps_q, beats_q};

endmodule

`default_nettype wire
