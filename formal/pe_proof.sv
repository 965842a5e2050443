// Processing elements: in plane p (bit 0, bit 1, both bits of the index) a PE adds its activation to the sum if its
// index has that plane, and the offset of a signed layer in any case.
`default_nettype none

module pe_proof (
    input wire logic                            clk_i,
    input wire logic                            load_i,
    input wire logic [3:0]                      idx_i,
    input wire logic                            signed_i,
    input wire logic [7:0]                      x_i,
    input wire logic [7:0]                      y_i,
    input wire logic [2:0][cq_pkg::SUM_W-1:0]   sum_i
);

  localparam int W = cq_pkg::SUM_W;
  logic [2:0][W-1:0] single, pair;
  logic [8:0] x, y, xy;  // activations
  assign x  = {signed_i && x_i[7], x_i};
  assign y  = {signed_i && y_i[7], y_i};
  assign xy = x + y;
  pe u_pe (
      .clk_i(clk_i), .load_i(load_i), .idx_i(idx_i[1:0]), .signed_i(signed_i), .x_i(x_i), .sum_i(sum_i), .sum_o(single)
  );
  pe_pair u_pair (
      .clk_i(clk_i), .load_i(load_i), .idx_i(idx_i), .signed_i(signed_i), .x_i(x), .y_i(y), .xy_i(xy), .sum_i(sum_i),
      .sum_o(pair)
  );

  logic [3:0] idx_q;
  logic loaded_q = 1'b0, past_q = 1'b0, signed_q;
  logic [W-1:0] x_q, y_q;
  logic [2:0][W-1:0] sum_q;
  always_ff @(posedge clk_i) begin
    if (load_i) {loaded_q, idx_q} <= {1'b1, idx_i};
    past_q   <= loaded_q;
    signed_q <= signed_i;
    x_q      <= {{(W - 9) {signed_i && x_i[7]}}, x};
    y_q      <= {{(W - 9) {signed_i && y_i[7]}}, y};
    sum_q    <= sum_i;
  end
  logic [3:0] used_q;  // index in force when the inputs came
  always_ff @(posedge clk_i) used_q <= idx_q;

  function automatic logic in_plane(input logic [1:0] idx, input int plane);
    in_plane = (plane == 0) ? idx[0] : (plane == 1) ? idx[1] : idx == 2'd3;
  endfunction

  genvar p;
  generate
    for (p = 0; p < 3; p = p + 1) begin : g_plane
      logic [W-1:0] x_here, y_here;
      assign x_here = in_plane(used_q[1:0], p) ? x_q : '0;
      assign y_here = in_plane(used_q[3:2], p) ? y_q : '0;
      always @(*) begin
        assume (sum_i[p] < W'((1 << W) - 512));  // the sums of a module fit their lanes
        if (past_q) begin
          assert (single[p] == W'(sum_q[p] + x_here + (signed_q ? W'(128) : W'(0))));
          assert (pair[p] == W'(sum_q[p] + x_here + y_here + (signed_q ? W'(256) : W'(0))));
        end
      end
    end
  endgenerate

  // the gates hold the index
  function automatic logic [3*W-1:0] gates(input logic [1:0] idx);
    gates = {{W{&idx}}, {W{idx[1]}}, {W{idx[0]}}};
  endfunction
  (* hierconn *) logic [3*W-1:0] \u_pe.gate_q ;
  (* hierconn *) logic [3*W-1:0] \u_pair.gate_x_q ;
  (* hierconn *) logic [3*W-1:0] \u_pair.gate_y_q ;
  always @(*) begin
    if (loaded_q) assert (\u_pe.gate_q == gates(idx_q[1:0]) && \u_pair.gate_x_q == \u_pe.gate_q &&
        \u_pair.gate_y_q == gates(idx_q[3:2]));
    cover (past_q && used_q == 4'b1101 && x_q[W-1] && !y_q[W-1] && pair[2] != single[2]);
  end

endmodule

`default_nettype wire
