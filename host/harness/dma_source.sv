// DMA source: sends a memory region over AXI-Stream (simulation only).
//
// Purpose: models the sending side of a host, with settable latency, bandwidth and random pauses, and without Python
// code per beat. The memory is read from FILE in the simulation's folder when load_i rises. A pulse on go_i sends
// beats_i words from base_i, with TLAST on the last. The first beat comes after latency_i cycles. There are
// rate_i / 256 beats a cycle on average, and a pause before a beat with probability stall_i / 256. keep_i is the TKEEP
// of the beat that keep_at_i others follow (0: of the last), so that tests can send a wrong one.
// seed_i, taken at reset, decides which cycles those are.
// Latency: latency_i + 2 cycles from go_i to the first beat, without pauses.
// Throughput: one beat a cycle with rate_i = 256 and stall_i = 0.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module dma_source #(
    parameter FILE  = "stream.hex",
    parameter DEPTH = 1048576,
    parameter SEED  = 32'h1
) (
    input  wire logic        clk_i,
    input  wire logic        rst_ni,
    input  wire logic [31:0] seed_i,
    input  wire logic        load_i,
    input  wire logic        go_i,
    input  wire logic [31:0] base_i,
    input  wire logic [31:0] beats_i,
    input  wire logic [15:0] latency_i,
    input  wire logic [8:0]  rate_i,
    input  wire logic [7:0]  stall_i,
    input  wire logic [7:0]  keep_i,
    input  wire logic [31:0] keep_at_i,
    output wire logic        busy_o,
    output wire logic [63:0] m_axis_tdata,
    output wire logic [7:0]  m_axis_tkeep,
    output wire logic        m_axis_tvalid,
    input  wire logic        m_axis_tready,
    output wire logic        m_axis_tlast
);

  logic [63:0] mem[DEPTH];
  always @(posedge load_i) $readmemh(FILE, mem);

  logic [31:0] addr_q, left_q, random_q;
  logic [15:0] wait_q;
  logic [9:0]  credit_q;
  logic        valid_q, last_q, keep_q, idle, fetch;
  logic [63:0] data_q;

  logic [31:0] mix1, mix2;  // xorshift32
  assign mix1 = random_q ^ (random_q << 13);
  assign mix2 = mix1 ^ (mix1 >> 17);
  assign idle  = !valid_q || m_axis_tready;
  assign fetch = left_q != 0 && wait_q == 0 && idle && credit_q >= 10'd256 && random_q[7:0] >= stall_i;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      left_q   <= '0;
      valid_q  <= 1'b0;
      credit_q <= 10'd256;
      wait_q   <= '0;
      random_q <= SEED ^ {seed_i[30:0], 1'b0};
    end else begin
      random_q <= mix2 ^ (mix2 << 5);
      if (fetch) credit_q <= credit_q - 10'd256 + {1'b0, rate_i};
      else if (credit_q < 10'd256) credit_q <= credit_q + {1'b0, rate_i};
      if (go_i) begin
        addr_q <= base_i;
        left_q <= beats_i;
        wait_q <= latency_i;
      end else begin
        if (wait_q != 0) wait_q <= wait_q - 16'd1;
        if (fetch) begin
          addr_q <= addr_q + 32'd1;
          left_q <= left_q - 32'd1;
        end
      end
      if (fetch) begin
        valid_q <= 1'b1;
        last_q  <= left_q == 32'd1;
        keep_q  <= left_q == keep_at_i + 32'd1;
        data_q  <= mem[addr_q[$clog2(DEPTH)-1:0]];
      end else if (m_axis_tready) begin
        valid_q <= 1'b0;
      end
    end
  end

  assign busy_o        = left_q != 0 || valid_q;
  assign m_axis_tdata  = data_q;
  assign m_axis_tkeep  = keep_q ? keep_i : 8'hff;
  assign m_axis_tvalid = valid_q;
  assign m_axis_tlast  = last_q;

endmodule

`default_nettype wire
