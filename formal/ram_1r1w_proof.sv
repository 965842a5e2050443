// Memory: a read returns the last word written, for an address the solver chooses; it holds while re_i is low; a read
// in the cycle of a write to the same address returns the old word (READ_OLD = 1).
`default_nettype none

module ram_1r1w_proof #(
    parameter WIDTH    = 2,
    parameter DEPTH    = 5,
    parameter READ_OLD = 1,
    localparam ADDR_W  = $clog2(DEPTH)
) (
    input wire logic              clk_i,
    input wire logic              we_i,
    input wire logic [ADDR_W-1:0] waddr_i,
    input wire logic [WIDTH-1:0]  wdata_i,
    input wire logic              re_i,
    input wire logic [ADDR_W-1:0] raddr_i
);

  logic [WIDTH-1:0] rdata;
  ram_1r1w #(.WIDTH(WIDTH), .DEPTH(DEPTH), .READ_OLD(READ_OLD)) u_dut (
      .clk_i(clk_i), .we_i(we_i), .waddr_i(waddr_i), .wdata_i(wdata_i), .re_i(re_i), .raddr_i(raddr_i), .rdata_o(rdata)
  );

  (* anyconst *) logic [ADDR_W-1:0] addr;
  logic written_q = 1'b0, known_q = 1'b0, past_q = 1'b0, read_q, collided_q = 1'b0;
  logic [WIDTH-1:0] word_q, expected_q, last_q;
  always_ff @(posedge clk_i) begin
    past_q <= 1'b1;
    read_q <= re_i;
    last_q <= rdata;
    if (we_i && waddr_i == addr) begin
      written_q <= 1'b1;
      word_q    <= wdata_i;
    end
    if (re_i) begin
      known_q    <= raddr_i == addr && written_q && (READ_OLD != 0 || !we_i || waddr_i != addr);
      expected_q <= word_q;
      collided_q <= we_i && waddr_i == raddr_i;
    end
  end

  logic [DEPTH*WIDTH-1:0] words;
  always @(*) begin
    assume (addr < ADDR_W'(DEPTH));
    if (we_i) assume (waddr_i < ADDR_W'(DEPTH));
    if (re_i) assume (raddr_i < ADDR_W'(DEPTH));
    if (known_q) assert (rdata == expected_q);
    if (past_q && !read_q && known_q) assert (rdata == last_q);
    if (written_q) assert (words[addr*WIDTH+:WIDTH] == word_q);
    cover (known_q && collided_q && READ_OLD != 0);
    cover (known_q && !collided_q && !read_q && we_i && expected_q != word_q);
  end

endmodule

`default_nettype wire
