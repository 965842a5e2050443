// Synchronous FIFO: first-word fall-through, with valid/ready on both sides.
//
// Purpose: holds exactly DEPTH words, prefetched ones included. DEPTH <= LUTRAM_MAX uses distributed RAM with an
// asynchronous read. A larger DEPTH uses block RAM with a registered read and an output register: words are prefetched.
// level_o counts the words inside, from the cycle after a word enters to the cycle in which it leaves.
// Latency: 1 cycle with distributed RAM, 3 cycles with block RAM.
// Throughput: one word in and one word out a cycle.
`default_nettype none
`timescale 1ns / 1ps

module sync_fifo #(
    parameter int WIDTH = 64,
    parameter int DEPTH = 16,
    parameter int LUTRAM_MAX = 64,
    localparam int LEVEL_W = $clog2(DEPTH + 1)
) (
    input  wire logic               clk_i,
    input  wire logic               rst_ni,
    input  wire logic               in_valid_i,
    output logic                    in_ready_o,
    input  wire logic [WIDTH-1:0]   in_data_i,
    output logic                    out_valid_o,
    input  wire logic               out_ready_i,
    output logic      [WIDTH-1:0]   out_data_o,
    output logic      [LEVEL_W-1:0] level_o
);

  localparam int ADDR_W = $clog2(DEPTH);
  localparam logic [ADDR_W-1:0] LAST = ADDR_W'(DEPTH - 1);
  localparam logic [LEVEL_W-1:0] FULL = LEVEL_W'(DEPTH);

`ifndef YOSYS
  initial if (WIDTH < 1 || DEPTH < 2) $fatal(1, "sync_fifo: WIDTH %0d must be >= 1 and DEPTH %0d >= 2", WIDTH, DEPTH);
`endif

  logic [ADDR_W-1:0]  wr_ptr_q, rd_ptr_q;
  logic [LEVEL_W-1:0] level_q;
  logic               ready_q;
  logic               push, pop;
  logic               fetch;  // the memory is read: rd_ptr_q advances

  assign push       = in_valid_i && ready_q;
  assign pop        = out_valid_o && out_ready_i;
  assign in_ready_o = ready_q;
  assign level_o    = level_q;

  // ready is a register, so that the sender does not see the level comparison
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      wr_ptr_q <= '0;
      rd_ptr_q <= '0;
      level_q  <= '0;
      ready_q  <= 1'b0;
    end else begin
      if (push) wr_ptr_q <= (wr_ptr_q == LAST) ? '0 : wr_ptr_q + 1'b1;
      if (fetch) rd_ptr_q <= (rd_ptr_q == LAST) ? '0 : rd_ptr_q + 1'b1;
      if (push && !pop) level_q <= level_q + 1'b1;
      else if (pop && !push) level_q <= level_q - 1'b1;
      ready_q <= pop || !(level_q == FULL || (push && level_q == FULL - 1'b1));
    end
  end

  if (DEPTH <= LUTRAM_MAX) begin : g_lutram
    (* ram_style = "distributed" *) logic [WIDTH-1:0] mem[DEPTH];

    always_ff @(posedge clk_i) if (push) mem[wr_ptr_q] <= in_data_i;

    logic valid_q;  // level_q != 0
    always_ff @(posedge clk_i) begin
      if (!rst_ni) valid_q <= 1'b0;
      else if (push && !pop) valid_q <= 1'b1;
      else if (pop && !push) valid_q <= level_q != LEVEL_W'(1);
    end

    assign out_valid_o = valid_q;
    assign out_data_o  = mem[rd_ptr_q];
    assign fetch       = pop;
  end else begin : g_block_ram
    // two elastic stages behind the array: its read register and the output register
    logic [LEVEL_W-1:0] stored_q;  // words in the array that have not been fetched
    logic               read_valid_q, out_valid_q;
    logic [WIDTH-1:0]   read_data, out_data_q;
    logic               out_free;

    assign out_free    = !out_valid_q || out_ready_i;
    assign fetch       = (stored_q != '0) && (!read_valid_q || out_free);
    assign out_valid_o = out_valid_q;
    assign out_data_o  = out_data_q;

    always_ff @(posedge clk_i) begin
      if (!rst_ni) begin
        stored_q     <= '0;
        read_valid_q <= 1'b0;
        out_valid_q  <= 1'b0;
      end else begin
        if (push && !fetch) stored_q <= stored_q + 1'b1;
        else if (fetch && !push) stored_q <= stored_q - 1'b1;
        if (out_free) out_valid_q <= read_valid_q;
        if (fetch) read_valid_q <= 1'b1;
        else if (out_free) read_valid_q <= 1'b0;
      end
    end

    always_ff @(posedge clk_i) if (out_free) out_data_q <= read_data;

    ram_1r1w #(
        .WIDTH(WIDTH),
        .DEPTH(DEPTH),
        .READ_OLD(0)
    ) u_ram (
        .clk_i  (clk_i),
        .we_i   (push),
        .waddr_i(wr_ptr_q),
        .wdata_i(in_data_i),
        .re_i   (fetch),
        .raddr_i(rd_ptr_q),
        .rdata_o(read_data)
    );
  end

endmodule

`resetall
`default_nettype wire
