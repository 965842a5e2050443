// Window generator: turns the stream of pixels (eight quads each) into the activations of every PE.
//
// Purpose: shifts pixels through a horizontal window of five columns (the first five quads) or three.  It selects the
// channel and tap of each PE by conv mode, zeroes taps that lie in the padding, and skews the activations to the stages
// of the adder chain.  All conv modules share it, and the pair sums x + y with it.
//   mode 0: PE 8*s + c gets channel c of the newest pixel (s = output channel of the module)
//   mode 1: PE 8*s + c gets channel c, tap s (0 = newest = rightmost)
//   mode 2: PE 8*s + c, c < 5, gets channel c, tap s; the ten others, in order 5 6 7 13 14 15 21 22 23 24, get taps 3
//           and 4 of channels 0..4
// Array a takes byte a of each quad.
// Latency: 2 cycles from data_i to stage 0, n more to stage n; load_o[n] rises one cycle before the first activation
// of stage n.
// Throughput: one position a cycle.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module window_generator (
    input  wire logic                                      clk_i,
    input  wire logic [1:0]                                mode_i,
    input  wire logic                                      signed_i,    // activations are signed
    input  wire logic [7:0][31:0]                          data_i,      // newest pixel
    // with data_i: tap t lies inside the image (0 = newest)
    input  wire logic [4:0]                                col_mask_i,
    input  wire logic [7:0]                                row_mask_i,  // with data_i: quad v lies inside the image
    input  wire logic                                      load_i,      // with data_i: first position of a pass
    output wire logic [cq_pkg::STAGES-1:0]                 load_o,
    output wire logic [program_pkg::ARRAYS-1:0][8:0]       single_o,
    output wire logic [program_pkg::ARRAYS-1:0][11:0][8:0] x_o,
    output wire logic [program_pkg::ARRAYS-1:0][11:0][8:0] y_o,
    output wire logic [program_pkg::ARRAYS-1:0][11:0][9:0] xy_o
);

  // Which tap and quad each PE takes in mode 2.
  function automatic int extra_of(input int pe);  // position among the ten others, or -1
    if (pe == 24) extra_of = 9;
    else if (pe % 8 >= 5) extra_of = 3 * (pe / 8) + (pe % 8) - 5;
    else extra_of = -1;
  endfunction

  // The window: quads 0..4 keep five columns, quads 5..7 three.
  logic [7:0][31:0] win0_q, win1_q, win2_q;
  logic [4:0][31:0] win3_q, win4_q;

  always_ff @(posedge clk_i) begin
    win0_q <= data_i;
    win1_q <= win0_q;
    win2_q <= win1_q;
    win3_q <= win2_q[4:0];
    win4_q <= win3_q;
  end

  // Loading of indices runs along the chain with the first position of a pass.
  logic [cq_pkg::STAGES-1:0] load_q;
  always_ff @(posedge clk_i) load_q <= {load_q[cq_pkg::STAGES-2:0], load_i};
  assign load_o = load_q;

  logic [program_pkg::PES-1:0] mask_q;
  logic [program_pkg::ARRAYS-1:0][program_pkg::PES-1:0][8:0] act_q;

  genvar a, e, s, k;
  generate
    for (e = 0; e < program_pkg::PES; e = e + 1) begin : gen_pe
      localparam int SEGMENT = (e == 24) ? 0 : e / 8;
      localparam int CHANNEL = (e == 24) ? 0 : e % 8;
      localparam int EXTRA = extra_of(e);
      localparam int TAP5 = (EXTRA < 0) ? SEGMENT : 3 + EXTRA / 5;
      localparam int CHANNEL5 = (EXTRA < 0) ? CHANNEL : EXTRA % 5;

      always_ff @(posedge clk_i) begin
        case (mode_i)
          program_pkg::MODE_5: mask_q[e] <= col_mask_i[TAP5] & row_mask_i[CHANNEL5];
          program_pkg::MODE_3: mask_q[e] <= col_mask_i[SEGMENT] & row_mask_i[CHANNEL];
          default:        mask_q[e] <= col_mask_i[0] & row_mask_i[CHANNEL];
        endcase
      end

      for (a = 0; a < program_pkg::ARRAYS; a = a + 1) begin : gen_array
        logic [7:0] newest, tap3, tap5, selected;
        assign newest = win0_q[CHANNEL][8*a+:8];
        if (SEGMENT == 0) begin : gen_tap3_0
          assign tap3 = win0_q[CHANNEL][8*a+:8];
        end else if (SEGMENT == 1) begin : gen_tap3_1
          assign tap3 = win1_q[CHANNEL][8*a+:8];
        end else begin : gen_tap3_2
          assign tap3 = win2_q[CHANNEL][8*a+:8];
        end
        if (TAP5 < 3) begin : gen_tap5_same
          assign tap5 = tap3;
        end else if (TAP5 == 3) begin : gen_tap5_3
          assign tap5 = win3_q[CHANNEL5][8*a+:8];
        end else begin : gen_tap5_4
          assign tap5 = win4_q[CHANNEL5][8*a+:8];
        end
        always_comb begin
          if (!mask_q[e]) selected = '0;
          else if (mode_i == program_pkg::MODE_5) selected = tap5;
          else if (mode_i == program_pkg::MODE_3) selected = tap3;
          else selected = newest;
        end
        always_ff @(posedge clk_i) act_q[a][e] <= {signed_i & selected[7], selected};
      end
    end

    for (a = 0; a < program_pkg::ARRAYS; a = a + 1) begin : gen_skew
      delay_line #(
          .WIDTH(9),
          .DEPTH(5 * a)
      ) u_single (
          .clk_i(clk_i),
          .d_i  (act_q[a][24]),
          .d_o  (single_o[a])
      );
      for (s = 0; s < 3; s = s + 1) begin : gen_segment
        for (k = 0; k < 4; k = k + 1) begin : gen_pair
          logic [8:0] x, y, x_q, y_q;
          logic [9:0] xy_q;
          // Stage 5a + 1 + k: the last cycle of the delay is the register of the pair sum.
          delay_line #(
              .WIDTH(18),
              .DEPTH(5 * a + k)
          ) u_delay (
              .clk_i(clk_i),
              .d_i  ({act_q[a][8*s+2*k+1], act_q[a][8*s+2*k]}),
              .d_o  ({y, x})
          );
          always_ff @(posedge clk_i) begin
            x_q  <= x;
            y_q  <= y;
            xy_q <= {x[8], x} + {y[8], y};
          end
          assign x_o[a][4*s+k]  = x_q;
          assign y_o[a][4*s+k]  = y_q;
          assign xy_o[a][4*s+k] = xy_q;
        end
      end
    end
  endgenerate

endmodule

`default_nettype wire
