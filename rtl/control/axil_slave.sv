// AXI4-Lite slave in front of a register block with a simple request port.
//
// Purpose: registers all paths between the bus and the block. It handles one access at a time; simultaneous reads and
// writes take turns. An address beyond the block is answered with SLVERR. The register block answers in the cycle of
// the request: rsp_err_i and rsp_rdata_i belong to the current request.
// Latency: 2 cycles from the last handshake of AW and W (or from that of AR) to the request, 1 more to the answer on B
// or R.
// Throughput: one access in three cycles.
`default_nettype none
`timescale 1ns / 1ps

module axil_slave #(
    parameter int AXIL_ADDR_W = 12,
    parameter int ADDR_W      = 6    // of the register block, bytes
) (
    input  wire logic                   clk_i,
    input  wire logic                   rst_ni,

    input  wire logic                   s_axil_awvalid,
    output logic                        s_axil_awready,
    /* verilator lint_off UNUSEDSIGNAL */  // accesses are of whole words
    input  wire logic [AXIL_ADDR_W-1:0] s_axil_awaddr,
    /* verilator lint_on UNUSEDSIGNAL */
    input  wire logic                   s_axil_wvalid,
    output logic                        s_axil_wready,
    input  wire logic [31:0]            s_axil_wdata,
    input  wire logic [3:0]             s_axil_wstrb,
    output logic                        s_axil_bvalid,
    input  wire logic                   s_axil_bready,
    output logic      [1:0]             s_axil_bresp,
    input  wire logic                   s_axil_arvalid,
    output logic                        s_axil_arready,
    /* verilator lint_off UNUSEDSIGNAL */  // accesses are of whole words
    input  wire logic [AXIL_ADDR_W-1:0] s_axil_araddr,
    /* verilator lint_on UNUSEDSIGNAL */
    output logic                        s_axil_rvalid,
    input  wire logic                   s_axil_rready,
    output logic      [31:0]            s_axil_rdata,
    output logic      [1:0]             s_axil_rresp,

    output logic                        req_valid_o,  // pulse
    output logic                        req_write_o,
    output logic      [ADDR_W-1:0]      req_addr_o,   // of a word: the lowest two bits are 0
    output logic      [31:0]            req_wdata_o,
    output logic      [31:0]            req_mask_o,   // bits to write
    input  wire logic [31:0]            rsp_rdata_i,
    input  wire logic                   rsp_err_i
);

  localparam logic [1:0] OKAY   = 2'b00;
  localparam logic [1:0] SLVERR = 2'b10;

  localparam logic [1:0] ST_IDLE    = 2'd0;
  localparam logic [1:0] ST_REQUEST = 2'd1;
  localparam logic [1:0] ST_ANSWER  = 2'd2;

`ifndef YOSYS
  initial
    if (ADDR_W < 3 || AXIL_ADDR_W <= ADDR_W)
      $fatal(1, "axil_slave: ADDR_W %0d must be >= 3 and AXIL_ADDR_W %0d larger", ADDR_W, AXIL_ADDR_W);
`endif

  // -------------------------------------------------------------------------------------------- accepted, not done
  logic                   aw_full_q, w_full_q, ar_full_q;
  logic [AXIL_ADDR_W-1:2] aw_addr_q, ar_addr_q;
  logic [31:0]            w_data_q;
  logic [3:0]             w_strb_q;
  logic                   start_write, start_read;

  assign s_axil_awready = !aw_full_q;
  assign s_axil_wready  = !w_full_q;
  assign s_axil_arready = !ar_full_q;

  // full in reset, so that nothing is accepted there; the first cycle after it empties them
  logic init_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      init_q    <= 1'b1;
      aw_full_q <= 1'b1;
      w_full_q  <= 1'b1;
      ar_full_q <= 1'b1;
    end else begin
      init_q <= 1'b0;
      if (init_q || start_write) aw_full_q <= 1'b0;
      else if (s_axil_awvalid) aw_full_q <= 1'b1;
      if (init_q || start_write) w_full_q <= 1'b0;
      else if (s_axil_wvalid) w_full_q <= 1'b1;
      if (init_q || start_read) ar_full_q <= 1'b0;
      else if (s_axil_arvalid) ar_full_q <= 1'b1;
    end
  end

  always_ff @(posedge clk_i) begin
    if (!aw_full_q) aw_addr_q <= s_axil_awaddr[AXIL_ADDR_W-1:2];
    if (!ar_full_q) ar_addr_q <= s_axil_araddr[AXIL_ADDR_W-1:2];
    if (!w_full_q) begin
      w_data_q <= s_axil_wdata;
      w_strb_q <= s_axil_wstrb;
    end
  end

  // ------------------------------------------------------------------------------------------ one access at a time
  logic [1:0]             state_q;
  logic                   write_q, last_write_q;
  logic                   write_waits, read_waits;
  logic [AXIL_ADDR_W-1:2] next_addr;
  logic                   unmapped_q, request_q;
  logic [ADDR_W-1:2]      addr_q;
  logic [31:0]            wdata_q, mask_q, rdata_q;
  logic                   err_q;
  logic                   answered;

  assign write_waits = aw_full_q && w_full_q && !init_q;
  assign read_waits  = ar_full_q && !init_q;
  assign start_read  = state_q == ST_IDLE && read_waits && (last_write_q || !write_waits);
  assign start_write = state_q == ST_IDLE && write_waits && !start_read;
  assign next_addr   = start_read ? ar_addr_q : aw_addr_q;
  assign answered    = write_q ? s_axil_bready : s_axil_rready;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q      <= ST_IDLE;
      request_q    <= 1'b0;
      write_q      <= 1'b0;
      last_write_q <= 1'b0;
    end else begin
      request_q <= (start_read || start_write) && next_addr[AXIL_ADDR_W-1:ADDR_W] == '0;
      case (state_q)
        ST_IDLE: begin
          if (start_read || start_write) begin
            state_q      <= ST_REQUEST;
            write_q      <= start_write;
            last_write_q <= start_write;
          end
        end
        ST_REQUEST: state_q <= ST_ANSWER;
        ST_ANSWER: if (answered) state_q <= ST_IDLE;
        default: state_q <= ST_IDLE;
      endcase
    end
  end

  genvar i;
  for (i = 0; i < 4; i = i + 1) begin : g_lane
    always_ff @(posedge clk_i) mask_q[8*i+:8] <= {8{w_strb_q[i]}};
  end

  always_ff @(posedge clk_i) begin
    wdata_q    <= w_data_q;
    addr_q     <= next_addr[ADDR_W-1:2];
    unmapped_q <= next_addr[AXIL_ADDR_W-1:ADDR_W] != '0;
    if (state_q == ST_REQUEST) begin
      err_q   <= unmapped_q || rsp_err_i;
      rdata_q <= (unmapped_q || rsp_err_i) ? 32'b0 : rsp_rdata_i;
    end
  end

  assign req_valid_o   = request_q;
  assign req_write_o   = write_q;
  assign req_addr_o    = {addr_q, 2'b00};
  assign req_wdata_o   = wdata_q;
  assign req_mask_o    = mask_q;

  assign s_axil_bvalid = state_q == ST_ANSWER && write_q;
  assign s_axil_rvalid = state_q == ST_ANSWER && !write_q;
  assign s_axil_bresp  = err_q ? SLVERR : OKAY;
  assign s_axil_rresp  = err_q ? SLVERR : OKAY;
  assign s_axil_rdata  = rdata_q;

endmodule

`resetall
`default_nettype wire
