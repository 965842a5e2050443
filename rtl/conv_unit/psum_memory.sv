// Partial-sum memory of a conv module: three lanes (one per output channel) of two tile buffers.
//
// Purpose: adds the products of a pass to the partial sums of a tile while the other buffer is drained. Each lane has
// one simple dual-port RAM per buffer: the accumulating buffer reads and writes, the draining buffer only reads. The
// same pixel must not return within 4 cycles; passes are longer.
// Latency: the products of a position follow its acc_ren_i after 2 cycles, and the sum is written 1 cycle later; drain
// data comes 2 cycles after drain_addr_i, from both buffers.
// Throughput: one position and one drain read a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module psum_memory (
    input  wire logic                               clk_i,
    input  wire logic                               acc_ren_i,
    input  wire logic                               acc_buf_i,
    input  wire logic [program_pkg::TILE_W-1:0]     acc_addr_i,
    input  wire logic                               acc_first_i,  // with acc_ren_i: nothing to add to yet
    input  wire logic [2:0]                         acc_lanes_i,  // lanes in use
    input  wire logic [2:0][cq_pkg::PRODUCT_W-1:0]  product_i,    // 2 cycles after acc_ren_i
    input  wire logic [program_pkg::TILE_W-1:0]     drain_addr_i,
    output wire logic [1:0][2:0][cq_pkg::ACC_W-1:0] drain_o       // [buffer][lane]
);

  logic [2:0] ren_q, buf_q;  // bit 0: RAM output, bit 1: with the product, bit 2: write
  logic [1:0] first_q;
  logic [2:0][program_pkg::TILE_W-1:0] addr_q;

  always_ff @(posedge clk_i) begin
    ren_q   <= {ren_q[1:0], acc_ren_i};
    buf_q   <= {buf_q[1:0], acc_buf_i};
    first_q <= {first_q[0], acc_first_i};
    addr_q  <= {addr_q[1:0], acc_addr_i};
  end

  logic [1:0][program_pkg::TILE_W-1:0] raddr;
  // First sums need no read, so that they may follow the drain of the same buffer.
  assign raddr[0] = (acc_ren_i && !acc_first_i && !acc_buf_i) ? acc_addr_i : drain_addr_i;
  assign raddr[1] = (acc_ren_i && !acc_first_i && acc_buf_i) ? acc_addr_i : drain_addr_i;

  logic [2:0][1:0][cq_pkg::ACC_W-1:0] read_q;  // [lane][buffer]
  genvar l, b;
  generate
    for (l = 0; l < 3; l = l + 1) begin : gen_lane
      logic [cq_pkg::ACC_W-1:0] sum_q;
      for (b = 0; b < 2; b = b + 1) begin : gen_buf
        logic [cq_pkg::ACC_W-1:0] rdata;
        ram_1r1w #(
            .WIDTH(cq_pkg::ACC_W),
            .DEPTH(program_pkg::TILE_PIXELS),
            .READ_OLD(0)
        ) u_ram (
            .clk_i  (clk_i),
            .we_i   (ren_q[2] && acc_lanes_i[l] && buf_q[2] == (b != 0)),
            .waddr_i(addr_q[2]),
            .wdata_i(sum_q),
            .re_i   (1'b1),
            .raddr_i(raddr[b]),
            .rdata_o(rdata)
        );
        always_ff @(posedge clk_i) read_q[l][b] <= rdata;
        assign drain_o[b][l] = read_q[l][b];
      end
      always_ff @(posedge clk_i) begin
        sum_q <= (first_q[1] ? '0 : (buf_q[1] ? read_q[l][1] : read_q[l][0])) +
            cq_pkg::ACC_W'($signed(product_i[l]));
      end
    end
  endgenerate

endmodule

`default_nettype wire
