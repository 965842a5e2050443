// Loop counter: last_o is high exactly in the last of the rounds that were loaded, for every count of the full width.
`default_nettype none

module loop_counter_proof #(
    parameter WIDTH = 16
) (
    input wire logic             clk_i,
    input wire logic             load_i,
    input wire logic [WIDTH-1:0] count_i,
    input wire logic             step_i
);

  logic last;
  loop_counter #(.WIDTH(WIDTH)) u_dut (
      .clk_i(clk_i), .load_i(load_i), .count_i(count_i), .one_i(count_i == WIDTH'(1)), .step_i(step_i), .last_o(last)
  );

  logic [WIDTH-1:0] count_q, round_q;  // rounds asked for, round that runs (from 1)
  logic running_q = 1'b0;
  always_ff @(posedge clk_i) begin
    if (load_i) begin
      running_q <= 1'b1;
      count_q   <= count_i;
      round_q   <= WIDTH'(1);
    end else if (running_q && step_i) begin
      round_q <= round_q + 1'b1;
      if (last) running_q <= 1'b0;
    end
  end

  (* hierconn *) logic [WIDTH-1:0] \u_dut.left_q ;
  always @(*) begin
    assume (count_i != '0);
    if (running_q) begin
      assert (last == (round_q == count_q));
      assert (round_q != '0 && round_q <= count_q);
      assert (\u_dut.left_q == count_q - round_q + 1'b1);
    end
    cover (running_q && last && count_q == WIDTH'(1));
    cover (running_q && last && count_q == WIDTH'(4));
  end

endmodule

`default_nettype wire
