// The accelerator as a block of Vivado's IP integrator.
//
// Purpose: plain Verilog with the attributes by which IP integrator knows its interfaces. A DMA engine stores whole
// words: the unused half of a result's last word is zero.
// Latency, throughput: those of clipq_accel.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module clipq_axi #(
    parameter NUM_MODULES  = 4,
    parameter PLANES       = 3,
    parameter BANK_WORDS   = 11264,
    parameter WEIGHT_WORDS = 2048
) (
    (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 aclk CLK",
       X_INTERFACE_PARAMETER =
           "ASSOCIATED_BUSIF s_axil:s_axis_prog:s_axis_image:m_axis_result, ASSOCIATED_RESET aresetn" *)
    input  wire        aclk,
    (* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 aresetn RST", X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)
    input  wire        aresetn,
    (* X_INTERFACE_INFO = "xilinx.com:signal:interrupt:1.0 irq INTERRUPT",
       X_INTERFACE_PARAMETER = "SENSITIVITY LEVEL_HIGH" *)
    output wire        irq,

    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil AWVALID",
       X_INTERFACE_PARAMETER = "PROTOCOL AXI4LITE, ADDR_WIDTH 12, DATA_WIDTH 32" *)
    input  wire        s_axil_awvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil AWREADY" *)
    output wire        s_axil_awready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil AWADDR" *)
    input  wire [11:0] s_axil_awaddr,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil AWPROT" *)
    input  wire [2:0]  s_axil_awprot,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil WVALID" *)
    input  wire        s_axil_wvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil WREADY" *)
    output wire        s_axil_wready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil WDATA" *)
    input  wire [31:0] s_axil_wdata,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil WSTRB" *)
    input  wire [3:0]  s_axil_wstrb,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil BVALID" *)
    output wire        s_axil_bvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil BREADY" *)
    input  wire        s_axil_bready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil BRESP" *)
    output wire [1:0]  s_axil_bresp,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil ARVALID" *)
    input  wire        s_axil_arvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil ARREADY" *)
    output wire        s_axil_arready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil ARADDR" *)
    input  wire [11:0] s_axil_araddr,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil ARPROT" *)
    input  wire [2:0]  s_axil_arprot,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil RVALID" *)
    output wire        s_axil_rvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil RREADY" *)
    input  wire        s_axil_rready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil RDATA" *)
    output wire [31:0] s_axil_rdata,
    (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil RRESP" *)
    output wire [1:0]  s_axil_rresp,

    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis_prog TDATA",
       X_INTERFACE_PARAMETER = "TDATA_NUM_BYTES 8, HAS_TKEEP 1, HAS_TLAST 1" *)
    input  wire [63:0] s_axis_prog_tdata,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis_prog TKEEP" *)
    input  wire [7:0]  s_axis_prog_tkeep,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis_prog TVALID" *)
    input  wire        s_axis_prog_tvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis_prog TREADY" *)
    output wire        s_axis_prog_tready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis_prog TLAST" *)
    input  wire        s_axis_prog_tlast,

    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis_image TDATA",
       X_INTERFACE_PARAMETER = "TDATA_NUM_BYTES 8, HAS_TKEEP 1, HAS_TLAST 1" *)
    input  wire [63:0] s_axis_image_tdata,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis_image TKEEP" *)
    input  wire [7:0]  s_axis_image_tkeep,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis_image TVALID" *)
    input  wire        s_axis_image_tvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis_image TREADY" *)
    output wire        s_axis_image_tready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 s_axis_image TLAST" *)
    input  wire        s_axis_image_tlast,

    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 m_axis_result TDATA",
       X_INTERFACE_PARAMETER = "TDATA_NUM_BYTES 8, HAS_TKEEP 1, HAS_TLAST 1" *)
    output wire [63:0] m_axis_result_tdata,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 m_axis_result TKEEP" *)
    output wire [7:0]  m_axis_result_tkeep,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 m_axis_result TVALID" *)
    output wire        m_axis_result_tvalid,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 m_axis_result TREADY" *)
    input  wire        m_axis_result_tready,
    (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 m_axis_result TLAST" *)
    output wire        m_axis_result_tlast
);

  wire [7:0] unused_keep;
  assign m_axis_result_tkeep = 8'hff;

  clipq_accel #(
      .NUM_MODULES (NUM_MODULES),
      .BANK_WORDS  (BANK_WORDS),
      .WEIGHT_WORDS(WEIGHT_WORDS),
      .PLANES      (PLANES)
  ) u_accel (
      .clk_i               (aclk),
      .rst_ni              (aresetn),
      .irq_o               (irq),
      .s_axil_awvalid      (s_axil_awvalid),
      .s_axil_awready      (s_axil_awready),
      .s_axil_awaddr       (s_axil_awaddr),
      .s_axil_awprot       (s_axil_awprot),
      .s_axil_wvalid       (s_axil_wvalid),
      .s_axil_wready       (s_axil_wready),
      .s_axil_wdata        (s_axil_wdata),
      .s_axil_wstrb        (s_axil_wstrb),
      .s_axil_bvalid       (s_axil_bvalid),
      .s_axil_bready       (s_axil_bready),
      .s_axil_bresp        (s_axil_bresp),
      .s_axil_arvalid      (s_axil_arvalid),
      .s_axil_arready      (s_axil_arready),
      .s_axil_araddr       (s_axil_araddr),
      .s_axil_arprot       (s_axil_arprot),
      .s_axil_rvalid       (s_axil_rvalid),
      .s_axil_rready       (s_axil_rready),
      .s_axil_rdata        (s_axil_rdata),
      .s_axil_rresp        (s_axil_rresp),
      .s_axis_prog_tdata   (s_axis_prog_tdata),
      .s_axis_prog_tkeep   (s_axis_prog_tkeep),
      .s_axis_prog_tvalid  (s_axis_prog_tvalid),
      .s_axis_prog_tready  (s_axis_prog_tready),
      .s_axis_prog_tlast   (s_axis_prog_tlast),
      .s_axis_image_tdata  (s_axis_image_tdata),
      .s_axis_image_tkeep  (s_axis_image_tkeep),
      .s_axis_image_tvalid (s_axis_image_tvalid),
      .s_axis_image_tready (s_axis_image_tready),
      .s_axis_image_tlast  (s_axis_image_tlast),
      .m_axis_result_tdata (m_axis_result_tdata),
      .m_axis_result_tkeep (unused_keep),
      .m_axis_result_tvalid(m_axis_result_tvalid),
      .m_axis_result_tready(m_axis_result_tready),
      .m_axis_result_tlast (m_axis_result_tlast)
  );

endmodule

`default_nettype wire
