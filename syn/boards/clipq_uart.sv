// CLIP-Q accelerator on a UART, for any board with two wires to a host.
//
// Purpose: a host with host/serial_link.py uses it like the accelerator on its bus.
// Latency, throughput: those of the UART; uart_bridge has the protocol.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module clipq_uart #(
    parameter int NUM_MODULES    = 4,
    parameter int PLANES         = 3,
    parameter int BANK_WORDS     = 8192,
    parameter int WEIGHT_WORDS   = 2048,
    parameter int CLOCKS_PER_BIT = 20,
    parameter int GAP_CYCLES     = 1 << 19
) (
    input  wire logic clk_i,
    input  wire logic rst_ni,
    input  wire logic rx_i,
    output wire logic tx_o,
    output wire logic irq_o
);

  logic        awvalid, awready, wvalid, wready, bvalid, bready, arvalid, arready, rvalid, rready;
  logic [11:0] awaddr, araddr;
  logic [2:0]  awprot, arprot;
  logic [31:0] wdata, rdata;
  logic [3:0]  wstrb;
  logic [1:0]  bresp, rresp;
  logic [63:0] prog_tdata, image_tdata, result_tdata;
  logic [7:0]  prog_tkeep, image_tkeep, unused_keep;  // the unused half of a result's last word is zero
  logic        prog_tvalid, prog_tready, prog_tlast, image_tvalid, image_tready, image_tlast;
  logic        result_tvalid, result_tready, result_tlast;

  uart_bridge #(
      .CLOCKS_PER_BIT(CLOCKS_PER_BIT),
      .GAP_CYCLES    (GAP_CYCLES)
  ) u_bridge (
      .clk_i               (clk_i),
      .rst_ni              (rst_ni),
      .rx_i                (rx_i),
      .tx_o                (tx_o),
      .m_axil_awvalid      (awvalid),
      .m_axil_awready      (awready),
      .m_axil_awaddr       (awaddr),
      .m_axil_awprot       (awprot),
      .m_axil_wvalid       (wvalid),
      .m_axil_wready       (wready),
      .m_axil_wdata        (wdata),
      .m_axil_wstrb        (wstrb),
      .m_axil_bvalid       (bvalid),
      .m_axil_bready       (bready),
      .m_axil_bresp        (bresp),
      .m_axil_arvalid      (arvalid),
      .m_axil_arready      (arready),
      .m_axil_araddr       (araddr),
      .m_axil_arprot       (arprot),
      .m_axil_rvalid       (rvalid),
      .m_axil_rready       (rready),
      .m_axil_rdata        (rdata),
      .m_axil_rresp        (rresp),
      .m_axis_prog_tdata   (prog_tdata),
      .m_axis_prog_tkeep   (prog_tkeep),
      .m_axis_prog_tvalid  (prog_tvalid),
      .m_axis_prog_tready  (prog_tready),
      .m_axis_prog_tlast   (prog_tlast),
      .m_axis_image_tdata  (image_tdata),
      .m_axis_image_tkeep  (image_tkeep),
      .m_axis_image_tvalid (image_tvalid),
      .m_axis_image_tready (image_tready),
      .m_axis_image_tlast  (image_tlast),
      .s_axis_result_tdata (result_tdata),
      .s_axis_result_tvalid(result_tvalid),
      .s_axis_result_tready(result_tready),
      .s_axis_result_tlast (result_tlast)
  );

  clipq_accel #(
      .NUM_MODULES (NUM_MODULES),
      .BANK_WORDS  (BANK_WORDS),
      .WEIGHT_WORDS(WEIGHT_WORDS),
      .PLANES      (PLANES)
  ) u_accel (
      .clk_i               (clk_i),
      .rst_ni              (rst_ni),
      .irq_o               (irq_o),
      .s_axil_awvalid      (awvalid),
      .s_axil_awready      (awready),
      .s_axil_awaddr       (awaddr),
      .s_axil_awprot       (awprot),
      .s_axil_wvalid       (wvalid),
      .s_axil_wready       (wready),
      .s_axil_wdata        (wdata),
      .s_axil_wstrb        (wstrb),
      .s_axil_bvalid       (bvalid),
      .s_axil_bready       (bready),
      .s_axil_bresp        (bresp),
      .s_axil_arvalid      (arvalid),
      .s_axil_arready      (arready),
      .s_axil_araddr       (araddr),
      .s_axil_arprot       (arprot),
      .s_axil_rvalid       (rvalid),
      .s_axil_rready       (rready),
      .s_axil_rdata        (rdata),
      .s_axil_rresp        (rresp),
      .s_axis_prog_tdata   (prog_tdata),
      .s_axis_prog_tkeep   (prog_tkeep),
      .s_axis_prog_tvalid  (prog_tvalid),
      .s_axis_prog_tready  (prog_tready),
      .s_axis_prog_tlast   (prog_tlast),
      .s_axis_image_tdata  (image_tdata),
      .s_axis_image_tkeep  (image_tkeep),
      .s_axis_image_tvalid (image_tvalid),
      .s_axis_image_tready (image_tready),
      .s_axis_image_tlast  (image_tlast),
      .m_axis_result_tdata (result_tdata),
      .m_axis_result_tkeep (unused_keep),
      .m_axis_result_tvalid(result_tvalid),
      .m_axis_result_tready(result_tready),
      .m_axis_result_tlast (result_tlast)
  );

endmodule

`default_nettype wire
