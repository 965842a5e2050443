// Result stream: every beat once and in order, stable while stalled; a producer that counts room_o never meets a full
// FIFO. clear_i drops the FIFO's words and neither withdraws nor changes a beat that has been offered.
`default_nettype none

module result_writer_proof #(
    parameter DEPTH = 4
) (
    input wire logic        clk_i,
    input wire logic        rst_ni,
    input wire logic        clear_i,
    input wire logic        pick_i,
    input wire logic        in_valid_i,
    input wire logic [63:0] in_data_i,
    input wire logic        in_half_i,
    input wire logic        in_last_i,
    input wire logic        m_axis_tready
);

  localparam int LEVEL_W = $clog2(DEPTH + 4);
  logic in_ready, tvalid, tlast, empty, follow;
  logic [63:0] tdata;
  logic [7:0] tkeep;
  logic [$clog2(DEPTH + 1)-1:0] room;
  logic [LEVEL_W-1:0] level, ahead;
  logic [65:0] data;
  logic [3:0] waited;

  result_writer #(.DEPTH(DEPTH)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(clear_i), .in_valid_i(in_valid_i), .in_ready_o(in_ready),
      .in_data_i(in_data_i),
      .in_half_i(in_half_i), .in_last_i(in_last_i), .room_o(room), .m_axis_tdata(tdata), .m_axis_tkeep(tkeep),
      .m_axis_tvalid(tvalid),
      .m_axis_tready(m_axis_tready), .m_axis_tlast(tlast), .empty_o(empty)
  );
  order_check #(.WIDTH(66), .CAPACITY(DEPTH + 2), .LATENCY(2)) u_order (
      .clk_i(clk_i), .rst_ni(rst_ni), .pick_i(pick_i), .flush_i(clear_i), .keep_i(keep), .in_valid_i(in_valid_i),
      .in_ready_i(in_ready),
      .in_data_i({in_last_i, in_half_i, in_half_i ? 32'b0 : in_data_i[63:32], in_data_i[31:0]}),
      .out_valid_i(tvalid), .out_ready_i(m_axis_tready), .out_data_i({tlast, tkeep == 8'h0f, tdata}),
      .level_o(level), .follow_o(follow), .ahead_o(ahead), .data_o(data), .waited_o(waited)
  );

  localparam int ADDR_W = $clog2(DEPTH);
  (* hierconn *) logic [ADDR_W-1:0] \u_dut.u_fifo.rd_ptr_q ;
  (* hierconn *) logic [ADDR_W-1:0] \u_dut.u_fifo.wr_ptr_q ;
  (* hierconn *) logic [$clog2(DEPTH + 1)-1:0] \u_dut.u_fifo.level_q ;
  (* hierconn *) logic \u_dut.u_skid.ready_q ;
  (* hierconn *) logic \u_dut.u_skid.skid_valid_q ;
  (* hierconn *) logic [65:0] \u_dut.u_skid.skid_data_q ;
  logic [DEPTH*66-1:0] words;  // the FIFO's memory; DEPTH is a power of two
  (* hierconn *) logic \u_dut.fifo_valid ;
  (* hierconn *) logic \u_dut.fifo_ready ;
  logic [LEVEL_W-1:0] before, keep;  // words in the register slice, now and after this cycle
  logic [ADDR_W-1:0] place;
  assign before = LEVEL_W'(tvalid) + LEVEL_W'(\u_dut.u_skid.skid_valid_q );
  assign keep   = before + LEVEL_W'(\u_dut.fifo_valid && \u_dut.fifo_ready ) - LEVEL_W'(tvalid && m_axis_tready);
  assign place  = ADDR_W'(\u_dut.u_fifo.rd_ptr_q + ADDR_W'(ahead - before));

  logic past_q = 1'b0, calm_q = 1'b0, calm2_q = 1'b0;
  always_ff @(posedge clk_i) begin
    past_q  <= 1'b1;
    calm_q  <= rst_ni && !clear_i;
    calm2_q <= calm_q;
  end

  always @(*) begin
    if (!past_q) assume (!rst_ni);
    if (past_q) begin
      if (tvalid) assert (tkeep == 8'hff || tkeep == 8'h0f);
      if (rst_ni) begin
        assert (empty == (level == '0));
        if (calm_q && calm2_q && room != '0) assert (in_ready);
        // invariants
        assert (\u_dut.fifo_valid == (\u_dut.u_fifo.level_q != '0));
        assert (level == before + LEVEL_W'(\u_dut.u_fifo.level_q ) && \u_dut.u_fifo.level_q <= DEPTH);
        assert (ADDR_W'(\u_dut.u_fifo.rd_ptr_q + ADDR_W'(\u_dut.u_fifo.level_q )) == \u_dut.u_fifo.wr_ptr_q );
        assert (tvalid || !\u_dut.u_skid.skid_valid_q );
        assert (!\u_dut.u_skid.ready_q || !\u_dut.u_skid.skid_valid_q );
        assert (\u_dut.u_skid.ready_q || \u_dut.u_skid.skid_valid_q || (level == '0 && !in_ready));
        assert (waited == 4'd0 || tvalid || level == '0);
        assert (waited <= 4'd1);
        assert (calm_q || (\u_dut.u_fifo.level_q == '0 && !in_ready));
        if (calm_q) assert (in_ready == (\u_dut.u_fifo.level_q != DEPTH) || !calm2_q);
        if (calm_q && !calm2_q) assert (\u_dut.u_fifo.level_q == '0);
        if (follow && ahead != '0 && ahead < before) assert (\u_dut.u_skid.skid_data_q == data);
        if (follow && ahead >= before) assert (words[place*66+:66] == data);
      end
    end
    cover (past_q && tvalid && tlast && tkeep == 8'h0f);
    cover (past_q && rst_ni && clear_i && follow && ahead == LEVEL_W'(1) && keep == LEVEL_W'(2));
  end

endmodule

`default_nettype wire
