// Harness of the accelerator: connects it to models of the host's DMA engines (simulation only).
//
// Purpose: runs whole networks at the full speed of the simulator. Python loads the files of the streams, starts the
// engines, and waits for edges. With pins_i the streams are connected to s_axis_* and m_axis_result_* instead, and the
// engines stay idle. axis_* are the accelerator's stream ports for monitors, in both cases. cycles_o counts from the
// first beat accepted on an input stream of weights or images to the last result beat, as the product defines
// total_cycles. It does not depend on the accelerator's own counter. The engine of the weights also sends the program,
// before arm_i. counted_o are counts of each layer's last run at the pins of its units, likewise independent.
// Latency: none between the ports and the accelerator; that of dma_source and dma_sink with the engines.
// Throughput: one beat a cycle on each stream.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module accel_harness #(
    parameter NUM_MODULES  = 4,
    parameter BANK_WORDS   = 11264,
    parameter WEIGHT_WORDS = 2048,
    parameter PLANES       = 3,
    parameter WEIGHT_DEPTH = 1048576,
    parameter IMAGE_DEPTH  = 1048576,
    parameter RESULT_DEPTH = 1048576
) (
    input  wire logic        clk_i,
    input  wire logic        rst_ni,
    input  wire logic [31:0] seed_i,  // of the engines' pauses, taken at reset
    output wire logic        irq_o,

    input  wire logic        s_axil_awvalid,
    output wire logic        s_axil_awready,
    input  wire logic [11:0] s_axil_awaddr,
    input  wire logic [2:0]  s_axil_awprot,
    input  wire logic        s_axil_wvalid,
    output wire logic        s_axil_wready,
    input  wire logic [31:0] s_axil_wdata,
    input  wire logic [3:0]  s_axil_wstrb,
    output wire logic        s_axil_bvalid,
    input  wire logic        s_axil_bready,
    output wire logic [1:0]  s_axil_bresp,
    input  wire logic        s_axil_arvalid,
    output wire logic        s_axil_arready,
    input  wire logic [11:0] s_axil_araddr,
    input  wire logic [2:0]  s_axil_arprot,
    output wire logic        s_axil_rvalid,
    input  wire logic        s_axil_rready,
    output wire logic [31:0] s_axil_rdata,
    output wire logic [1:0]  s_axil_rresp,

    input  wire logic        pins_i,           // constant in a run
    input  wire logic [63:0] s_axis_prog_tdata,
    input  wire logic [7:0]  s_axis_prog_tkeep,
    input  wire logic        s_axis_prog_tvalid,
    output wire logic        s_axis_prog_tready,
    input  wire logic        s_axis_prog_tlast,
    input  wire logic [63:0] s_axis_image_tdata,
    input  wire logic [7:0]  s_axis_image_tkeep,
    input  wire logic        s_axis_image_tvalid,
    output wire logic        s_axis_image_tready,
    input  wire logic        s_axis_image_tlast,
    output wire logic [63:0] m_axis_result_tdata,
    output wire logic [7:0]  m_axis_result_tkeep,
    output wire logic        m_axis_result_tvalid,
    input  wire logic        m_axis_result_tready,
    output wire logic        m_axis_result_tlast,
    output wire logic [63:0] axis_prog_tdata,
    output wire logic [7:0]  axis_prog_tkeep,
    output wire logic        axis_prog_tvalid,
    output wire logic        axis_prog_tready,
    output wire logic        axis_prog_tlast,
    output wire logic [63:0] axis_image_tdata,
    output wire logic [7:0]  axis_image_tkeep,
    output wire logic        axis_image_tvalid,
    output wire logic        axis_image_tready,
    output wire logic        axis_image_tlast,
    output wire logic [63:0] axis_result_tdata,
    output wire logic [7:0]  axis_result_tkeep,
    output wire logic        axis_result_tvalid,
    output wire logic        axis_result_tready,
    output wire logic        axis_result_tlast,

    input  wire logic        prog_load_i,      // rising: read the stream's file
    input  wire logic        prog_go_i,
    input  wire logic [31:0] prog_base_i,
    input  wire logic [31:0] prog_beats_i,
    input  wire logic [15:0] prog_latency_i,
    input  wire logic [8:0]  prog_rate_i,
    input  wire logic [7:0]  prog_stall_i,
    input  wire logic [7:0]  prog_keep_i,      // TKEEP of one beat
    input  wire logic [31:0] prog_keep_at_i,      // that beat, by the number of those that follow it
    output wire logic        prog_busy_o,
    output wire logic [127:0] prog_monitor_o,  // since prog_go_i: see port_monitor
    input  wire logic        image_load_i,
    input  wire logic        image_go_i,
    input  wire logic [31:0] image_base_i,
    input  wire logic [31:0] image_beats_i,
    input  wire logic [15:0] image_latency_i,
    input  wire logic [8:0]  image_rate_i,
    input  wire logic [7:0]  image_stall_i,
    input  wire logic [7:0]  image_keep_i,
    input  wire logic [31:0] image_keep_at_i,
    output wire logic        image_busy_o,
    output wire logic [127:0] image_monitor_o,
    input  wire logic        result_clear_i,
    input  wire logic        result_dump_i,    // rising: write the results' file
    input  wire logic [8:0]  result_stall_i,
    output wire logic [31:0] result_beats_o,
    output wire logic [31:0] result_packets_o,
    output wire logic [31:0] result_errors_o,
    output wire logic [127:0] result_monitor_o,  // since result_clear_i
    input  wire logic        arm_i,            // the next beat in starts the count
    output wire logic [31:0] cycles_o,
    input  wire logic [5:0]  counted_layer_i,  // whose counts these are: see layer_monitor
    output wire logic [5:0][31:0] counted_o
);

  logic [63:0] dma_prog_tdata, dma_image_tdata;
  logic [7:0] dma_prog_tkeep, dma_image_tkeep;
  logic dma_prog_tvalid, dma_prog_tlast, dma_image_tvalid, dma_image_tlast, dma_result_tready;

  assign {axis_prog_tlast, axis_prog_tkeep, axis_prog_tdata, axis_prog_tvalid} = pins_i ?
      {s_axis_prog_tlast, s_axis_prog_tkeep, s_axis_prog_tdata, s_axis_prog_tvalid} :
      {dma_prog_tlast, dma_prog_tkeep, dma_prog_tdata, dma_prog_tvalid};
  assign {axis_image_tlast, axis_image_tkeep, axis_image_tdata, axis_image_tvalid} = pins_i ?
      {s_axis_image_tlast, s_axis_image_tkeep, s_axis_image_tdata, s_axis_image_tvalid} :
      {dma_image_tlast, dma_image_tkeep, dma_image_tdata, dma_image_tvalid};
  assign axis_result_tready   = pins_i ? m_axis_result_tready : dma_result_tready;
  assign s_axis_prog_tready   = axis_prog_tready;
  assign s_axis_image_tready  = axis_image_tready;
  assign m_axis_result_tdata  = axis_result_tdata;
  assign m_axis_result_tkeep  = axis_result_tkeep;
  assign m_axis_result_tvalid = axis_result_tvalid;
  assign m_axis_result_tlast  = axis_result_tlast;

  dma_source #(
      .FILE ("prog.hex"),
      .DEPTH(WEIGHT_DEPTH),
      .SEED (32'h13579bdf)
  ) u_prog (
      .clk_i        (clk_i),
      .rst_ni       (rst_ni),
      .seed_i       (seed_i),
      .load_i       (prog_load_i),
      .go_i         (prog_go_i),
      .base_i       (prog_base_i),
      .beats_i      (prog_beats_i),
      .latency_i    (prog_latency_i),
      .rate_i       (prog_rate_i),
      .stall_i      (prog_stall_i),
      .keep_i       (prog_keep_i),
      .keep_at_i    (prog_keep_at_i),
      .busy_o       (prog_busy_o),
      .m_axis_tdata (dma_prog_tdata),
      .m_axis_tkeep (dma_prog_tkeep),
      .m_axis_tvalid(dma_prog_tvalid),
      .m_axis_tready(axis_prog_tready && !pins_i),
      .m_axis_tlast (dma_prog_tlast)
  );

  dma_source #(
      .FILE ("image.hex"),
      .DEPTH(IMAGE_DEPTH),
      .SEED (32'h2468ace1)
  ) u_image (
      .clk_i        (clk_i),
      .rst_ni       (rst_ni),
      .seed_i       (seed_i),
      .load_i       (image_load_i),
      .go_i         (image_go_i),
      .base_i       (image_base_i),
      .beats_i      (image_beats_i),
      .latency_i    (image_latency_i),
      .rate_i       (image_rate_i),
      .stall_i      (image_stall_i),
      .keep_i       (image_keep_i),
      .keep_at_i    (image_keep_at_i),
      .busy_o       (image_busy_o),
      .m_axis_tdata (dma_image_tdata),
      .m_axis_tkeep (dma_image_tkeep),
      .m_axis_tvalid(dma_image_tvalid),
      .m_axis_tready(axis_image_tready && !pins_i),
      .m_axis_tlast (dma_image_tlast)
  );

  dma_sink #(
      .FILE ("result.hex"),
      .DEPTH(RESULT_DEPTH),
      .SEED (32'h0badcaff)
  ) u_result (
      .clk_i        (clk_i),
      .rst_ni       (rst_ni),
      .seed_i       (seed_i),
      .clear_i      (result_clear_i),
      .dump_i       (result_dump_i),
      .stall_i      (result_stall_i),
      .beats_o      (result_beats_o),
      .packets_o    (result_packets_o),
      .errors_o     (result_errors_o),
      .s_axis_tdata (axis_result_tdata),
      .s_axis_tkeep (axis_result_tkeep),
      .s_axis_tvalid(axis_result_tvalid && !pins_i),
      .s_axis_tready(dma_result_tready),
      .s_axis_tlast (axis_result_tlast)
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
      .s_axis_prog_tdata   (axis_prog_tdata),
      .s_axis_prog_tkeep   (axis_prog_tkeep),
      .s_axis_prog_tvalid  (axis_prog_tvalid),
      .s_axis_prog_tready  (axis_prog_tready),
      .s_axis_prog_tlast   (axis_prog_tlast),
      .s_axis_image_tdata  (axis_image_tdata),
      .s_axis_image_tkeep  (axis_image_tkeep),
      .s_axis_image_tvalid (axis_image_tvalid),
      .s_axis_image_tready (axis_image_tready),
      .s_axis_image_tlast  (axis_image_tlast),
      .m_axis_result_tdata (axis_result_tdata),
      .m_axis_result_tkeep (axis_result_tkeep),
      .m_axis_result_tvalid(axis_result_tvalid),
      .m_axis_result_tready(axis_result_tready),
      .m_axis_result_tlast (axis_result_tlast)
  );

  port_monitor u_prog_monitor (
      .clk_i    (clk_i),
      .rst_ni   (rst_ni),
      .clear_i  (prog_go_i),
      .valid_i  (axis_prog_tvalid),
      .ready_i  (axis_prog_tready),
      .last_i   (axis_prog_tlast),
      .monitor_o(prog_monitor_o)
  );

  port_monitor u_image_monitor (
      .clk_i    (clk_i),
      .rst_ni   (rst_ni),
      .clear_i  (image_go_i),
      .valid_i  (axis_image_tvalid),
      .ready_i  (axis_image_tready),
      .last_i   (axis_image_tlast),
      .monitor_o(image_monitor_o)
  );

  port_monitor u_result_monitor (
      .clk_i    (clk_i),
      .rst_ni   (rst_ni),
      .clear_i  (result_clear_i),
      .valid_i  (axis_result_tvalid),
      .ready_i  (axis_result_tready),
      .last_i   (axis_result_tlast),
      .monitor_o(result_monitor_o)
  );

  logic armed_q, counting_q;
  logic [31:0] now_q, cycles_q;
  logic beat_in, beat_out;
  assign beat_in  = (axis_prog_tvalid && axis_prog_tready) || (axis_image_tvalid && axis_image_tready);
  assign beat_out = axis_result_tvalid && axis_result_tready;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      armed_q    <= 1'b0;
      counting_q <= 1'b0;
    end else begin
      if (arm_i) armed_q <= 1'b1;
      else if (beat_in) armed_q <= 1'b0;
      if (armed_q && beat_in) begin
        counting_q <= 1'b1;
        now_q      <= 32'd2;  // this cycle is the first, the next the second
      end else begin
        now_q <= now_q + 32'd1;
      end
      if (counting_q && beat_out) cycles_q <= now_q;
    end
  end
  assign cycles_o = cycles_q;

`ifdef NETLIST  // has no such names inside
  assign counted_o = '0;
`else
  layer_monitor u_layer_monitor (
      .clk_i    (clk_i),
      .rst_ni   (rst_ni),
      .active_i (u_accel.layer_active),
      .end_i    (u_accel.layer_end),
      .layer_i  (u_accel.layer),
      .starved_i(u_accel.starved),
      .blocked_i(u_accel.blocked),
      .reads_i  (u_accel.rd_valid ? u_accel.rd_count : 4'd0),
      .writes_i (u_accel.wr_valid ? u_accel.wr_mask : 8'd0),
      .weight_i (u_accel.weight_re),
      .sel_i    (counted_layer_i),
      .counts_o (counted_o)
  );
`endif

endmodule

`default_nettype wire
