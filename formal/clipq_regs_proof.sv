// Register block behind AXI4-Lite: the rules of axil_check at its port; the block answers in the cycle of the request
// and never stalls, as axil_slave relies on; CTRL's pulses last one cycle and come from a write to CTRL only; the
// interrupt line is high while an enabled event is set.
`default_nettype none

module clipq_regs_proof (
    input wire logic        clk_i,
    input wire logic        rst_ni,
    input wire logic        awvalid_i,
    input wire logic [11:0] awaddr_i,
    input wire logic        wvalid_i,
    input wire logic [31:0] wdata_i,
    input wire logic [3:0]  wstrb_i,
    input wire logic        bready_i,
    input wire logic        arvalid_i,
    input wire logic [11:0] araddr_i,
    input wire logic        rready_i,
    input wire logic [2:0]  event_i,
    input wire logic [31:0] live_i
);

  logic awready, wready, bvalid, arready, rvalid, start, stop, soft_reset, irq;
  logic [1:0] bresp, rresp, aw, w, ar;
  logic [31:0] rdata;
  logic [2:0] enable;
  logic [5:0] layer;

  clipq_regs u_dut (
      .clk(clk_i), .rst_n(rst_ni), .s_axil_awvalid(awvalid_i), .s_axil_awready(awready), .s_axil_awaddr(awaddr_i),
      .s_axil_awprot(3'b0),
      .s_axil_wvalid(wvalid_i), .s_axil_wready(wready), .s_axil_wdata(wdata_i), .s_axil_wstrb(wstrb_i),
      .s_axil_bvalid(bvalid),
      .s_axil_bready(bready_i), .s_axil_bresp(bresp), .s_axil_arvalid(arvalid_i), .s_axil_arready(arready),
      .s_axil_araddr(araddr_i),
      .s_axil_arprot(3'b0), .s_axil_rvalid(rvalid), .s_axil_rready(rready_i), .s_axil_rdata(rdata),
      .s_axil_rresp(rresp),
      .hwif_in_params_num_modules(live_i[7:0]), .hwif_in_params_tile_pixels(live_i[11:0]),
      .hwif_in_params_feature_kb(live_i[11:0]),
      .hwif_out_ctrl_start(start), .hwif_out_ctrl_stop(stop), .hwif_out_ctrl_soft_reset(soft_reset),
      .hwif_in_status_busy(live_i[0]),
      .hwif_in_status_done(live_i[1]), .hwif_in_status_error(live_i[2]), .hwif_in_status_prog_valid(live_i[3]),
      .hwif_in_status_result(live_i[4]),
      .hwif_in_error_code(live_i[7:0]), .hwif_in_error_layer(live_i[7:0]), .hwif_out_irq_status_intr(irq),
      .hwif_in_irq_status_done(event_i[0]), .hwif_in_irq_status_error(event_i[1]),
      .hwif_in_irq_status_stopped(event_i[2]),
      .hwif_out_irq_enable_done(enable[0]), .hwif_out_irq_enable_error(enable[1]),
      .hwif_out_irq_enable_stopped(enable[2]),
      .hwif_out_layer_sel_layer(layer), .hwif_in_layer_cycles_value(live_i), .hwif_in_layer_stalls_value(live_i),
      .hwif_in_layer_reads_value(live_i), .hwif_in_layer_writes_value(live_i), .hwif_in_layer_weights_value(live_i),
      .hwif_in_total_cycles_value(live_i), .hwif_in_images_done_value(live_i)
  );
  logic [3:0] write_wait, read_wait;
  logic [1:0] overtaken;
  axil_check #(.ADDR_W(12)) u_check (
      .clk_i(clk_i), .rst_ni(rst_ni), .awvalid_i(awvalid_i), .awready_i(awready), .awaddr_i(awaddr_i),
      .wvalid_i(wvalid_i),
      .wready_i(wready), .wdata_i(wdata_i), .wstrb_i(wstrb_i), .bvalid_i(bvalid), .bready_i(bready_i), .bresp_i(bresp),
      .arvalid_i(arvalid_i), .arready_i(arready), .araddr_i(araddr_i), .rvalid_i(rvalid), .rready_i(rready_i),
      .rdata_i(rdata),
      .rresp_i(rresp), .aw_o(aw), .w_o(w), .ar_o(ar), .write_wait_o(write_wait), .read_wait_o(read_wait),
      .overtaken_o(overtaken)
  );

  (* hierconn *) logic \u_dut.req_valid ;
  (* hierconn *) logic \u_dut.req_write ;
  (* hierconn *) logic [5:0] \u_dut.req_addr ;
  (* hierconn *) logic [31:0] \u_dut.req_wdata ;
  (* hierconn *) logic [31:0] \u_dut.req_mask ;
  (* hierconn *) logic \u_dut.rd_ack ;
  (* hierconn *) logic \u_dut.wr_ack ;
  (* hierconn *) logic \u_dut.stall_rd ;
  (* hierconn *) logic \u_dut.stall_wr ;

  logic past_q = 1'b0, ctrl_q = 1'b0;
  logic [2:0] asked_q;
  logic [2:0] events_q = '0, enable_q = '0;
  logic [31:0] write;
  assign write = \u_dut.req_wdata & \u_dut.req_mask ;
  always_ff @(posedge clk_i) begin
    past_q  <= 1'b1;
    ctrl_q  <= rst_ni && \u_dut.req_valid && \u_dut.req_write && \u_dut.req_addr == 6'h0c;
    asked_q <= write[2:0];
    if (!rst_ni) {events_q, enable_q} <= '0;
    else begin
      events_q <= (events_q & ~((\u_dut.req_valid && \u_dut.req_write &&
          \u_dut.req_addr == 6'h18) ? write[2:0] : 3'b0)) | event_i;
      if (\u_dut.req_valid && \u_dut.req_write && \u_dut.req_addr == 6'h1c)
        enable_q <= (enable_q & ~\u_dut.req_mask [2:0]) | write[2:0];
    end
  end

  (* hierconn *) logic \u_dut.u_block.field_storage_irq_status_done_value ;
  (* hierconn *) logic \u_dut.u_block.field_storage_irq_status_error_value ;
  (* hierconn *) logic \u_dut.u_block.field_storage_irq_status_stopped_value ;
  always @(*) if (past_q && rst_ni) begin
    assert (events_q == {\u_dut.u_block.field_storage_irq_status_stopped_value ,
        \u_dut.u_block.field_storage_irq_status_error_value ,
        \u_dut.u_block.field_storage_irq_status_done_value });
  end

  // invariants, as in axil_slave_proof
  (* hierconn *) logic [1:0] \u_dut.u_axil_slave.state_q ;
  (* hierconn *) logic \u_dut.u_axil_slave.write_q ;
  (* hierconn *) logic \u_dut.u_axil_slave.last_write_q ;
  (* hierconn *) logic \u_dut.u_axil_slave.init_q ;
  (* hierconn *) logic \u_dut.u_axil_slave.aw_full_q ;
  (* hierconn *) logic \u_dut.u_axil_slave.w_full_q ;
  (* hierconn *) logic \u_dut.u_axil_slave.ar_full_q ;
  localparam logic [1:0] IDLE = 2'd0, ANSWER = 2'd2;
  logic [1:0] state;
  logic writing, reading, init, last_write, ar_full;
  assign state      = \u_dut.u_axil_slave.state_q ;
  assign writing    = state != IDLE && \u_dut.u_axil_slave.write_q ;
  assign reading    = state != IDLE && !\u_dut.u_axil_slave.write_q ;
  assign init       = \u_dut.u_axil_slave.init_q ;
  assign last_write = \u_dut.u_axil_slave.last_write_q ;
  assign ar_full    = \u_dut.u_axil_slave.ar_full_q ;
  always @(*) if (past_q && rst_ni) begin
    assert (state <= ANSWER);
    assert (!init || (state == IDLE && \u_dut.u_axil_slave.aw_full_q && \u_dut.u_axil_slave.w_full_q && ar_full &&
        !last_write));
    assert (aw == 2'(\u_dut.u_axil_slave.aw_full_q && !init) + 2'(writing));
    assert (w == 2'(\u_dut.u_axil_slave.w_full_q && !init) + 2'(writing));
    assert (ar == 2'(ar_full && !init) + 2'(reading));
    if (writing) assert (last_write);
    if (reading) assert (!last_write);
    if (overtaken != '0) assert (reading || (state == IDLE && last_write && ar_full && !init));
    assert (write_wait <= (writing ? (state == ANSWER ? 4'd5 : 4'd4) : reading ? (state == ANSWER ? 4'd2 : 4'd1)
        : last_write ? 4'd0 : 4'd3));
    assert (read_wait <= (reading ? (state == ANSWER ? 4'd5 : 4'd4) : writing ? (state == ANSWER ? 4'd2 : 4'd1)
        : last_write ? 4'd3 : 4'd0));
  end

  always @(*) begin
    if (!past_q) assume (!rst_ni);
    if (past_q && rst_ni) begin
      if (\u_dut.req_valid ) assert ((\u_dut.req_write ? \u_dut.wr_ack : \u_dut.rd_ack ) && !\u_dut.stall_rd &&
          !\u_dut.stall_wr );
      assert ({soft_reset, stop, start} == (ctrl_q ? asked_q : 3'b0));
      assert (enable == enable_q);
      assert (irq == ((events_q & enable_q) != '0));
    end
    cover (past_q && rst_ni && irq && start);
  end

endmodule

`default_nettype wire
