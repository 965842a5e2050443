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
// of stage n. mode_i holds for a layer and comes at least one cycle before its first data_i.
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
    output wire logic [program_pkg::ARRAYS-1:0][7:0]       single_o,
    output wire logic [program_pkg::ARRAYS-1:0][11:0][8:0] x_o,
    output wire logic [program_pkg::ARRAYS-1:0][11:0][8:0] y_o,
    output wire logic [program_pkg::ARRAYS-1:0][11:0][8:0] xy_o
);

  // Which tap and quad each PE takes in mode 2.
  function automatic int extra_of(input int pe);  // position among the ten others, or -1
    if (pe == 24) extra_of = 9;
    else if (pe % 8 >= 5) extra_of = 3 * (pe / 8) + (pe % 8) - 5;
    else extra_of = -1;
  endfunction

  function automatic int segment_of(input int pe);
    segment_of = (pe == 24) ? 0 : pe / 8;
  endfunction
  function automatic int channel_of(input int pe);
    channel_of = (pe == 24) ? 0 : pe % 8;
  endfunction
  function automatic int tap5_of(input int pe);
    tap5_of = (extra_of(pe) < 0) ? segment_of(pe) : 3 + extra_of(pe) / 5;
  endfunction
  function automatic int channel5_of(input int pe);
    channel5_of = (extra_of(pe) < 0) ? channel_of(pe) : extra_of(pe) % 5;
  endfunction

  // Loading of indices runs along the chain with the first position of a pass.
  logic [cq_pkg::STAGES-1:0] load_q;
  always_ff @(posedge clk_i) load_q <= {load_q[cq_pkg::STAGES-2:0], load_i};
  assign load_o = load_q;

  // PEs whose tap lies inside the image, with the newest pixel in the window
  logic [program_pkg::PES-1:0] mask_q;
  logic [1:0] mask_mode_q;
  (* keep *) always_ff @(posedge clk_i) mask_mode_q <= mode_i;

  genvar a, e, c, s, k;
  generate
    for (e = 0; e < program_pkg::PES; e = e + 1) begin : gen_mask
      always_ff @(posedge clk_i) begin
        case (mask_mode_q)
          program_pkg::MODE_5: mask_q[e] <= col_mask_i[tap5_of(e)] & row_mask_i[channel5_of(e)];
          program_pkg::MODE_3: mask_q[e] <= col_mask_i[segment_of(e)] & row_mask_i[channel_of(e)];
          default:        mask_q[e] <= col_mask_i[0] & row_mask_i[channel_of(e)];
        endcase
      end
    end

    for (a = 0; a < program_pkg::ARRAYS; a = a + 1) begin : gen_array
      // The array's bytes and masks come with its first stage.
      logic [63:0] bytes, newest;
      logic [program_pkg::PES-1:0] mask;
      for (c = 0; c < 8; c = c + 1) begin : gen_channel
        assign bytes[8*c+:8] = data_i[c][8*a+:8];
      end
      delay_line #(
          .WIDTH(64),
          .DEPTH(5 * a)
      ) u_data (
          .clk_i(clk_i),
          .d_i  (bytes),
          .d_o  (newest)
      );
      delay_line #(
          .WIDTH(program_pkg::PES),
          .DEPTH(5 * a)
      ) u_mask (
          .clk_i(clk_i),
          .d_i  (mask_q),
          .d_o  (mask)
      );

      // The window: channels 0..4 keep five columns, the others three.
      logic [63:0] win0_q, win1_q, win2_q;
      logic [39:0] win3_q, win4_q;
      always_ff @(posedge clk_i) begin
        win0_q <= newest;
        win1_q <= win0_q;
        win2_q <= win1_q;
        win3_q <= win2_q[39:0];
        win4_q <= win3_q;
      end

      // The array's own copy of the mode, placed near to what it selects.
      logic mode3_q, mode5_q;
      (* keep *) always_ff @(posedge clk_i) begin
        mode3_q <= mode_i == program_pkg::MODE_3;
        mode5_q <= mode_i == program_pkg::MODE_5;
      end

      logic [8*program_pkg::PES-1:0] act;
      for (e = 0; e < program_pkg::PES; e = e + 1) begin : gen_pe
        localparam int CHANNEL = channel_of(e);
        logic [7:0] tap1, tap3, tap5, selected, act_q;
        assign tap1 = win0_q[8*CHANNEL+:8];
        if (segment_of(e) == 0) begin : gen_tap3_0
          assign tap3 = tap1;
        end else if (segment_of(e) == 1) begin : gen_tap3_1
          assign tap3 = win1_q[8*CHANNEL+:8];
        end else begin : gen_tap3_2
          assign tap3 = win2_q[8*CHANNEL+:8];
        end
        if (tap5_of(e) < 3) begin : gen_tap5_same
          assign tap5 = tap3;
        end else if (tap5_of(e) == 3) begin : gen_tap5_3
          assign tap5 = win3_q[8*channel5_of(e)+:8];
        end else begin : gen_tap5_4
          assign tap5 = win4_q[8*channel5_of(e)+:8];
        end
        always_comb begin
          if (!mask[e]) selected = '0;
          else if (mode5_q) selected = tap5;
          else if (mode3_q) selected = tap3;
          else selected = tap1;
        end
        always_ff @(posedge clk_i) act_q <= selected;
        assign act[8*e+:8] = act_q;
      end
      assign single_o[a] = act[8*24+:8];

      for (s = 0; s < 3; s = s + 1) begin : gen_segment
        for (k = 0; k < 4; k = k + 1) begin : gen_pair
          logic [15:0] pair;
          logic [8:0] x, y, x_q, y_q, xy_q;
          // Stage 5a + 1 + k: the last cycle of the delay is the register of the pair sum.
          delay_line #(
              .WIDTH(16),
              .DEPTH(k)
          ) u_delay (
              .clk_i(clk_i),
              .d_i  (act[8*(8*s+2*k)+:16]),
              .d_o  (pair)
          );
          assign x = {signed_i && pair[7], pair[7:0]};
          assign y = {signed_i && pair[15], pair[15:8]};
          always_ff @(posedge clk_i) begin
            x_q  <= x;
            y_q  <= y;
            xy_q <= x + y;
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
