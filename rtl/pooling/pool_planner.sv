// Pool planner: computes, for every output pixel, the part of its window that lies inside the feature map.
//
// Purpose: walks over the output in raster order and clips each window to the quad address of its first pixel, and its
// rows and columns. Every legal window keeps at least one pixel, as the padding is smaller than the kernel. Addresses
// advance by additions only. The four products that they need (strides and paddings times address steps) are computed
// first, bit by bit.
// Latency: 5 + bit length of (stride_h | stride_w | pad_h | pad_w) cycles from start_i to the first window.
// Throughput: one window a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module pool_planner (
    input  wire logic                                clk_i,
    input  wire logic                                rst_ni,
    input  wire logic                                start_i,    // configuration stable from here to the last window
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] in_base_i,
    input  wire logic [program_pkg::DIM_W-1:0]       in_w_i,
    input  wire logic [program_pkg::DIM_W-1:0]       in_h_i,
    input  wire logic [program_pkg::QUADS_W-1:0]     q_i,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] in_row_stride_i,
    input  wire logic [program_pkg::DIM_W-1:0]       out_w_i,
    input  wire logic [program_pkg::DIM_W-1:0]       out_h_i,
    input  wire logic [program_pkg::DIM_W-1:0]       kernel_h_i,
    input  wire logic [program_pkg::DIM_W-1:0]       kernel_w_i,
    input  wire logic [program_pkg::DIM_W-1:0]       stride_h_i,
    input  wire logic [program_pkg::DIM_W-1:0]       stride_w_i,
    input  wire logic [program_pkg::DIM_W-1:0]       pad_h_i,
    input  wire logic [program_pkg::DIM_W-1:0]       pad_w_i,
    // windows
    output wire logic                                valid_o,
    input  wire logic                                ready_i,
    output wire logic [program_pkg::QUAD_ADDR_W-1:0] addr_o,
    output wire logic [program_pkg::DIM_W-1:0]       rows_o,
    output wire logic [program_pkg::DIM_W-1:0]       cols_o,
    output wire logic                                one_row_o,
    output wire logic                                one_col_o,
    output wire logic                                row_end_o,  // last output pixel of its row
    output wire logic                                last_o      // last output pixel
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;
  localparam int D_W = program_pkg::DIM_W;

  // ---------------------------------------------------------------- products, from the highest bit that any factor has
  localparam logic [1:0] IDLE = 2'd0, MULTIPLY = 2'd1, FIRST = 2'd2;

  function automatic logic [3:0] highest_bit(input logic [D_W-1:0] bits);
    highest_bit = '0;
    for (int i = 0; i < D_W; i = i + 1) if (bits[i]) highest_bit = 4'(i);
  endfunction

  logic [1:0] state_q;
  logic [4:0] bit_q;  // -1 after the last one
  logic y_step_bit_q, x_step_bit_q, y_pad_bit_q, x_pad_bit_q;
  logic [A_W-1:0] y_step_q, x_step_q, y_pad_q, x_pad_q;  // addresses are modulo the address space
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= IDLE;
    end else begin
      case (state_q)
        IDLE: if (start_i) state_q <= MULTIPLY;
        MULTIPLY: if (bit_q[4]) state_q <= FIRST;
        default: state_q <= IDLE;
      endcase
    end
    if (start_i) begin
      bit_q <= {1'b0, highest_bit(stride_h_i | stride_w_i | pad_h_i | pad_w_i)};
      {y_step_bit_q, x_step_bit_q, y_pad_bit_q, x_pad_bit_q} <= '0;
      {y_step_q, x_step_q, y_pad_q, x_pad_q} <= '0;
    end else if (state_q == MULTIPLY) begin
      bit_q        <= bit_q - 5'd1;
      y_step_bit_q <= stride_h_i[bit_q[3:0]];
      x_step_bit_q <= stride_w_i[bit_q[3:0]];
      y_pad_bit_q  <= pad_h_i[bit_q[3:0]];
      x_pad_bit_q  <= pad_w_i[bit_q[3:0]];
      y_step_q     <= (y_step_q << 1) + (y_step_bit_q ? in_row_stride_i : '0);
      x_step_q     <= (x_step_q << 1) + (x_step_bit_q ? A_W'(q_i) : '0);
      y_pad_q      <= (y_pad_q << 1) - (y_pad_bit_q ? in_row_stride_i : '0);
      x_pad_q      <= (x_pad_q << 1) - (x_pad_bit_q ? A_W'(q_i) : '0);
    end
  end

  // ---------------------------------------------------------------- 1: the window's first pixel, also outside
  logic advance, first, step, row_end, map_end, last_row;
  logic p1_valid_q, p2_valid_q;
  logic [D_W:0] y_q, x_q;  // signed
  logic [A_W-1:0] y_addr_q, x_addr_q;
  assign first   = state_q == FIRST;
  assign step    = advance && p1_valid_q;
  assign map_end = row_end && last_row;

  loop_counter #(
      .WIDTH(D_W)
  ) u_columns (
      .clk_i  (clk_i),
      .load_i (first || (step && row_end)),
      .count_i(out_w_i),
      .one_i  (out_w_i == D_W'(1)),
      .step_i (step),
      .last_o (row_end)
  );

  loop_counter #(
      .WIDTH(D_W)
  ) u_rows (
      .clk_i  (clk_i),
      .load_i (first),
      .count_i(out_h_i),
      .one_i  (out_h_i == D_W'(1)),
      .step_i (step && row_end),
      .last_o (last_row)
  );

  always_ff @(posedge clk_i) begin
    if (first || (step && row_end)) begin
      x_q      <= -{1'b0, pad_w_i};
      x_addr_q <= x_pad_q;
    end else if (step) begin
      x_q      <= x_q + {1'b0, stride_w_i};
      x_addr_q <= x_addr_q + x_step_q;
    end
    if (first) begin
      y_q      <= -{1'b0, pad_h_i};
      y_addr_q <= in_base_i + y_pad_q;
    end else if (step && row_end) begin
      y_q      <= y_q + {1'b0, stride_h_i};
      y_addr_q <= y_addr_q + y_step_q;
    end
  end

  // ---------------------------------------------------------------- 2: kernel beyond padding, pixels to the far edge
  logic above, left;
  logic [D_W-1:0] kernel_rows_q, kernel_cols_q, rows_below_q, cols_right_q;
  logic [A_W-1:0] row_addr_q, col_addr_q;
  logic p2_row_end_q, p2_last_q;
  assign above = y_q[D_W];
  assign left  = x_q[D_W];
  always_ff @(posedge clk_i) begin
    if (advance) begin
      kernel_rows_q <= kernel_h_i + (above ? y_q[D_W-1:0] : '0);
      kernel_cols_q <= kernel_w_i + (left ? x_q[D_W-1:0] : '0);
      rows_below_q  <= in_h_i - (above ? '0 : y_q[D_W-1:0]);
      cols_right_q  <= in_w_i - (left ? '0 : x_q[D_W-1:0]);
      row_addr_q    <= above ? in_base_i : y_addr_q;
      col_addr_q    <= left ? '0 : x_addr_q;
      p2_row_end_q  <= row_end;
      p2_last_q     <= map_end;
    end
  end

  // ---------------------------------------------------------------- 3: the window, in a register slice
  // The slice's ready is a register: what takes the windows does not reach the counters before it.
  localparam int WINDOW_W = A_W + 2 * D_W + 4;
  logic [WINDOW_W-1:0] window;
  assign window = {
    row_addr_q + col_addr_q,
    kernel_rows_q < rows_below_q ? kernel_rows_q : rows_below_q,
    kernel_cols_q < cols_right_q ? kernel_cols_q : cols_right_q,
    kernel_rows_q == D_W'(1) || rows_below_q == D_W'(1),
    kernel_cols_q == D_W'(1) || cols_right_q == D_W'(1),
    p2_row_end_q,
    p2_last_q
  };
  skid_buffer #(
      .WIDTH(WINDOW_W)
  ) u_window (
      .clk_i      (clk_i),
      .rst_ni     (rst_ni),
      .in_valid_i (p2_valid_q),
      .in_ready_o (advance),
      .in_data_i  (window),
      .out_valid_o(valid_o),
      .out_ready_i(ready_i),
      .out_data_o ({addr_o, rows_o, cols_o, one_row_o, one_col_o, row_end_o, last_o})
  );

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      p1_valid_q <= 1'b0;
      p2_valid_q <= 1'b0;
    end else begin
      if (first) p1_valid_q <= 1'b1;
      else if (step && map_end) p1_valid_q <= 1'b0;
      if (advance) p2_valid_q <= p1_valid_q;
    end
  end

endmodule

`default_nettype wire
