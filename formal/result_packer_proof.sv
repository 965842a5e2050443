// Result packer: each step of NUM_MODULES 32-bit results becomes NUM_MODULES / 2 beats, in order; TLAST on the last one
// after flush_i and on no other; beats are stable while stalled; tensor beats pass.
//
// 4 modules, so that a step has two beats; the FIFO's depth and the margin are parameters of the block.
//
// Assumed of the producers, as the accelerator has it: a step comes at most MARGIN cycles after room_o was seen;
// flush_i comes when all steps of the layer have; no step and no tensor beat comes until the packer is empty again;
// tensor beats come only while it is empty.
`default_nettype none

module result_packer_proof #(
    parameter NUM_MODULES = 4,
    parameter MARGIN      = 2,
    parameter DEPTH       = 4
) (
    input wire logic                       clk_i,
    input wire logic                       rst_ni,
    input wire logic                       issue_i,
    input wire logic [NUM_MODULES-1:0][31:0] raw_i,
    input wire logic                       flush_i,
    input wire logic                       tensor_valid_i,
    input wire logic [63:0]                tensor_data_i,
    input wire logic                       tensor_half_i,
    input wire logic                       tensor_last_i,
    input wire logic                       beat_ready_i,
    input wire logic                       pick_i
);

  localparam int BEATS = NUM_MODULES / 2;
  logic room, valid, half, last, empty;
  logic [63:0] data;
  logic [MARGIN-1:0] flight_q = '0;  // steps on their way
  logic raw_valid;
  assign raw_valid = flight_q[MARGIN-1];

  result_packer #(.NUM_MODULES(NUM_MODULES), .MARGIN(MARGIN), .DEPTH(DEPTH)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .raw_valid_i(raw_valid), .raw_i(raw_i), .room_o(room), .flush_i(flush_i),
      .tensor_valid_i(tensor_valid_i), .tensor_data_i(tensor_data_i), .tensor_half_i(tensor_half_i),
      .tensor_last_i(tensor_last_i),
      .beat_valid_o(valid), .beat_ready_i(beat_ready_i), .beat_data_o(data), .beat_half_o(half), .beat_last_o(last),
      .empty_o(empty)
  );
  (* hierconn *) logic \u_dut.unused_fifo_in_ready ;

  logic past_q = 1'b0, flushing_q = 1'b0, follow_q = 1'b0, stalled_q = 1'b0;
  logic [7:0] in_q = '0, out_q = '0, target_q;  // beats that came, beats that left
  logic [63:0] word_q, data_q;
  logic last_q, half_q, raw_taken;
  assign raw_taken = valid && beat_ready_i && !tensor_valid_i;
  (* anyconst *) logic [2:0] chosen;  // beat of the step

  always_ff @(posedge clk_i) begin
    past_q <= 1'b1;
    if (!rst_ni) begin
      flight_q   <= '0;
      in_q       <= '0;
      out_q      <= '0;
      flushing_q <= 1'b0;
      follow_q   <= 1'b0;
    end else begin
      flight_q <= {flight_q[MARGIN-2:0], issue_i && room};
      if (raw_valid) in_q <= in_q + 8'(BEATS);
      if (raw_taken) out_q <= out_q + 8'd1;
      if (flush_i) flushing_q <= 1'b1;
      else if (empty) flushing_q <= 1'b0;
      if (raw_taken && follow_q && out_q == target_q) follow_q <= 1'b0;
      else if (raw_valid && pick_i && !follow_q) begin
        follow_q <= 1'b1;
        target_q <= in_q + 8'(chosen);
        word_q   <= raw_i[2*chosen+:2];
      end
    end
    stalled_q <= rst_ni && valid && !beat_ready_i;
    data_q    <= data;
    last_q    <= last;
    half_q    <= half;
  end

  logic inside;
  assign inside = in_q != out_q;

  // where the followed beat lies: at the output, or in which word of the FIFO
  localparam int STEP_W = 64 * BEATS;
  logic [DEPTH*STEP_W-1:0] words;  // the FIFO's memory
  (* hierconn *) logic \u_dut.held_q ;
  (* hierconn *) logic \u_dut.fifo_valid ;
  (* hierconn *) logic \u_dut.flush_q ;
  (* hierconn *) logic [2:0] \u_dut.beat_q ;
  (* hierconn *) logic [63:0] \u_dut.held_data_q ;
  (* hierconn *) logic [$clog2(DEPTH+1)-1:0] \u_dut.u_fifo.level_q ;
  (* hierconn *) logic [$clog2(DEPTH)-1:0] \u_dut.u_fifo.wr_ptr_q ;
  (* hierconn *) logic [$clog2(DEPTH)-1:0] \u_dut.u_fifo.rd_ptr_q ;
  logic [7:0] level, ahead, behind;  // behind: beats between the FIFO's first word and the followed beat
  logic [$clog2(DEPTH)-1:0] slot;
  logic reset_q;
  assign level  = 8'(\u_dut.u_fifo.level_q );
  assign ahead  = target_q - out_q;
  assign behind = ahead - 8'(\u_dut.held_q ) + 8'(\u_dut.beat_q );
  assign slot   = \u_dut.u_fifo.rd_ptr_q + $clog2(DEPTH)'(behind / 8'(BEATS));
  always_ff @(posedge clk_i) reset_q <= !rst_ni;
  always @(*) begin
    if (!past_q) assume (!rst_ni);
    assume (chosen < 3'(BEATS));
    // two bits of a result tell it from others: nothing depends on its value
    assume ((raw_i & ~{NUM_MODULES{32'h80000001}}) == '0);
    if (flush_i) assume (flight_q == '0 && !flushing_q);
    if (flushing_q || tensor_valid_i || flush_i) assume (!issue_i);
    if (tensor_valid_i) assume (!inside && flight_q == '0 && !flushing_q && !flush_i);
    if (past_q && stalled_q && tensor_valid_i) assume (tensor_data_i == data_q && tensor_last_i == last_q &&
        tensor_half_i == half_q);
    if (past_q && stalled_q && !inside) assume (tensor_valid_i);
    if (past_q && rst_ni) begin
      if (raw_valid) assert (\u_dut.unused_fifo_in_ready );
      assert (empty == !inside);
      if (valid && !tensor_valid_i) begin
        assert (inside);
        assert (!half);
        assert (last == (flushing_q && out_q + 8'd1 == in_q));
        if (follow_q && out_q == target_q) assert (data == word_q);
      end
      if (tensor_valid_i) assert (valid && data == tensor_data_i && last == tensor_last_i && half == tensor_half_i);
      if (stalled_q) assert (valid && data == data_q && last == last_q && half == half_q);
      if (flushing_q && inside) assert (valid);  // all comes out
      // invariants
      assert (room == (level < 8'(DEPTH - MARGIN)) && \u_dut.fifo_valid == (level != '0));
      assert (level + 8'(flight_q[0]) + 8'(flight_q[1]) <= 8'(DEPTH));
      assert (in_q - out_q == level * 8'(BEATS) - 8'(\u_dut.beat_q ) + 8'(\u_dut.held_q ));
      assert (\u_dut.beat_q < 3'(BEATS) && (\u_dut.beat_q == '0 || (level != '0 && \u_dut.held_q )));
      assert (\u_dut.u_fifo.wr_ptr_q == \u_dut.u_fifo.rd_ptr_q + \u_dut.u_fifo.level_q [$clog2(DEPTH)-1:0]);
      assert (reset_q ? flight_q == '0 : \u_dut.unused_fifo_in_ready == (level != 8'(DEPTH)));
      assert (\u_dut.flush_q == flushing_q);
      if (flushing_q) assert (flight_q == '0 && (!inside || \u_dut.held_q ));
      if (follow_q) begin
        assert (ahead < in_q - out_q);
        assert ((\u_dut.held_q && ahead == '0) ? \u_dut.held_data_q == word_q :
            words[slot*STEP_W+64*(behind%8'(BEATS))+:64] == word_q);
      end
    end
    cover (past_q && rst_ni && raw_taken && last && in_q == 8'(2 * BEATS));
    cover (past_q && rst_ni && stalled_q && raw_taken && follow_q && out_q == target_q && chosen == 3'(BEATS - 1));
    cover (past_q && rst_ni && !room && raw_valid);
  end

endmodule

`default_nettype wire
