// Skid buffer: every word once and in order, output stable while stalled, ready again as soon as there is room.
`default_nettype none

module skid_buffer_proof #(
    parameter WIDTH = 2
) (
    input wire logic             clk_i,
    input wire logic             rst_ni,
    input wire logic             pick_i,
    input wire logic             in_valid_i,
    input wire logic [WIDTH-1:0] in_data_i,
    input wire logic             out_ready_i
);

  logic in_ready, out_valid, follow;
  logic [WIDTH-1:0] out_data, data;
  logic [1:0] level, ahead;

  skid_buffer #(.WIDTH(WIDTH)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .in_valid_i(in_valid_i), .in_ready_o(in_ready), .in_data_i(in_data_i),
      .out_valid_o(out_valid), .out_ready_i(out_ready_i), .out_data_o(out_data)
  );
  order_check #(.WIDTH(WIDTH), .CAPACITY(2)) u_order (
      .clk_i(clk_i), .rst_ni(rst_ni), .flush_i(1'b0), .keep_i(1'b0), .pick_i(pick_i), .in_valid_i(in_valid_i),
      .in_ready_i(in_ready), .in_data_i(in_data_i),
      .out_valid_i(out_valid), .out_ready_i(out_ready_i), .out_data_i(out_data),
      .level_o(level), .follow_o(follow), .ahead_o(ahead), .data_o(data)
  );

  logic past_q = 1'b0, room_q, reset_q;
  always_ff @(posedge clk_i) begin
    past_q  <= 1'b1;
    reset_q <= !rst_ni;
    room_q  <= rst_ni && level < 2'd2 && in_ready && (!in_valid_i || out_ready_i);
  end

  (* hierconn *) logic \u_dut.skid_valid_q ;
  (* hierconn *) logic [WIDTH-1:0] \u_dut.skid_data_q ;

  always @(*) begin
    if (!past_q) assume (!rst_ni);
    if (past_q && reset_q) assert (!in_ready);
    if (past_q && room_q && rst_ni) assert (in_ready);  // full throughput
    // invariants
    if (past_q && rst_ni) begin
      assert (level == 2'(out_valid) + 2'(\u_dut.skid_valid_q ));
      assert (out_valid || !\u_dut.skid_valid_q );
      assert (!in_ready || !\u_dut.skid_valid_q );
      if (follow) assert (ahead == 2'd0 ? out_data == data : \u_dut.skid_data_q == data);
    end
  end

endmodule

`default_nettype wire
