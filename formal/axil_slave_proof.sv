// AXI4-Lite slave: the rules of axil_check; each access that is not refused becomes exactly one request with its
// address and data, and its answer is the one that the register block gave.
`default_nettype none

module axil_slave_proof #(
    parameter AXIL_ADDR_W = 5,
    parameter ADDR_W      = 3
) (
    input wire logic                   clk_i,
    input wire logic                   rst_ni,
    input wire logic                   awvalid_i,
    input wire logic [AXIL_ADDR_W-1:0] awaddr_i,
    input wire logic                   wvalid_i,
    input wire logic [31:0]            wdata_i,
    input wire logic [3:0]             wstrb_i,
    input wire logic                   bready_i,
    input wire logic                   arvalid_i,
    input wire logic [AXIL_ADDR_W-1:0] araddr_i,
    input wire logic                   rready_i,
    input wire logic [31:0]            rsp_rdata_i,
    input wire logic                   rsp_err_i
);

  logic awready, wready, bvalid, arready, rvalid, req_valid, req_write;
  logic [1:0] bresp, rresp, aw, w, ar;
  logic [31:0] rdata, req_wdata, req_mask;
  logic [ADDR_W-1:0] req_addr;

  axil_slave #(.AXIL_ADDR_W(AXIL_ADDR_W), .ADDR_W(ADDR_W)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .s_axil_awvalid(awvalid_i), .s_axil_awready(awready), .s_axil_awaddr(awaddr_i),
      .s_axil_wvalid(wvalid_i), .s_axil_wready(wready), .s_axil_wdata(wdata_i), .s_axil_wstrb(wstrb_i),
      .s_axil_bvalid(bvalid),
      .s_axil_bready(bready_i), .s_axil_bresp(bresp), .s_axil_arvalid(arvalid_i), .s_axil_arready(arready),
      .s_axil_araddr(araddr_i),
      .s_axil_rvalid(rvalid), .s_axil_rready(rready_i), .s_axil_rdata(rdata), .s_axil_rresp(rresp),
      .req_valid_o(req_valid),
      .req_write_o(req_write), .req_addr_o(req_addr), .req_wdata_o(req_wdata), .req_mask_o(req_mask),
      .rsp_rdata_i(rsp_rdata_i),
      .rsp_err_i(rsp_err_i)
  );
  logic [3:0] write_wait, read_wait;
  logic [1:0] overtaken;
  axil_check #(.ADDR_W(AXIL_ADDR_W)) u_check (
      .clk_i(clk_i), .rst_ni(rst_ni), .awvalid_i(awvalid_i), .awready_i(awready), .awaddr_i(awaddr_i),
      .wvalid_i(wvalid_i),
      .wready_i(wready), .wdata_i(wdata_i), .wstrb_i(wstrb_i), .bvalid_i(bvalid), .bready_i(bready_i), .bresp_i(bresp),
      .arvalid_i(arvalid_i), .arready_i(arready), .araddr_i(araddr_i), .rvalid_i(rvalid), .rready_i(rready_i),
      .rdata_i(rdata),
      .rresp_i(rresp), .aw_o(aw), .w_o(w), .ar_o(ar), .write_wait_o(write_wait), .read_wait_o(read_wait),
      .overtaken_o(overtaken)
  );

  // The oldest access of each kind that was accepted and not answered (the slave holds one waiting and one in
  // progress).
  logic past_q = 1'b0;
  logic [1:0][AXIL_ADDR_W-1:0] aw_addr_q, ar_addr_q;
  logic [1:0][35:0] w_data_q;
  logic asked_q = 1'b0;  // the register block was asked for the access in progress
  logic [32:0] said_q;
  logic b_taken, r_taken;
  assign b_taken = bvalid && bready_i;
  assign r_taken = rvalid && rready_i;
  always_ff @(posedge clk_i) begin
    past_q <= 1'b1;
    if (b_taken) {aw_addr_q[0], w_data_q[0]} <= {aw_addr_q[1], w_data_q[1]};
    if (r_taken) ar_addr_q[0] <= ar_addr_q[1];
    if (awvalid_i && awready) begin
      if (aw - 2'(b_taken) == 2'd0) aw_addr_q[0] <= awaddr_i;
      else aw_addr_q[1] <= awaddr_i;
    end
    if (wvalid_i && wready) begin
      if (w - 2'(b_taken) == 2'd0) w_data_q[0] <= {wdata_i, wstrb_i};
      else w_data_q[1] <= {wdata_i, wstrb_i};
    end
    if (arvalid_i && arready) begin
      if (ar - 2'(r_taken) == 2'd0) ar_addr_q[0] <= araddr_i;
      else ar_addr_q[1] <= araddr_i;
    end
    if (!rst_ni || b_taken || r_taken) asked_q <= 1'b0;
    else if (req_valid) begin
      asked_q <= 1'b1;
      said_q  <= {rsp_err_i, rsp_rdata_i};
    end
  end

  logic write_mapped, read_mapped;
  assign write_mapped = aw_addr_q[0][AXIL_ADDR_W-1:ADDR_W] == '0;
  assign read_mapped  = ar_addr_q[0][AXIL_ADDR_W-1:ADDR_W] == '0;
  (* hierconn *) logic [1:0] \u_dut.state_q ;
  (* hierconn *) logic \u_dut.write_q ;
  (* hierconn *) logic \u_dut.last_write_q ;
  (* hierconn *) logic \u_dut.init_q ;
  (* hierconn *) logic \u_dut.request_q ;
  (* hierconn *) logic \u_dut.aw_full_q ;
  (* hierconn *) logic \u_dut.w_full_q ;
  (* hierconn *) logic \u_dut.ar_full_q ;
  (* hierconn *) logic \u_dut.unmapped_q ;
  (* hierconn *) logic [AXIL_ADDR_W-1:2] \u_dut.aw_addr_q ;
  (* hierconn *) logic [AXIL_ADDR_W-1:2] \u_dut.ar_addr_q ;
  (* hierconn *) logic [31:0] \u_dut.w_data_q ;
  (* hierconn *) logic [3:0] \u_dut.w_strb_q ;
  localparam logic [1:0] IDLE = 2'd0, REQUEST = 2'd1, ANSWER = 2'd2;
  logic [1:0] state;
  logic writing, reading, mapped;  // access in progress
  assign state   = \u_dut.state_q ;
  assign writing = state != IDLE && \u_dut.write_q ;
  assign reading = state != IDLE && !\u_dut.write_q ;
  assign mapped  = writing ? write_mapped : read_mapped;
  always @(*) if (past_q && rst_ni) begin
    assert (state <= ANSWER);
    assert (!\u_dut.init_q || (state == IDLE && \u_dut.aw_full_q && \u_dut.w_full_q && \u_dut.ar_full_q &&
        !\u_dut.last_write_q ));
    assert (aw == 2'(\u_dut.aw_full_q && !\u_dut.init_q ) + 2'(writing));
    assert (w == 2'(\u_dut.w_full_q && !\u_dut.init_q ) + 2'(writing));
    assert (ar == 2'(\u_dut.ar_full_q && !\u_dut.init_q ) + 2'(reading));
    if (\u_dut.aw_full_q && !\u_dut.init_q ) assert (\u_dut.aw_addr_q == aw_addr_q[writing][AXIL_ADDR_W-1:2]);
    if (\u_dut.w_full_q && !\u_dut.init_q ) assert ({\u_dut.w_data_q , \u_dut.w_strb_q } == w_data_q[writing]);
    if (\u_dut.ar_full_q && !\u_dut.init_q ) assert (\u_dut.ar_addr_q == ar_addr_q[reading][AXIL_ADDR_W-1:2]);
    assert (\u_dut.request_q == (state == REQUEST && mapped));
    if (state == REQUEST) assert (\u_dut.unmapped_q == !mapped);
    assert (asked_q == (state == ANSWER && mapped));
    if (writing) assert (\u_dut.last_write_q );
    if (reading) assert (!\u_dut.last_write_q );
    if (overtaken != '0) assert (reading || (state == IDLE && \u_dut.last_write_q && \u_dut.ar_full_q &&
        !\u_dut.init_q ));
    assert (write_wait <= (writing ? (state == ANSWER ? 4'd5 : 4'd4) : reading ? (state == ANSWER ? 4'd2 : 4'd1)
        : \u_dut.last_write_q ? 4'd0 : 4'd3));
    assert (read_wait <= (reading ? (state == ANSWER ? 4'd5 : 4'd4) : writing ? (state == ANSWER ? 4'd2 : 4'd1)
        : \u_dut.last_write_q ? 4'd3 : 4'd0));
  end

  always @(*) begin
    if (!past_q) assume (!rst_ni);
    if (past_q && rst_ni) begin
      if (req_valid) begin
        assert (!asked_q && !bvalid && !rvalid);
        if (req_write) begin
          assert (aw != '0 && w != '0 && write_mapped);
          assert (req_addr == {aw_addr_q[0][ADDR_W-1:2], 2'b00} && req_wdata == w_data_q[0][35:4]);
          assert (req_mask == {{8{w_data_q[0][3]}}, {8{w_data_q[0][2]}}, {8{w_data_q[0][1]}}, {8{w_data_q[0][0]}}});
        end else begin
          assert (ar != '0 && read_mapped && req_addr == {ar_addr_q[0][ADDR_W-1:2], 2'b00});
        end
      end
      if (bvalid) assert (asked_q == write_mapped && bresp == ((!write_mapped || said_q[32]) ? 2'b10 : 2'b00));
      if (rvalid) begin
        assert (asked_q == read_mapped && rresp == ((!read_mapped || said_q[32]) ? 2'b10 : 2'b00));
        assert (rdata == (rresp == 2'b00 ? said_q[31:0] : 32'b0));
      end
      assert (!(bvalid && rvalid));
    end
  end

endmodule

`default_nettype wire
