// Tensor reader: reads each row's quads once, in order, at base + row * stride + column, none outside the tensor; as
// many beats as the quads need, TLAST on the last one only; a beat always finds room.
//
// Narrow addresses (constants of program_pkg replaced) and one small tensor a run, at every base and stride: sizes that
// are constants keep products out of the solver. Odd rows, one-quad rows and quads left over occur.
`default_nettype none

module tensor_reader_proof #(
    parameter ROWS  = 3,
    parameter QUADS = 5
) (
    input wire logic       clk_i,
    input wire logic       rst_ni,
    input wire logic       start_i,
    input wire logic [3:0] room_i
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;
  localparam int D_W = program_pkg::DIM_W;
  (* anyconst *) logic [A_W-1:0] base;
  (* anyconst *) logic [A_W-1:0] row_stride;
  localparam logic [A_W-1:0] row_quads = QUADS;
  localparam logic [D_W-1:0] height = ROWS;
  logic done, rd_valid, beat_valid, beat_half, beat_last;
  logic [A_W-1:0] rd_addr;
  logic [63:0] beat;

  // the buffer holds the address itself, so that a beat shows which quads it is made of
  logic [cq_pkg::RD_LATENCY-1:0][A_W-1:0] addr_q;
  logic [7:0][31:0] rd_data;
  assign rd_data = {192'b0, 32'(addr_q[cq_pkg::RD_LATENCY-1]) + 32'd1, 32'(addr_q[cq_pkg::RD_LATENCY-1])};
  always_ff @(posedge clk_i) addr_q <= {addr_q[cq_pkg::RD_LATENCY-2:0], rd_addr};

  tensor_reader #(.ROOM_W(4)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .start_i(start_i), .done_o(done), .base_i(base), .row_stride_i(row_stride),
      .row_quads_i(row_quads),
      .height_i(height), .rd_valid_o(rd_valid), .rd_addr_o(rd_addr), .rd_data_i(rd_data), .room_i(room_i),
      .beat_valid_o(beat_valid),
      .beat_data_o(beat), .beat_half_o(beat_half), .beat_last_o(beat_last)
  );

  logic past_q = 1'b0, busy_q = 1'b0, started_q = 1'b0;
  logic [3:0] room_q;  // of the cycle before
  logic [A_W-1:0] in_row_addr_q, in_col_q, out_row_addr_q, out_col_q;
  logic [D_W-1:0] in_row_q;
  logic [5:0] quads_q, total;  // quads in the beats so far
  logic [5:0] left;
  logic in_pair;
  assign in_pair = row_quads - in_col_q > A_W'(1);
  assign total   = 6'(row_quads) * 6'(height);
  assign left    = total - quads_q;

  // the quad after (row address, column)
  logic [A_W-1:0] second_row_addr, second_col;
  assign second_row_addr = (out_col_q + 1'b1 == row_quads) ? out_row_addr_q + row_stride : out_row_addr_q;
  assign second_col      = (out_col_q + 1'b1 == row_quads) ? '0 : out_col_q + 1'b1;

  always_ff @(posedge clk_i) begin
    past_q    <= 1'b1;
    room_q    <= room_i;
    started_q <= past_q;
    if (!rst_ni) busy_q <= 1'b0;
    else if (start_i) busy_q <= 1'b1;
    else if (done) busy_q <= 1'b0;
    if (!rst_ni || (start_i && !busy_q)) begin
      {in_col_q, in_row_q, out_col_q, quads_q} <= '0;
      in_row_addr_q  <= base;
      out_row_addr_q <= base;
    end else begin
      if (rd_valid) begin
        if (in_col_q + (in_pair ? A_W'(2) : A_W'(1)) == row_quads) begin
          in_col_q      <= '0;
          in_row_q      <= in_row_q + 1'b1;
          in_row_addr_q <= in_row_addr_q + row_stride;
        end else in_col_q <= in_col_q + A_W'(2);
      end
      if (beat_valid) begin
        quads_q <= quads_q + (beat_half ? 6'd1 : 6'd2);
        if (beat_half || second_col + 1'b1 == row_quads) begin
          out_row_addr_q <= (beat_half && out_col_q + 1'b1 != row_quads) ? out_row_addr_q : second_row_addr
              + (beat_half ? '0 : row_stride);
          out_col_q      <= (beat_half) ? second_col : '0;
        end else begin
          out_row_addr_q <= second_row_addr;
          out_col_q      <= second_col + 1'b1;
        end
      end
    end
  end

  logic [A_W+D_W:0] end_quad;
  assign end_quad = (A_W + D_W + 1)'(base) + (A_W + D_W + 1)'(row_stride) * (A_W + D_W + 1)'(height - 1'b1) + (A_W
      + D_W + 1)'(row_quads);
  always @(*) begin
    if (!past_q) assume (!rst_ni);
    else assume (rst_ni);
    assume (row_stride >= row_quads && end_quad <= (A_W + D_W + 1)'(1 << A_W));
    assume (start_i == (past_q && !started_q));  // after reset nothing changes until then, so a later start is the same
    if (past_q && rst_ni) begin
      if (rd_valid) begin
        assert (busy_q && in_row_q < height && in_col_q < row_quads);
        assert (rd_addr == in_row_addr_q + in_col_q);
        assert (room_q > 4'(cq_pkg::RD_LATENCY + 5));
      end
      if (beat_valid) begin
        assert (busy_q && left != '0);
        assert (beat_half == (left == 6'd1));
        assert (beat_last == (left <= 6'd2));
        assert (beat[31:0] == 32'(out_row_addr_q + out_col_q));
        if (!beat_half) assert (beat[63:32] == 32'(second_row_addr + second_col));
      end
      assert (done == (beat_valid && beat_last));
    end
    cover (past_q && done && row_stride == row_quads + A_W'(2));
    cover (past_q && done && left == 6'd1 + 6'(total[0] == 1'b0));
  end

endmodule

`default_nettype wire
