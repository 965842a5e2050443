// Serial multiplier: COUNT_W + 1 cycles after a start, and from then on, the product or, where that is too large, the
// largest number; whatever ran before.
//
// The reference adds the shifted factor in registers that hold every product.  Where SMALL, its sum is compared with a
// multiplication as well: solvers find wide multipliers equal to nothing else.
`default_nettype none

module serial_multiplier_proof #(
    parameter COUNT_W   = 8,
    parameter FACTOR_W  = 4,
    parameter PRODUCT_W = 12,
    parameter SMALL     = 1
) (
    input wire logic                clk_i,
    input wire logic                start_i,
    input wire logic [COUNT_W-1:0]  count_i,
    input wire logic [FACTOR_W-1:0] factor_i
);

  localparam int WIDE = COUNT_W + FACTOR_W + 1;  // holds the factor after its last shift, and every PRODUCT_W
  localparam int REF_W = (WIDE > PRODUCT_W) ? WIDE : PRODUCT_W + 1;

  logic [PRODUCT_W-1:0] product;
  serial_multiplier #(.COUNT_W(COUNT_W), .FACTOR_W(FACTOR_W), .PRODUCT_W(PRODUCT_W)) u_dut (
      .clk_i(clk_i), .start_i(start_i), .count_i(count_i), .factor_i(factor_i), .product_o(product)
  );
  (* hierconn *) logic [COUNT_W-1:0] \u_dut.count_q ;
  (* hierconn *) logic [PRODUCT_W-1:0] \u_dut.factor_q ;
  (* hierconn *) logic [PRODUCT_W-1:0] \u_dut.sum_q ;
  (* hierconn *) logic \u_dut.large_q ;
  (* hierconn *) logic \u_dut.clamped_q ;

  logic running_q = 1'b0;
  logic [COUNT_W-1:0] count_q;
  logic [FACTOR_W-1:0] factor_q;
  logic [5:0] done_q;  // bits of the count that have been taken
  logic [REF_W-1:0] shifted, total_q;
  assign shifted = REF_W'(factor_q) << done_q;

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      running_q <= 1'b1;
      count_q   <= count_i;
      factor_q  <= factor_i;
      done_q    <= '0;
      total_q   <= '0;
    end else if (done_q != 6'(COUNT_W)) begin
      done_q  <= done_q + 6'd1;
      total_q <= total_q + (count_q[done_q] ? shifted : '0);
    end
  end

  logic [REF_W-1:0] most;
  assign most = {{(REF_W - PRODUCT_W) {1'b0}}, {PRODUCT_W{1'b1}}};

  always @(*) begin
    if (running_q) begin
      if (done_q == 6'(COUNT_W)) assert (product == ((total_q > most) ? most[PRODUCT_W-1:0] : total_q[PRODUCT_W-1:0]));
      // what ties the registers to the reference's
      assert (done_q <= 6'(COUNT_W));
      assert (\u_dut.count_q == count_q >> done_q);
      if (done_q != 6'(COUNT_W)) assert (\u_dut.factor_q == shifted[PRODUCT_W-1:0] &&
          \u_dut.large_q == (shifted > most));
      assert (\u_dut.sum_q == total_q[PRODUCT_W-1:0] && \u_dut.clamped_q == (total_q > most));
      assert (total_q < ({{(REF_W - FACTOR_W) {1'b0}}, factor_q} + 1'b1) << done_q);
    end
    cover (running_q && done_q == 6'(COUNT_W) && &count_q && &factor_q);
    cover (running_q && done_q == 6'(COUNT_W) && product != '0 && !(&product));
  end

  generate
    if (COUNT_W + FACTOR_W > PRODUCT_W) begin : g_clamped
      always @(*) cover (running_q && done_q == 6'(COUNT_W) && total_q > most);
    end
    if (SMALL != 0) begin : g_small
      logic [COUNT_W-1:0] taken;
      assign taken = count_q & ~({COUNT_W{1'b1}} << done_q);
      always @(*) if (running_q) assert (total_q == REF_W'(taken) * REF_W'(factor_q));
    end
  endgenerate

endmodule

`default_nettype wire
