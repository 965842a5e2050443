// Performance counters: each count goes on rightly from every value that 32 bits hold, far beyond what a simulation
// reaches; a layer that the solver chooses shows the counts of its last run since START, and zero before it.
`default_nettype none

module perf_counters_proof #(
    parameter DEPTH = 3  // layers
) (
    input wire logic       clk_i,
    input wire logic       rst_ni,
    input wire logic       start_i,
    input wire logic       active_i,
    input wire logic       end_i,
    input wire logic [5:0] layer_i,
    input wire logic       stall_i,
    input wire logic [3:0] reads_i,
    input wire logic [3:0] writes_i,
    input wire logic       weight_i,
    input wire logic       first_i,
    input wire logic       results_done_i,
    input wire logic       image_end_i,
    input wire logic [5:0] sel_i
);

  logic [31:0] cycles, stalls, reads, writes, weights, total, images;
  perf_counters #(.MAX_LAYERS(DEPTH)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .start_i(start_i), .layer_active_i(active_i), .layer_end_i(end_i),
      .layer_i(layer_i), .stall_i(stall_i), .reads_i(reads_i), .writes_i(writes_i), .weight_i(weight_i),
      .first_beat_i(first_i), .results_done_i(results_done_i), .image_end_i(image_end_i), .sel_i(sel_i),
      .cycles_o(cycles), .stalls_o(stalls), .reads_o(reads), .writes_o(writes), .weights_o(weights),
      .total_cycles_o(total), .images_o(images)
  );
  (* hierconn *) logic [31:0] \u_dut.cycles_q ;
  (* hierconn *) logic [31:0] \u_dut.stalls_q ;
  (* hierconn *) logic [31:0] \u_dut.reads_q ;
  (* hierconn *) logic [31:0] \u_dut.writes_q ;
  (* hierconn *) logic [31:0] \u_dut.weights_q ;
  (* hierconn *) logic [31:0] \u_dut.running_q ;
  (* hierconn *) logic \u_dut.counting_q ;
  (* hierconn *) logic [DEPTH-1:0] \u_dut.known_q ;
  (* hierconn *) logic [1:0] \u_dut.sel_known_q ;
  (* hierconn *) logic [159:0] \u_dut.stored ;
  (* hierconn *) logic [159:0] \u_dut.stored_q ;

  // The cycle before: its counts and events.
  logic past_q = 1'b0, rst_nq, start_q, active_q, end_q, stall_q, weight_q, first_q, results_done_q, image_end_q;
  logic counting_q;
  logic [3:0] reads_q, writes_q;
  logic [31:0] was_cycles, was_stalls, was_reads, was_writes, was_weights, was_running, was_total, was_images;
  always_ff @(posedge clk_i) begin
    past_q <= 1'b1;
    {rst_nq, start_q, active_q, end_q, stall_q} <= {rst_ni, start_i, active_i, end_i, stall_i};
    {weight_q, first_q, results_done_q, image_end_q} <= {weight_i, first_i, results_done_i, image_end_i};
    {reads_q, writes_q, counting_q} <= {reads_i, writes_i, \u_dut.counting_q };
    {was_cycles, was_stalls, was_reads} <= {\u_dut.cycles_q , \u_dut.stalls_q , \u_dut.reads_q };
    {was_writes, was_weights, was_running} <= {\u_dut.writes_q , \u_dut.weights_q , \u_dut.running_q };
    {was_total, was_images} <= {total, images};
  end

  // The chosen layer: the counts of its last run, and what the number of two cycles ago must show.
  (* anyconst *) logic [5:0] layer;
  logic ended_q = 1'b0, shown1_q = 1'b0, shown2_q = 1'b0, ended1_q, ended2_q;
  logic [159:0] word_q, word1_q, word2_q;
  logic now_ends;
  assign now_ends = end_i && layer_i == layer;
  always_ff @(posedge clk_i) begin
    ended_q <= rst_ni && !start_i && (ended_q || now_ends);
    if (now_ends) word_q <= {\u_dut.weights_q , \u_dut.writes_q , \u_dut.reads_q , \u_dut.stalls_q ,
        \u_dut.cycles_q + 32'd1};
    {shown2_q, shown1_q} <= {shown1_q, sel_i == layer && past_q};
    {ended2_q, ended1_q} <= {ended1_q, ended_q};
    {word2_q, word1_q}   <= {word1_q, word_q};
  end

  logic [DEPTH*160-1:0] words;
  logic counts;  // the cycle before counted to a layer
  assign counts = rst_nq && !end_q && active_q;
  always @(*) begin
    if (!past_q) assume (!rst_ni);
    assume (layer < 6'(DEPTH));
    assume (layer_i < 6'(DEPTH));  // main_controller: the layers of the program
    if (past_q) begin
      if (rst_nq && !end_q) begin
        assert (\u_dut.cycles_q == was_cycles + (counts ? 32'd1 : 32'd0));
        assert (\u_dut.stalls_q == was_stalls + (counts && stall_q ? 32'd1 : 32'd0));
        assert (\u_dut.reads_q == was_reads + (counts ? {28'd0, reads_q} : 32'd0));
        assert (\u_dut.writes_q == was_writes + (counts ? {28'd0, writes_q} : 32'd0));
        assert (\u_dut.weights_q == was_weights + (weight_q ? 32'd1 : 32'd0));
      end else begin
        assert ({\u_dut.cycles_q , \u_dut.stalls_q , \u_dut.reads_q , \u_dut.writes_q } == '0);
        assert (\u_dut.weights_q == (rst_nq && weight_q ? 32'd1 : 32'd0));
      end
      if (!rst_nq) assert ({total, images, \u_dut.running_q , \u_dut.counting_q } == '0);
      else begin
        assert (images == (start_q ? 32'd0 : was_images + (image_end_q ? 32'd1 : 32'd0)));
        assert (total == (image_end_q ? was_running : was_total));
        assert (\u_dut.running_q == (!counting_q ? 32'd2 : was_running + (results_done_q ? 32'd0 : 32'd1)));
        assert (\u_dut.counting_q == (!image_end_q && (first_q || counting_q)));
      end
      assert (\u_dut.known_q [layer] == ended_q);
      if (ended_q) assert (words[layer*160+:160] == word_q);
      if (shown1_q) assert (\u_dut.sel_known_q [0] == ended1_q && (!ended1_q || \u_dut.stored == word1_q));
      if (shown2_q) assert (\u_dut.sel_known_q [1] == ended2_q && (!ended2_q || \u_dut.stored_q == word2_q));
      if (shown2_q) assert ({weights, writes, reads, stalls, cycles} == (ended2_q ? word2_q : '0));
    end
    cover (past_q && shown2_q && ended2_q && cycles == 32'd2 && reads == 32'd9);
    cover (past_q && images == 32'd1 && total == 32'd3);
  end

endmodule

`default_nettype wire
