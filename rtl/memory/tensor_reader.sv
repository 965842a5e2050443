// Tensor reader: sends a tensor from the feature buffer to the result stream.
//
// Purpose: reads the tensor row by row and packs two quads into a beat, across row ends too. The last beat is marked.
// Latency: RD_LATENCY + 1 cycles from a read to its beat.
// Throughput: one beat a cycle for rows with an even number of quads. A row with an odd number costs one more cycle,
// because its last quad waits for the first quad of the next row.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module tensor_reader #(
    parameter ROOM_W = 7
) (
    input  wire logic                                clk_i,
    input  wire logic                                rst_ni,
    input  wire logic                                start_i,
    output wire logic                                done_o,       // pulse: the last beat was handed over
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] base_i,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] row_stride_i,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] row_quads_i,  // width * quads per pixel
    input  wire logic [program_pkg::DIM_W-1:0]       height_i,
    output wire logic                                rd_valid_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] rd_addr_o,
    input  wire logic [7:0][31:0]                    rd_data_i,
    input  wire logic [ROOM_W-1:0]                   room_i,       // free entries of the result FIFO
    output wire logic                                beat_valid_o,
    output wire logic [63:0]                         beat_data_o,
    output wire logic                                beat_half_o,
    output wire logic                                beat_last_o
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;
  localparam int FLIGHT = cq_pkg::RD_LATENCY + 5;  // beats in flight when room_i is compared, one behind this block

`ifndef YOSYS
  initial if ((1 << ROOM_W) - 1 <= FLIGHT) $fatal(1, "tensor_reader: ROOM_W %0d must hold more than %0d beats", ROOM_W,
      FLIGHT);
`endif

  localparam logic [1:0] IDLE = 2'd0, RUN = 2'd1, FLUSH = 2'd2;

  logic unused_rd_data;
  assign unused_rd_data = &rd_data_i[7:2];

  logic [1:0] state_q;
  logic [A_W-1:0] row_q, addr_q, left_q;
  logic [program_pkg::DIM_W-1:0] rows_q;
  logic issue, single, room_q;
  logic short_q, row_end_q, last_row_q;  // a row has at most two quads, so many are left of this one, it is the last

  always_ff @(posedge clk_i) room_q <= room_i > ROOM_W'(FLIGHT);
  assign issue   = state_q == RUN && room_q;
  assign single  = left_q == A_W'(1);

  logic [cq_pkg::RD_LATENCY-1:0] valid_q, single_q, last_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= IDLE;
      valid_q <= '0;
    end else begin
      valid_q <= {valid_q[cq_pkg::RD_LATENCY-2:0], issue};
      case (state_q)
        IDLE: if (start_i) state_q <= RUN;
        RUN: if (issue && row_end_q && last_row_q) state_q <= FLUSH;
        default: if (done_o) state_q <= IDLE;
      endcase
    end
  end

  always_ff @(posedge clk_i) begin
    single_q <= {single_q[cq_pkg::RD_LATENCY-2:0], single};
    last_q   <= {last_q[cq_pkg::RD_LATENCY-2:0], row_end_q && last_row_q};
    case (state_q)
      IDLE: begin
        rows_q     <= height_i;
        left_q     <= row_quads_i;
        row_q      <= base_i + row_stride_i;
        addr_q     <= base_i;
        short_q    <= row_quads_i <= A_W'(2);
        row_end_q  <= row_quads_i <= A_W'(2);
        last_row_q <= height_i == program_pkg::DIM_W'(1);
      end
      default: if (issue) begin
        left_q    <= row_end_q ? row_quads_i : left_q - A_W'(2);
        addr_q    <= row_end_q ? row_q : addr_q + A_W'(2);
        row_end_q <= row_end_q ? short_q : left_q <= A_W'(4);
        if (row_end_q) begin
          row_q      <= row_q + row_stride_i;
          rows_q     <= rows_q - 1'b1;
          last_row_q <= rows_q == program_pkg::DIM_W'(2);
        end
      end
    endcase
  end

  assign rd_valid_o = issue;
  assign rd_addr_o  = addr_q;

  // Pairs of quads: the last quad of a row with an odd number is kept for the next row.  The last read of such a row
  // brings one quad, so the tensor's last read never brings two quads while one is kept.
  logic held_q, in_valid, in_single, in_last;
  logic [31:0] keep_q;
  assign in_valid  = valid_q[cq_pkg::RD_LATENCY-1];
  assign in_single = single_q[cq_pkg::RD_LATENCY-1];
  assign in_last   = last_q[cq_pkg::RD_LATENCY-1];

  logic beat_valid_q, beat_half_q, beat_last_q;
  logic [63:0] beat_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      held_q       <= 1'b0;
      beat_valid_q <= 1'b0;
    end else begin
      beat_valid_q <= in_valid && (held_q || !in_single || in_last);
      if (in_valid) held_q <= !in_last && (held_q ^ in_single);
    end
    if (in_valid) keep_q <= in_single ? rd_data_i[0] : rd_data_i[1];
    beat_q      <= held_q ? {rd_data_i[0], keep_q} : {rd_data_i[1], rd_data_i[0]};
    beat_half_q <= !held_q && in_single;
    beat_last_q <= in_last;
  end

  assign beat_valid_o = beat_valid_q;
  assign beat_data_o  = beat_q;
  assign beat_half_o  = beat_half_q;
  assign beat_last_o  = beat_last_q;
  assign done_o       = beat_valid_q && beat_last_q;

endmodule

`default_nettype wire
