// Processing elements: in plane p (bit 0, bit 1, both bits of the index) a PE adds its activation to the running sum if
// its index has that plane.
`default_nettype none

module pe_proof #(
    parameter SUM_I_W = 14,
    parameter SUM_O_W = 15
) (
    input wire logic                    clk_i,
    input wire logic                    load_i,
    input wire logic [3:0]              idx_i,
    input wire logic signed [8:0]       x_i,
    input wire logic signed [8:0]       y_i,
    input wire logic [2:0][SUM_I_W-1:0] sum_i
);

  logic [2:0][SUM_O_W-1:0] single, pair;
  pe #(.SUM_I_W(SUM_I_W), .SUM_O_W(SUM_O_W)) u_pe (
      .clk_i(clk_i), .load_i(load_i), .idx_i(idx_i[1:0]), .x_i(x_i), .sum_i(sum_i), .sum_o(single)
  );
  logic signed [9:0] xy;
  assign xy = {x_i[8], x_i} + {y_i[8], y_i};
  pe_pair #(.SUM_I_W(SUM_I_W), .SUM_O_W(SUM_O_W)) u_pair (
      .clk_i(clk_i), .load_i(load_i), .idx_i(idx_i), .x_i(x_i), .y_i(y_i), .xy_i(xy), .sum_i(sum_i), .sum_o(pair)
  );

  logic [3:0] idx_q;
  logic loaded_q = 1'b0, past_q = 1'b0;
  logic signed [SUM_O_W-1:0] x_q, y_q;
  logic [2:0][SUM_I_W-1:0] sum_q;
  always_ff @(posedge clk_i) begin
    if (load_i) {loaded_q, idx_q} <= {1'b1, idx_i};
    past_q <= loaded_q;
    x_q    <= SUM_O_W'(x_i);
    y_q    <= SUM_O_W'(y_i);
    sum_q  <= sum_i;
  end
  logic [3:0] used_q;  // index in force when the inputs came
  always_ff @(posedge clk_i) used_q <= idx_q;

  function automatic logic in_plane(input logic [1:0] idx, input int plane);
    in_plane = (plane == 0) ? idx[0] : (plane == 1) ? idx[1] : idx == 2'd3;
  endfunction

  genvar p;
  generate
    for (p = 0; p < 3; p = p + 1) begin : g_plane
      logic [SUM_O_W-1:0] base, x, y;
      assign base = SUM_O_W'($signed(sum_q[p]));
      assign x    = in_plane(used_q[1:0], p) ? x_q : '0;
      assign y    = in_plane(used_q[3:2], p) ? y_q : '0;
      always @(*) if (past_q) begin
        assert (single[p] == SUM_O_W'(base + x));
        assert (pair[p] == SUM_O_W'(base + x + y));
      end
    end
  endgenerate

  // the gates hold the index
  (* hierconn *) logic [2:0] \u_pe.gate_q ;
  (* hierconn *) logic [2:0] \u_pair.gate_x_q ;
  (* hierconn *) logic [2:0] \u_pair.gate_y_q ;
  always @(*) begin
    if (loaded_q) assert (\u_pe.gate_q == {&idx_q[1:0], idx_q[1:0]} && \u_pair.gate_x_q == \u_pe.gate_q &&
        \u_pair.gate_y_q == {&idx_q[3:2], idx_q[3:2]});
    cover (past_q && used_q == 4'b1101 && x_q < 0 && y_q > 0 && pair[2] != single[2]);
  end

endmodule

`default_nettype wire
