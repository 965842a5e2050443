// Checker of a valid/ready channel that stores words: every word comes out once, in order, and the output is stable
// while stalled.
//
// It follows one word that the solver chooses freely (pick_i), so that a proof for that word is a proof for all; the
// words themselves are free too, so a lost, doubled or swapped word shows as a wrong value of the followed one.  A word
// must come out within LATENCY cycles in which nothing else does.  Ghost state comes out for the invariants of a proof
// by induction.
`default_nettype none

module order_check #(
    parameter WIDTH    = 2,
    parameter CAPACITY = 2,
    parameter LATENCY  = 1,
    parameter STABLE   = 1,
    parameter LEVEL_W  = $clog2(CAPACITY + 2)
) (
    input  wire logic               clk_i,
    input  wire logic               rst_ni,
    input  wire logic               pick_i,      // free: follow the word that goes in now
    input  wire logic               in_valid_i,
    input  wire logic               in_ready_i,
    input  wire logic [WIDTH-1:0]   in_data_i,
    input  wire logic               out_valid_i,
    input  wire logic               out_ready_i,
    input  wire logic [WIDTH-1:0]   out_data_i,
    input  wire logic               flush_i,     // the newest words are dropped, and one that goes in now
    input  wire logic [LEVEL_W-1:0] keep_i,      // words that stay after this cycle
    output logic      [LEVEL_W-1:0] level_o,     // words inside
    output logic                    follow_o,    // the chosen word is inside
    output logic      [LEVEL_W-1:0] ahead_o,     // words in front of it
    output logic      [WIDTH-1:0]   data_o,
    output logic      [3:0]         waited_o     // cycles that a word has been inside with nothing at the output
);

  localparam int FILL = CAPACITY < 8 ? CAPACITY : 8;  // filling a deep FIFO takes the solver long and shows no more

  logic push, pop;
  assign push = in_valid_i && in_ready_i;
  assign pop  = out_valid_i && out_ready_i;

  logic [LEVEL_W-1:0] level_q = '0, ahead_q;
  logic follow_q = 1'b0, past_q = 1'b0;
  logic [WIDTH-1:0] data_q;
  logic [3:0] wait_q = '0;
  assign {level_o, follow_o, ahead_o, data_o, waited_o} = {level_q, follow_q, ahead_q, data_q, wait_q};

  always_ff @(posedge clk_i) begin
    past_q <= 1'b1;
    if (!rst_ni) begin
      level_q  <= '0;
      follow_q <= 1'b0;
      wait_q   <= '0;
    end else if (flush_i) begin
      level_q  <= keep_i;
      wait_q   <= '0;
      follow_q <= follow_q && !(pop && ahead_q == '0) && ahead_q - LEVEL_W'(pop) < keep_i;
      ahead_q  <= ahead_q - LEVEL_W'(pop);
    end else begin
      level_q <= level_q + LEVEL_W'(push) - LEVEL_W'(pop);
      wait_q  <= (level_q == '0 || out_valid_i) ? '0 : wait_q + 4'd1;
      if (push && pick_i && !follow_q) begin
        follow_q <= 1'b1;
        ahead_q  <= level_q - LEVEL_W'(pop);
        data_q   <= in_data_i;
      end else if (follow_q && pop) begin
        follow_q <= ahead_q != '0;
        ahead_q  <= ahead_q - 1'b1;
      end
    end
  end

  logic stalled_q;
  logic [WIDTH-1:0] out_q;
  always_ff @(posedge clk_i) begin
    stalled_q <= rst_ni && out_valid_i && !out_ready_i;
    out_q     <= out_data_i;
  end

  always @(*) begin
    if (rst_ni) begin
      assert (level_q <= LEVEL_W'(CAPACITY));
      assert (!out_valid_i || level_q != '0);
      assert (!in_ready_i || level_q < LEVEL_W'(CAPACITY));
      assert (wait_q < 4'(LATENCY));
      assert (!follow_q || ahead_q < level_q);
      if (follow_q && out_valid_i && ahead_q == '0) assert (out_data_i == data_q);
      if (STABLE != 0 && past_q && stalled_q) begin
        assert (out_valid_i);
        assert (out_data_i == out_q);
      end
    end
    cover (past_q && rst_ni && level_q == LEVEL_W'(FILL) && follow_q && ahead_q == LEVEL_W'(FILL - 1));
    cover (past_q && rst_ni && follow_q && pop && ahead_q == '0 && stalled_q);
  end

endmodule

`default_nettype wire
