// Weight buffer and weight loader together: no word is taken out of an empty buffer, pointers never move together with
// a read, the buffer is never over-full, and words come out in the order in which they went in, again after a rewind
// until a commit frees them.
//
// For any stream of words, whatever the chunk headers say, and any behaviour of the conv unit.  4 modules, 13 words
// a pass; the buffer is the smallest power of two that holds a pass.
`default_nettype none

module weight_path_proof #(
    parameter DEPTH = 16
) (
    input wire logic        clk_i,
    input wire logic        rst_ni,
    input wire logic        in_valid_i,
    input wire logic [63:0] in_data_i,
    input wire logic        layer_done_i,
    input wire logic        take_i,
    input wire logic        drop_i,
    input wire logic        switch_i
);

  localparam int A_W = $clog2(DEPTH);
  localparam int BEATS = 13;
  logic in_ready, re, rewind, commit, param_we, param_bank, params_ready, idle, ready, full;
  logic [63:0] data, param_data;
  logic [A_W:0] level;
  logic [8:0] param_channel;
  logic [799:0] idx;

  weight_buffer #(.DEPTH(DEPTH)) u_buffer (
      .clk_i(clk_i), .rst_ni(rst_ni), .in_valid_i(in_valid_i), .in_ready_o(in_ready), .in_data_i(in_data_i),
      .re_i(re), .data_o(data),
      .level_o(level), .rewind_i(rewind), .commit_i(commit)
  );
  weight_loader #(.NUM_MODULES(4), .LEVEL_W(A_W + 1)) u_loader (
      .clk_i(clk_i), .rst_ni(rst_ni), .level_i(level), .re_o(re), .data_i(data), .rewind_o(rewind), .commit_o(commit),
      .param_we_o(param_we), .param_bank_o(param_bank), .param_channel_o(param_channel), .param_data_o(param_data),
      .layer_done_i(layer_done_i), .params_ready_o(params_ready), .idle_o(idle), .idx_o(idx), .ready_o(ready),
      .full_o(full),
      .take_i(take_i), .drop_i(drop_i), .switch_i(switch_i)
  );
  (* hierconn *) logic [A_W-1:0] \u_buffer.write_q ;
  (* hierconn *) logic [A_W-1:0] \u_buffer.read_q ;
  (* hierconn *) logic [A_W-1:0] \u_buffer.base_q ;
  (* hierconn *) logic [A_W:0] \u_buffer.held_q ;
  (* hierconn *) logic \u_loader.last_beat_q ;
  (* hierconn *) logic [2:0] \u_loader.state_q ;
  (* hierconn *) logic [6:0] \u_loader.beat_q ;
  (* hierconn *) logic \u_loader.pass_read_q ;
  (* hierconn *) logic [1:0] \u_loader.pending_q ;
  localparam logic [2:0] LOAD = 3'd4;

  // A word that the solver chooses: the one in slot `slot` of the buffer.
  (* anyconst *) logic [A_W-1:0] slot;
  logic past_q = 1'b0, known_q = 1'b0, push;
  logic [1:0] check_q = '0;  // beside the word in the RAM's register, and in the one behind it
  logic [1:0][63:0] want_q;
  logic [63:0] word_q;
  assign push = in_valid_i && in_ready;
  logic [A_W:0] used, span;  // words in the buffer; those of them that were read
  assign used = \u_buffer.held_q ;
  assign span = used - level;
  always_ff @(posedge clk_i) begin
    past_q <= 1'b1;
    if (!rst_ni) {known_q, check_q} <= '0;
    else begin
      if (push && \u_buffer.write_q == slot) {known_q, word_q} <= {1'b1, in_data_i};
      check_q <= {check_q[0], re && \u_buffer.read_q == slot};
    end
    want_q <= {want_q[0], word_q};
  end

  logic [DEPTH*64-1:0] words;
  always @(*) begin
    if (!past_q) assume (!rst_ni);
    assume (!layer_done_i || params_ready);  // main_controller: a layer that finishes had parameters
    if (past_q && rst_ni) begin
      assert (!re || level != '0);
      assert (!(re && (rewind || commit)));
      assert (used <= (A_W + 1)'(DEPTH));
      assert (level <= used);
      assert (\u_buffer.base_q + used[A_W-1:0] == \u_buffer.write_q );
      assert (\u_buffer.base_q + span[A_W-1:0] == \u_buffer.read_q );
      assert (in_ready == (used != (A_W + 1)'(DEPTH)));
      if (re && \u_buffer.read_q == slot) assert (known_q);
      if (check_q[1]) assert (data == want_q[1]);
      assert (\u_loader.pending_q != 2'd3);
      // invariants
      if (known_q) assert (words[slot*64+:64] == word_q);
      // what lies between base and write was written
      if (!known_q) assert ({1'b0, A_W'(slot - \u_buffer.base_q )} >= used);
      if (\u_loader.state_q == 3'd3) assert (\u_loader.beat_q == '0 && !\u_loader.last_beat_q );
      if (\u_loader.state_q == LOAD) assert (\u_loader.beat_q <= 7'(BEATS) &&
          \u_loader.last_beat_q == (\u_loader.beat_q == 7'(BEATS)) &&
          7'(level) + \u_loader.beat_q >= 7'(BEATS));
      if (\u_loader.pass_read_q ) assert (\u_loader.state_q == 3'd5 || \u_loader.state_q == 3'd6);
    end
    cover (past_q && rst_ni && rewind && in_ready);
    cover (past_q && rst_ni && param_we);
    cover (past_q && check_q[1] && slot == A_W'(14));
  end

endmodule

`default_nettype wire
