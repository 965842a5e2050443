// FIFO: every word once and in order, never over-full, exact level, output stable while stalled; the memory is never
// read where it is written.
`default_nettype none

module sync_fifo_proof #(
    parameter WIDTH      = 2,
    parameter DEPTH      = 4,
    parameter LUTRAM_MAX = 64,
    localparam LEVEL_W   = $clog2(DEPTH + 1),
    localparam CHECK_W   = $clog2(DEPTH + 2)
) (
    input wire logic             clk_i,
    input wire logic             rst_ni,
    input wire logic             pick_i,
    input wire logic             in_valid_i,
    input wire logic [WIDTH-1:0] in_data_i,
    input wire logic             out_ready_i
);

  localparam int ADDR_W = $clog2(DEPTH);
  localparam int BLOCK = DEPTH > LUTRAM_MAX;

  logic in_ready, out_valid, follow;
  logic [WIDTH-1:0] out_data, data;
  logic [LEVEL_W-1:0] level_out;
  logic [CHECK_W-1:0] level, ahead;
  logic [3:0] waited;

  sync_fifo #(.WIDTH(WIDTH), .DEPTH(DEPTH), .LUTRAM_MAX(LUTRAM_MAX)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .in_valid_i(in_valid_i), .in_ready_o(in_ready), .in_data_i(in_data_i),
      .out_valid_o(out_valid), .out_ready_i(out_ready_i), .out_data_o(out_data), .level_o(level_out)
  );
  order_check #(.WIDTH(WIDTH), .CAPACITY(DEPTH), .LATENCY(BLOCK ? 3 : 1)) u_order (
      .clk_i(clk_i), .rst_ni(rst_ni), .flush_i(1'b0), .keep_i(1'b0), .pick_i(pick_i), .in_valid_i(in_valid_i),
      .in_ready_i(in_ready), .in_data_i(in_data_i),
      .out_valid_i(out_valid), .out_ready_i(out_ready_i), .out_data_i(out_data),
      .level_o(level), .follow_o(follow), .ahead_o(ahead), .data_o(data), .waited_o(waited)
  );

  logic past_q = 1'b0, reset_q, room_q;
  always_ff @(posedge clk_i) begin
    past_q  <= 1'b1;
    reset_q <= !rst_ni;
    room_q  <= rst_ni && (level + CHECK_W'(in_valid_i && in_ready) < CHECK_W'(DEPTH) || (out_valid && out_ready_i));
  end

  logic [DEPTH*WIDTH-1:0] words;  // the memory
  (* hierconn *) logic [ADDR_W-1:0] \u_dut.wr_ptr_q ;
  (* hierconn *) logic [ADDR_W-1:0] \u_dut.rd_ptr_q ;

  (* hierconn *) logic \u_dut.push ;
  (* hierconn *) logic \u_dut.fetch ;
  // of the block RAM; nothing reads them otherwise
  (* hierconn *) logic [LEVEL_W-1:0] \u_dut.g_block_ram.stored_q ;
  (* hierconn *) logic \u_dut.g_block_ram.read_valid_q ;
  (* hierconn *) logic [WIDTH-1:0] \u_dut.g_block_ram.read_data ;

  // Where word `n` behind the read pointer lies.
  function automatic logic [CHECK_W:0] place(input logic [ADDR_W-1:0] start, input logic [CHECK_W-1:0] n);
    place = (CHECK_W + 1)'(start) + (CHECK_W + 1)'(n);
    if (place >= (CHECK_W + 1)'(DEPTH)) place = place - (CHECK_W + 1)'(DEPTH);
  endfunction

  logic [CHECK_W-1:0] before, stored;  // words in front of the memory's first one; in the memory
  always @(*) begin
    if (!past_q) assume (!rst_ni);
    if (past_q && reset_q) assert (!in_ready);
    if (past_q && rst_ni) begin
      assert (CHECK_W'(level_out) == level);
      if (room_q) assert (in_ready);  // no room is left unused
      // invariants
      assert (CHECK_W'(\u_dut.rd_ptr_q ) < CHECK_W'(DEPTH));
      assert ((CHECK_W + 2)'(stored) + (CHECK_W + 2)'(before) == (CHECK_W + 2)'(level));
      assert (place(\u_dut.rd_ptr_q , stored) == (CHECK_W + 1)'(\u_dut.wr_ptr_q ));
      if (follow && ahead >= before) assert (words[place(\u_dut.rd_ptr_q , ahead - before)*WIDTH+:WIDTH] == data);
    end
  end

  generate
    if (BLOCK) begin : g_block
      assign before = CHECK_W'(out_valid) + CHECK_W'(\u_dut.g_block_ram.read_valid_q );
      assign stored = CHECK_W'(\u_dut.g_block_ram.stored_q );
      always @(*) begin
        if (past_q && rst_ni) begin
          assert (!(\u_dut.push && \u_dut.fetch && \u_dut.wr_ptr_q == \u_dut.rd_ptr_q ));
          if (follow && ahead < before && (ahead != '0 || !out_valid)) assert (\u_dut.g_block_ram.read_data == data);
          // throughput: the memory is read whenever a stage behind it is free
          assert (\u_dut.fetch || stored == '0 || (before == CHECK_W'(2) && !out_ready_i));
          // what has waited for a cycle was fetched, what has waited for two is at the output
          if (waited == 4'd1) assert (out_valid || \u_dut.g_block_ram.read_valid_q );
          if (waited == 4'd2) assert (out_valid);
        end
      end
    end else begin : g_lutram
      assign before = '0;
      assign stored = CHECK_W'(level_out);
      always @(*) if (past_q && rst_ni) assert (out_valid == (level_out != '0));
    end
  endgenerate

endmodule

`default_nettype wire
