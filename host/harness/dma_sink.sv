// DMA sink: receives an AXI-Stream into a memory (simulation only).
//
// Purpose: accepts beats with random stalls and writes them, each behind its TLAST, to FILE when dump_i rises.
// stall_i / 256 is the probability of a stall in a cycle; at 256 it never accepts a beat. clear_i empties the memory.
// Packets are counted by TLAST. A beat that changes while it is stalled counts as a protocol error.
// seed_i, taken at reset, decides which cycles those are.
// Latency: 1 cycle from a beat to its place in the memory and to the counts.
// Throughput: one beat a cycle with stall_i = 0.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module dma_sink #(
    parameter FILE  = "result.hex",
    parameter DEPTH = 1048576,
    parameter SEED  = 32'h1
) (
    input  wire logic        clk_i,
    input  wire logic        rst_ni,
    input  wire logic [31:0] seed_i,
    input  wire logic        clear_i,
    input  wire logic        dump_i,
    input  wire logic [8:0]  stall_i,
    output wire logic [31:0] beats_o,
    output wire logic [31:0] packets_o,
    output wire logic [31:0] errors_o,
    input  wire logic [63:0] s_axis_tdata,
    input  wire logic [7:0]  s_axis_tkeep,
    input  wire logic        s_axis_tvalid,
    output wire logic        s_axis_tready,
    input  wire logic        s_axis_tlast
);

  logic [64:0] mem[DEPTH];
  always @(posedge dump_i) $writememh(FILE, mem, 0, (beats_q == 0) ? 0 : beats_q - 1);

  logic [31:0] beats_q, packets_q, errors_q, random_q;
  logic        ready_q, waiting_q;
  logic [72:0] beat, held_q;
  logic [31:0] mix1, mix2;  // xorshift32
  assign mix1 = random_q ^ (random_q << 13);
  assign mix2 = mix1 ^ (mix1 >> 17);
  assign beat = {s_axis_tlast, s_axis_tkeep, s_axis_tdata};

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      beats_q   <= '0;
      packets_q <= '0;
      errors_q  <= '0;
      random_q  <= SEED ^ {seed_i[30:0], 1'b0};
      ready_q   <= 1'b0;
      waiting_q <= 1'b0;
    end else begin
      random_q  <= mix2 ^ (mix2 << 5);
      ready_q   <= {1'b0, random_q[7:0]} >= stall_i;
      waiting_q <= s_axis_tvalid && !s_axis_tready;
      held_q    <= beat;
      if (waiting_q && (!s_axis_tvalid || beat !== held_q)) errors_q <= errors_q + 32'd1;
      else if (s_axis_tvalid && s_axis_tready && s_axis_tkeep != 8'hff && !(s_axis_tkeep == 8'h0f &&
          s_axis_tlast)) errors_q <= errors_q + 32'd1;
      if (clear_i) begin
        beats_q   <= '0;
        packets_q <= '0;
      end else if (s_axis_tvalid && s_axis_tready) begin
        mem[beats_q[$clog2(DEPTH)-1:0]] <= {s_axis_tlast, s_axis_tdata};
        beats_q   <= beats_q + 32'd1;
        if (s_axis_tlast) packets_q <= packets_q + 32'd1;
      end
    end
  end

  assign s_axis_tready = ready_q;
  assign beats_o   = beats_q;
  assign packets_o = packets_q;
  assign errors_o  = errors_q;

endmodule

`default_nettype wire
