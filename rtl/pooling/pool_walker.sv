// Pool walker: reads the windows from the feature buffer, one read a cycle.
//
// Purpose: reads each window group of quads by group, row by row, pixel by pixel. Windows, groups and rows follow each
// other without a gap. room_i is sampled once a group, in the cycle before the first read of its window.
// Latency: 1 cycle from a window to its first read.
// Throughput: one read a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module pool_walker (
    input  wire logic                                clk_i,
    input  wire logic                                rst_ni,
    input  wire logic                                room_i,        // the result of another window can be taken
    input  wire logic [program_pkg::QUADS_W-1:0]     q_i,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] row_stride_i,
    input  wire logic [program_pkg::QUADS_W-1:0]     groups_i,      // of a pixel
    input  wire logic                                one_group_i,   // groups_i is 1
    input  wire logic [3:0]                          group_step_i,  // quads
    // windows
    input  wire logic                                valid_i,
    output wire logic                                ready_o,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] addr_i,
    input  wire logic [program_pkg::DIM_W-1:0]       rows_i,
    input  wire logic [program_pkg::DIM_W-1:0]       cols_i,
    input  wire logic                                one_row_i,     // rows_i is 1
    input  wire logic                                one_col_i,
    input  wire logic                                row_end_i,
    input  wire logic                                last_i,
    // reads
    output wire logic                                rd_valid_o,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] rd_addr_o,
    output wire logic                                first_o,       // first read of a window
    output wire logic                                last_o,        // last read of a window
    output wire logic                                group_end_o,   // last group of the pixel
    output wire logic                                row_end_o,     // last pixel of the output row
    output wire logic                                map_end_o      // last pixel
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;
  localparam int D_W = program_pkg::DIM_W;

  logic pending_q, go_q;  // addr_q is to be read; it is read in this cycle
  logic first_q, one_row_q, one_col_q, row_end_q, map_end_q;
  logic [D_W-1:0] rows_q, cols_q;
  logic last_col, last_row, last_group;

  logic end_row, end_window, end_pixel, take, restart;
  assign end_row    = go_q && last_col;
  assign end_window = go_q && last_col && last_row;
  assign end_pixel  = go_q && last_col && last_row && last_group;
  assign ready_o    = !pending_q || end_pixel;
  assign take       = ready_o && valid_i;
  assign restart    = take || end_window;  // of rows and columns

  logic pending_d, first_d;
  assign pending_d = ready_o ? valid_i : 1'b1;
  assign first_d   = restart || (first_q && !go_q);
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      pending_q <= 1'b0;
      go_q      <= 1'b0;
    end else begin
      pending_q <= pending_d;
      go_q      <= pending_d && (room_i || !first_d);
    end
  end

  always_ff @(posedge clk_i) begin
    if (take) begin
      rows_q        <= rows_i;
      cols_q        <= cols_i;
      one_row_q     <= one_row_i;
      one_col_q     <= one_col_i;
      row_end_q     <= row_end_i;
      map_end_q <= last_i;
    end
    first_q <= first_d;
  end

  // ---------------------------------------------------------------- loops
  loop_counter #(
      .WIDTH(D_W)
  ) u_columns (
      .clk_i  (clk_i),
      .load_i (take || end_row),
      .count_i(take ? cols_i : cols_q),
      .one_i  (take ? one_col_i : one_col_q),
      .step_i (go_q),
      .last_o (last_col)
  );

  loop_counter #(
      .WIDTH(D_W)
  ) u_rows (
      .clk_i  (clk_i),
      .load_i (restart),
      .count_i(take ? rows_i : rows_q),
      .one_i  (take ? one_row_i : one_row_q),
      .step_i (end_row),
      .last_o (last_row)
  );

  loop_counter #(
      .WIDTH(program_pkg::QUADS_W)
  ) u_groups (
      .clk_i  (clk_i),
      .load_i (take),
      .count_i(groups_i),
      .one_i  (one_group_i),
      .step_i (end_window),
      .last_o (last_group)
  );

  // ---------------------------------------------------------------- addresses: this read, its row, its group
  logic [A_W-1:0] addr_q, row_addr_q, group_addr_q, addr_d;
  always_comb begin
    if (take) addr_d = addr_i;
    else if (end_window) addr_d = group_addr_q + A_W'(group_step_i);
    else if (end_row) addr_d = row_addr_q + row_stride_i;
    else addr_d = addr_q + A_W'(q_i);
  end
  always_ff @(posedge clk_i) begin
    if (take || go_q) addr_q <= addr_d;
    if (take || end_row) row_addr_q <= addr_d;
    if (restart) group_addr_q <= addr_d;
  end

  assign rd_valid_o    = go_q;
  assign rd_addr_o     = addr_q;
  assign first_o       = first_q;
  assign last_o        = last_col && last_row;
  assign group_end_o   = last_group;
  assign row_end_o     = row_end_q;
  assign map_end_o = map_end_q;

endmodule

`default_nettype wire
