// Checker of an AXI4-Lite slave: one answer a request and none without, answers stable while stalled, every request
// answered in bounded time, reads and writes that wait together take turns.  The master is assumed to hold its requests
// until they are taken.
`default_nettype none

module axil_check #(
    parameter ADDR_W = 12,
    parameter LIMIT  = 6  // cycles, not counting those in which an answer waits for the master
) (
    input wire logic              clk_i,
    input wire logic              rst_ni,
    input wire logic              awvalid_i,
    input wire logic              awready_i,
    input wire logic [ADDR_W-1:0] awaddr_i,
    input wire logic              wvalid_i,
    input wire logic              wready_i,
    input wire logic [31:0]       wdata_i,
    input wire logic [3:0]        wstrb_i,
    input wire logic              bvalid_i,
    input wire logic              bready_i,
    input wire logic [1:0]        bresp_i,
    input wire logic              arvalid_i,
    input wire logic              arready_i,
    input wire logic [ADDR_W-1:0] araddr_i,
    input wire logic              rvalid_i,
    input wire logic              rready_i,
    input wire logic [31:0]       rdata_i,
    input wire logic [1:0]        rresp_i,
    output logic     [1:0]        aw_o,  // accepted and not answered
    output logic     [1:0]        w_o,
    output logic     [1:0]        ar_o,
    output logic     [3:0]        write_wait_o,
    output logic     [3:0]        read_wait_o,
    output logic     [1:0]        overtaken_o
);

  logic past_q = 1'b0, calm_q = 1'b0;
  logic [1:0] aw_q = '0, w_q = '0, ar_q = '0;
  logic [3:0] write_wait_q = '0, read_wait_q = '0;
  logic [1:0] overtaken_q = '0;  // writes answered while a read waited
  logic b_taken, r_taken;
  assign b_taken = bvalid_i && bready_i;
  assign r_taken = rvalid_i && rready_i;
  assign {aw_o, w_o, ar_o, write_wait_o, read_wait_o, overtaken_o} = {aw_q, w_q, ar_q, write_wait_q, read_wait_q,
      overtaken_q};

  // the cycle before
  logic aw_held_q, w_held_q, ar_held_q, b_held_q, r_held_q;
  logic [ADDR_W-1:0] awaddr_q, araddr_q;
  logic [35:0] w_data_q;
  logic [1:0] bresp_q;
  logic [33:0] r_q;

  always_ff @(posedge clk_i) begin
    past_q    <= 1'b1;
    calm_q    <= rst_ni;
    aw_held_q <= rst_ni && awvalid_i && !awready_i;
    w_held_q  <= rst_ni && wvalid_i && !wready_i;
    ar_held_q <= rst_ni && arvalid_i && !arready_i;
    b_held_q  <= rst_ni && bvalid_i && !bready_i;
    r_held_q  <= rst_ni && rvalid_i && !rready_i;
    awaddr_q  <= awaddr_i;
    araddr_q  <= araddr_i;
    w_data_q  <= {wdata_i, wstrb_i};
    bresp_q   <= bresp_i;
    r_q       <= {rdata_i, rresp_i};
    if (!rst_ni) begin
      {aw_q, w_q, ar_q, write_wait_q, read_wait_q, overtaken_q} <= '0;
    end else begin
      aw_q <= aw_q + 2'(awvalid_i && awready_i) - 2'(b_taken);
      w_q  <= w_q + 2'(wvalid_i && wready_i) - 2'(b_taken);
      ar_q <= ar_q + 2'(arvalid_i && arready_i) - 2'(r_taken);
      if (aw_q == '0 || w_q == '0 || b_taken) write_wait_q <= '0;
      else if (!(bvalid_i || rvalid_i) || (r_taken)) write_wait_q <= write_wait_q + 4'd1;
      if (ar_q == '0 || r_taken) read_wait_q <= '0;
      else if (!(bvalid_i || rvalid_i) || (b_taken)) read_wait_q <= read_wait_q + 4'd1;
      if (ar_q == '0 || r_taken) overtaken_q <= '0;
      else if (b_taken) overtaken_q <= overtaken_q + 2'd1;
    end
  end

  always @(*) begin
    if (past_q && aw_held_q) assume (awvalid_i && awaddr_i == awaddr_q);
    if (past_q && w_held_q) assume (wvalid_i && {wdata_i, wstrb_i} == w_data_q);
    if (past_q && ar_held_q) assume (arvalid_i && araddr_i == araddr_q);
    if (past_q && !calm_q) begin
      assert (!awready_i && !wready_i && !arready_i && !bvalid_i && !rvalid_i);  // nothing is taken or said in reset
    end
    if (past_q && rst_ni) begin
      assert (!bvalid_i || (aw_q != '0 && w_q != '0));
      assert (!rvalid_i || ar_q != '0);
      assert (aw_q <= 2'd2 && w_q <= 2'd2 && ar_q <= 2'd2);
      if (b_held_q) assert (bvalid_i && bresp_i == bresp_q);
      if (r_held_q) assert (rvalid_i && {rdata_i, rresp_i} == r_q);
      if (bvalid_i) assert (bresp_i == 2'b00 || bresp_i == 2'b10);
      if (rvalid_i) assert (rresp_i == 2'b00 || rresp_i == 2'b10);
      assert (write_wait_q < 4'(LIMIT));
      assert (read_wait_q < 4'(LIMIT));
      assert (overtaken_q <= 2'd1);  // a waiting read lets one write pass at most
    end
    cover (past_q && rst_ni && b_taken && b_held_q && bresp_i == 2'b10);
    cover (past_q && rst_ni && r_taken && r_held_q && rresp_i == 2'b00 && aw_q == 2'd1 && w_q == 2'd1);
  end

endmodule

`default_nettype wire
