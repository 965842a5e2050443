// Image stream: every quad of the image is written once, in order, at base + row * stride + column, and nothing else
// is; done_o comes when all are; at most the image's beats are taken.
//
// ORDER = 0: the addresses, by induction, for every image of the narrow widths that lies in the buffer.  ORDER = 1:
// order and data, for images up to MOST rows of MOST quads: what decides, odd rows, one-quad rows, row ends inside a
// beat, occurs there.
`default_nettype none

module image_loader_proof #(
    parameter ADDR_W = 5,
    parameter ROWS_W = 3,
    parameter MOST   = 3,
    parameter ORDER  = 0
) (
    input wire logic        clk_i,
    input wire logic        rst_ni,
    input wire logic        clear_i,
    input wire logic        enable_i,
    input wire logic [63:0] s_axis_tdata,
    input wire logic [7:0]  s_axis_tkeep,
    input wire logic        s_axis_tvalid,
    input wire logic        s_axis_tlast
);

  (* anyconst *) logic [ADDR_W-1:0] base;
  (* anyconst *) logic [ADDR_W-1:0] row_quads;
  (* anyconst *) logic [ADDR_W-1:0] row_stride;
  (* anyconst *) logic [ROWS_W-1:0] n_rows;
  logic tready, wr_valid, first_beat, done, err_valid;
  logic [ADDR_W-1:0] wr_addr;
  logic [7:0] wr_mask, err_code;
  logic [7:0][31:0] wr_data;

  image_loader #(.ADDR_W(ADDR_W), .ROWS_W(ROWS_W)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(clear_i), .enable_i(enable_i), .base_i(base), .row_quads_i(row_quads),
      .row_stride_i(row_stride), .n_rows_i(n_rows), .s_axis_tdata(s_axis_tdata), .s_axis_tkeep(s_axis_tkeep),
      .s_axis_tvalid(s_axis_tvalid),
      .s_axis_tready(tready), .s_axis_tlast(s_axis_tlast), .wr_valid_o(wr_valid), .wr_addr_o(wr_addr),
      .wr_mask_o(wr_mask),
      .wr_data_o(wr_data), .first_beat_o(first_beat), .done_o(done), .err_valid_o(err_valid), .err_code_o(err_code)
  );

  // position of the next quad to be written, one beat that the solver chooses
  logic past_q = 1'b0, failed_q = 1'b0;
  logic [ROWS_W-1:0] row_q = '0;
  logic [ADDR_W-1:0] column_q = '0, row_addr_q;
  logic [4:0] quads_q = '0, beats_q = '0;  // written, taken
  (* anyconst *) logic [4:0] chosen;
  logic [63:0] beat_q;
  logic fresh, pair;
  assign pair  = wr_mask[1];
  assign fresh = !rst_ni || clear_i || done;
  always_ff @(posedge clk_i) begin
    past_q <= 1'b1;
    if (fresh) begin
      {row_q, column_q, quads_q} <= '0;
      row_addr_q <= base;
    end else if (wr_valid) begin
      quads_q  <= quads_q + (pair ? 5'd2 : 5'd1);
      column_q <= column_q + (pair ? ADDR_W'(2) : ADDR_W'(1));
      if (column_q + (pair ? ADDR_W'(2) : ADDR_W'(1)) == row_quads) begin
        row_q      <= row_q + 1'b1;
        column_q   <= '0;
        row_addr_q <= row_addr_q + row_stride;
      end
    end
    if (!rst_ni || clear_i || done) beats_q <= '0;
    else if (s_axis_tvalid && tready) begin
      beats_q <= beats_q + 5'd1;
      if (beats_q == chosen) beat_q <= s_axis_tdata;
    end
    if (!rst_ni || clear_i) failed_q <= 1'b0;
    else if (err_valid) failed_q <= 1'b1;
  end

  // position of the machine: a cycle ahead of the write port
  (* hierconn *) logic [1:0] \u_dut.state_q ;
  (* hierconn *) logic \u_dut.step ;
  (* hierconn *) logic \u_dut.starting ;
  (* hierconn *) logic \u_dut.pair ;
  (* hierconn *) logic \u_dut.error ;
  (* hierconn *) logic \u_dut.last_write_q ;
  (* hierconn *) logic [ADDR_W-1:0] \u_dut.addr_q ;
  (* hierconn *) logic [ADDR_W-1:0] \u_dut.next_row_q ;
  (* hierconn *) logic [ADDR_W-1:0] \u_dut.left_q ;
  (* hierconn *) logic [ROWS_W-1:0] \u_dut.rows_left_q ;
  (* hierconn *) logic \u_dut.one_left_q ;
  (* hierconn *) logic \u_dut.two_left_q ;
  (* hierconn *) logic \u_dut.last_row_q ;
  (* hierconn *) logic \u_dut.row_one_q ;
  (* hierconn *) logic \u_dut.row_two_q ;
  logic [ROWS_W-1:0] at_row_q;
  logic [ADDR_W-1:0] at_column_q, at_row_addr_q, at_next;
  logic at_row_end;
  assign at_next    = at_column_q + (\u_dut.pair ? ADDR_W'(2) : ADDR_W'(1));
  assign at_row_end = at_next == row_quads;
  always_ff @(posedge clk_i) begin
    if (\u_dut.starting ) begin
      {at_row_q, at_column_q} <= '0;
      at_row_addr_q <= base;
    end else if (\u_dut.step ) begin
      at_column_q <= at_row_end ? '0 : at_next;
      if (at_row_end) begin
        at_row_q      <= at_row_q + 1'b1;
        at_row_addr_q <= at_row_addr_q + row_stride;
      end
    end
  end
  logic [ROWS_W-1:0] wr_row_q;  // of the write on the port
  logic [ADDR_W-1:0] wr_column_q, wr_row_addr_q;
  always_ff @(posedge clk_i) {wr_row_q, wr_column_q, wr_row_addr_q} <= {at_row_q, at_column_q, at_row_addr_q};

  logic [ADDR_W+ROWS_W:0] last_quad;  // end of the image, without wrapping
  logic [4:0] total;
  assign last_quad = (ADDR_W + ROWS_W + 1)'(base) + (ADDR_W + ROWS_W + 1)'(row_stride) * (ADDR_W + ROWS_W
      + 1)'(n_rows - 1'b1) +
      (ADDR_W + ROWS_W + 1)'(row_quads);
  assign total     = 5'(row_quads) * 5'(n_rows);

  always @(*) begin
    if (!past_q) assume (!rst_ni);
    // two bits of a quad tell it from others: nothing depends on its value
    assume ((s_axis_tdata & 64'h7ffffffe_7ffffffe) == '0);
    assume (row_quads != '0 && n_rows != '0);
    // the image lies in the buffer
    assume (row_stride >= row_quads && last_quad <= (ADDR_W + ROWS_W + 1)'(1 << ADDR_W));
    if (past_q && rst_ni && !clear_i && wr_valid) begin
      assert (wr_mask == 8'h01 || wr_mask == 8'h03);
      assert (wr_row_q < n_rows && wr_column_q < row_quads);
      assert (!pair || wr_column_q + 1'b1 < row_quads);  // a write never crosses the row's end
      assert (wr_addr == wr_row_addr_q + wr_column_q);
      assert (wr_addr >= base && {1'b0, wr_addr} + (ADDR_W + 1)'(pair) < (ADDR_W + ROWS_W + 1)'(last_quad));
    end
    // invariants
    if (past_q && rst_ni && \u_dut.state_q == 2'd1) begin
      assert (at_row_q < n_rows && at_column_q < row_quads);
      assert (\u_dut.left_q == row_quads - at_column_q && \u_dut.rows_left_q == n_rows - at_row_q);
      assert (\u_dut.addr_q == at_row_addr_q + at_column_q && \u_dut.next_row_q == at_row_addr_q + row_stride);
      assert (\u_dut.one_left_q == (\u_dut.left_q == ADDR_W'(1)) && \u_dut.two_left_q == (\u_dut.left_q == ADDR_W'(2)));
      assert (\u_dut.last_row_q == (\u_dut.rows_left_q == ROWS_W'(1)));
      assert (\u_dut.row_one_q == (row_quads == ADDR_W'(1)) && \u_dut.row_two_q == (row_quads == ADDR_W'(2)));
      assert (at_row_addr_q >= base && (ADDR_W + ROWS_W + 1)'(at_row_addr_q) == (ADDR_W + ROWS_W + 1)'(base) +
          (ADDR_W + ROWS_W + 1)'(at_row_q) * (ADDR_W + ROWS_W + 1)'(row_stride));
    end
    if (past_q && rst_ni && wr_valid) begin
      assert (wr_row_q < n_rows && wr_column_q < row_quads && wr_addr == wr_row_addr_q + wr_column_q);
      assert ((ADDR_W + ROWS_W + 1)'(wr_row_addr_q) == (ADDR_W + ROWS_W + 1)'(base) + (ADDR_W + ROWS_W
          + 1)'(wr_row_q) * (ADDR_W + ROWS_W + 1)'(row_stride));
      assert (wr_mask == 8'h01 || (wr_mask == 8'h03 && wr_column_q + 1'b1 < row_quads));
    end
  end

  // order and data, for small images
  always @(*) if (ORDER != 0) begin
    assume (!chosen[4]);
    assume (row_quads != '0 && row_quads <= ADDR_W'(MOST) && n_rows != '0 && n_rows <= ROWS_W'(MOST));
    if (past_q && rst_ni && !clear_i) begin
      if (wr_valid) begin
        assert (wr_mask == 8'h01 || wr_mask == 8'h03);
        assert (wr_addr == row_addr_q + column_q);
        assert (row_q < n_rows);
        assert (column_q + (pair ? ADDR_W'(1) : ADDR_W'(0)) < row_quads);  // a write never crosses the row's end
        if (quads_q == {chosen[3:0], 1'b0}) assert (wr_data[0] == beat_q[31:0]);
        if (quads_q == {chosen[3:0], 1'b1}) assert (wr_data[0] == beat_q[63:32]);
        if (pair && quads_q + 5'd1 == {chosen[3:0], 1'b1}) assert (wr_data[1] == beat_q[63:32]);
      end
      if (done) assert (quads_q == total && !failed_q);
      assert (quads_q <= total);
      if (!failed_q && !err_valid) assert ({1'b0, beats_q} <= {1'b0, total} / 6'd2 + {5'b0, total[0]} + 6'd2);
      if (failed_q) assert (!wr_valid && !err_valid && !done);
    end
  end
  always @(*) begin
    cover (past_q && rst_ni && !clear_i && done && row_quads == ADDR_W'(3) && n_rows == ROWS_W'(2));
    // a beat that straddles a row's end
    cover (past_q && rst_ni && !clear_i && wr_valid && quads_q[0] && column_q == '0);
    cover (past_q && failed_q);
  end

endmodule

`default_nettype wire
