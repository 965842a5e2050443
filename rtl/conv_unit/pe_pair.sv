// PE pair: two processing elements (PEs) that share one adder per plane.
//
// Purpose: a PE gates its activation with its 2-bit weight index. The codebook is applied after the adder chain
// (weight_decoder), so a PE has no multiplier. The index of a PE yields three planes: bit 0, bit 1, and both. In each
// plane a pair adds 0, x, y or x + y to the running sum; x + y is computed once for all conv modules. The sum is
// registered in every stage, so synthesis folds multiplexer and adder into one LUT6 a bit.
// Latency: 1 cycle from x_i/y_i/xy_i/sum_i to sum_o; an index loaded with load_i takes effect in the next cycle.
// Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module pe_pair #(
    parameter SUM_I_W = 9,
    parameter SUM_O_W = 10
) (
    input  wire logic                    clk_i,
    input  wire logic                    load_i,
    input  wire logic [3:0]              idx_i,   // {index of y, index of x}
    input  wire logic [8:0]              x_i,     // signed activations
    input  wire logic [8:0]              y_i,
    input  wire logic [9:0]              xy_i,    // x + y
    input  wire logic [2:0][SUM_I_W-1:0] sum_i,   // signed, one per plane
    output wire logic [2:0][SUM_O_W-1:0] sum_o
);

  logic [2:0] gate_x_q, gate_y_q;

  always_ff @(posedge clk_i) begin
    if (load_i) begin
      gate_x_q <= {&idx_i[1:0], idx_i[1:0]};
      gate_y_q <= {&idx_i[3:2], idx_i[3:2]};
    end
  end

  genvar p;
  generate
    for (p = 0; p < 3; p = p + 1) begin : gen_plane
      logic [1:0] gates;
      logic [SUM_O_W-1:0] term;
      logic [SUM_O_W-1:0] sum_q;
      assign gates = {gate_y_q[p], gate_x_q[p]};
      always_comb begin
        case (gates)
          2'b00:   term = '0;
          2'b01:   term = SUM_O_W'($signed(x_i));
          2'b10:   term = SUM_O_W'($signed(y_i));
          default: term = SUM_O_W'($signed(xy_i));
        endcase
      end
      always_ff @(posedge clk_i) begin
        sum_q <= SUM_O_W'($signed(sum_i[p])) + term;
      end
      assign sum_o[p] = sum_q;
    end
  endgenerate

endmodule

`default_nettype wire
