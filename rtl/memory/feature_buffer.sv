// Feature buffer: eight banks of 32 bits that hold the feature maps between the layers.
//
// Purpose: quad address a (four channels of a pixel) lies in bank a mod 8, word a / 8. A read returns eight quads, each
// from a bank of its own. Their addresses are a + v * (1 + 8 * vstep), v = 0..7: consecutive channels with vstep = 0,
// otherwise one column of eight rows, whose row stride is 8 * vstep + 1. With rd_pair_i they are four quads of each of
// two rows, whose row stride is 8 * vstep + 4. A write stores up to eight consecutive quads. Quads outside [wr_base_i,
// wr_end_i) are not written; oob_o reports it. With wr_read_i the write port reads four quads instead, wherever they
// lie. Each bank is made of memories whose depths are powers of two, so that no block RAM needs a multiplexer before
// its register.
// Latency: 6 cycles from a read request to its data: row step, row, RAM, register, bank, rotation; 8 cycles from
// wr_read_i. A written quad can be requested 3 cycles later.
// Throughput: one read and one write of eight quads a cycle, or a read of four quads in the place of the write.
`resetall
`default_nettype none
`timescale 1ns / 1ps

module feature_buffer #(
    parameter BANK_WORDS = 11264  // 8 banks x 11264 x 4 bytes = 360,448 bytes
) (
    input  wire logic                                clk_i,
    input  wire logic                                rst_ni,
    input  wire logic                                rd_valid_i,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] rd_addr_i,
    input  wire logic [3:0]                          rd_count_i,  // quads needed, 1..8: the other banks stay idle
    input  wire logic [program_pkg::VSTEP_W-1:0]     rd_vstep_i,  // stable during a layer
    input  wire logic                                rd_pair_i,   // stable during a layer
    output wire logic [7:0][31:0]                    rd_data_o,
    input  wire logic                                wr_valid_i,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] wr_addr_i,
    input  wire logic [7:0]                          wr_mask_i,
    input  wire logic [7:0][31:0]                    wr_data_i,
    input  wire logic                                wr_read_i,   // read at wr_addr_i; never with wr_valid_i
    output wire logic [3:0][31:0]                    wr_data_o,
    input  wire logic [program_pkg::QUAD_ADDR_W-1:0] wr_base_i,
    input  wire logic [program_pkg::QUAD_ADDR_W:0]   wr_end_i,
    output wire logic                                oob_o        // a quad was not written
);

  localparam int A_W = program_pkg::QUAD_ADDR_W;
  localparam int R_W = $clog2(BANK_WORDS);

`ifndef YOSYS
  initial if (BANK_WORDS < 2 || BANK_WORDS > (1 << (A_W - 3)))
    $fatal(1, "feature_buffer: BANK_WORDS must be 2..%0d, got %0d", 1 << (A_W - 3), BANK_WORDS);
`endif

  // ---------------------------------------------------------------- addresses
  // Multiples of vstep.  It changes only between layers, so a cycle of delay is harmless.
  logic [7:0][program_pkg::VSTEP_W-1:0] vrow_q;
  always_ff @(posedge clk_i) begin
    vrow_q[0] <= '0;
    vrow_q[1] <= rd_pair_i ? '0 : rd_vstep_i;
    vrow_q[2] <= rd_pair_i ? '0 : rd_vstep_i << 1;
    vrow_q[3] <= rd_pair_i ? '0 : rd_vstep_i + (rd_vstep_i << 1);
    vrow_q[4] <= rd_pair_i ? rd_vstep_i : rd_vstep_i << 2;
    vrow_q[5] <= rd_pair_i ? rd_vstep_i : rd_vstep_i + (rd_vstep_i << 2);
    vrow_q[6] <= rd_pair_i ? rd_vstep_i : (rd_vstep_i << 1) + (rd_vstep_i << 2);
    vrow_q[7] <= rd_pair_i ? rd_vstep_i : (rd_vstep_i << 3) - rd_vstep_i;
  end

  // Bank of entry 0, behind the request and, at last, a cycle before its data.
  logic [3:0][2:0] rd_first_q;
  always_ff @(posedge clk_i) rd_first_q <= {rd_first_q[2:0], rd_addr_i[2:0]};

  // A write is measured against the region in its first cycle, cut to it in its second one, distributed to the banks in
  // its third one and stored in its fourth one.
  logic                    wr_valid_q, cut_valid_q, cut_above_q;
  logic [A_W-1:0]          wr_addr_q, cut_addr_q, put_addr_q;
  logic [A_W:0]            cut_room_q;  // quads from the address to the end
  logic [7:0]              wr_mask_q, cut_mask_q, wr_inside, put_mask_q;
  logic [7:0][31:0]        wr_data_q, cut_data_q, put_data_q;
  logic                    oob_q;
  logic                    wr_read_q, cut_read_q, put_read_q;
  // bank of entry 0 of a read through the write port, at last a cycle before its data
  logic [2:0][2:0]         port_first_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      wr_valid_q  <= 1'b0;
      cut_valid_q <= 1'b0;
      oob_q       <= 1'b0;
      put_mask_q  <= '0;
    end else begin
      wr_valid_q  <= wr_valid_i;
      cut_valid_q <= wr_valid_q;
      put_mask_q  <= cut_valid_q ? cut_mask_q & wr_inside : '0;
      oob_q       <= cut_valid_q && (cut_mask_q & ~wr_inside) != '0;
    end
    wr_addr_q   <= wr_addr_i;
    wr_mask_q   <= wr_mask_i;
    wr_data_q   <= wr_data_i;
    cut_room_q  <= wr_end_i - {1'b0, wr_addr_q};
    cut_above_q <= wr_addr_q >= wr_base_i && {1'b0, wr_addr_q} < wr_end_i;
    cut_addr_q  <= wr_addr_q;
    cut_mask_q  <= wr_mask_q;
    cut_data_q  <= wr_data_q;
    put_addr_q  <= cut_addr_q;
    put_data_q  <= cut_data_q;

    wr_read_q    <= wr_read_i;
    cut_read_q   <= wr_read_q;
    put_read_q   <= cut_read_q;
    port_first_q <= {port_first_q[1:0], put_addr_q[2:0]};
  end
  assign oob_o = oob_q;

  // ---------------------------------------------------------------- banks
  // Memories of a bank, the largest first: one for each bit that is set in BANK_WORDS.
  logic [7:0][31:0] bank_q, rd_data_q, port_bank_q;
  logic [3:0][31:0] port_data_q;
  genvar b, v, k;
  generate
    for (v = 0; v < 8; v = v + 1) begin : gen_inside
      assign wr_inside[v] = cut_above_q && cut_room_q > (A_W + 1)'(v);
    end
    for (b = 0; b < 8; b = b + 1) begin : gen_bank
      localparam logic [2:0] BANK = 3'(b);
      logic [2:0] rd_entry, wr_entry_q, source_q;
      logic rd_valid_q, re_q, we, we_q, port_re_q;
      logic [A_W-4:0] rd_base_q, rd_step_q, rd_row, wr_row;
      logic [R_W-1:0] rd_row_q, wr_row_q;
      logic [31:0] wr_word_q;
      assign rd_entry = BANK - rd_addr_i[2:0];
      assign rd_row   = rd_base_q + rd_step_q;
      always_ff @(posedge clk_i) begin
        rd_valid_q <= rd_valid_i && {1'b0, rd_entry} < rd_count_i;
        rd_base_q  <= rd_addr_i[A_W-1:3] + (A_W - 3)'(BANK < rd_addr_i[2:0]);
        rd_step_q  <= (A_W - 3)'(vrow_q[rd_entry]);
        re_q       <= rd_valid_q;
        rd_row_q   <= rd_row[R_W-1:0];
      end

      always_ff @(posedge clk_i) wr_entry_q <= BANK - cut_addr_q[2:0];
      assign wr_row   = put_addr_q[A_W-1:3] + (A_W - 3)'(BANK < put_addr_q[2:0]);
      assign we       = put_mask_q[wr_entry_q];
      always_ff @(posedge clk_i) begin
        we_q      <= we;
        wr_row_q  <= wr_row[R_W-1:0];
        wr_word_q <= put_data_q[wr_entry_q];
        port_re_q <= put_read_q && !wr_entry_q[2];
      end

      // 32 bits for each k: the word that a port read, if it is in a memory below k
      logic [32*(R_W+2)-1:0] words, port_words;
      assign words[31:0]      = '0;
      assign port_words[31:0] = '0;
      for (k = 0; k <= R_W; k = k + 1) begin : gen_memory
        if (((BANK_WORDS >> k) & 1) != 0) begin : gen_used
          // The memory holds 2^k rows, whose numbers have these bits above k.
          localparam logic [R_W-1:0] ABOVE = R_W'((BANK_WORDS >> k) - 1);
          localparam int ROW_W = (k == 0) ? 1 : k;
          logic rd_hit, port_hit;
          logic [1:0] rd_hit_q, port_hit_q;  // beside the RAM's word and the register behind it
          logic [31:0] rdata, word_q, port_rdata, port_word_q;
          assign rd_hit   = re_q && (rd_row_q >> k) == ABOVE;
          assign port_hit = (wr_row_q >> k) == ABOVE;
          ram_1r1rw #(
              .WIDTH(32),
              .DEPTH(1 << k)
          ) u_ram (
              .clk_i       (clk_i),
              .re_i        (rd_hit),
              .raddr_i     ((k == 0) ? '0 : rd_row_q[ROW_W-1:0]),
              .rdata_o     (rdata),
              .port_we_i   (we_q && port_hit),
              .port_re_i   (port_re_q && port_hit),
              .port_addr_i ((k == 0) ? '0 : wr_row_q[ROW_W-1:0]),
              .port_wdata_i(wr_word_q),
              .port_rdata_o(port_rdata)
          );
          always_ff @(posedge clk_i) begin
            rd_hit_q    <= {rd_hit_q[0], rd_hit};
            port_hit_q  <= {port_hit_q[0], port_hit};
            word_q      <= rdata;
            port_word_q <= port_rdata;
          end
          assign words[32*(k+1)+:32]      = words[32*k+:32] | (rd_hit_q[1] ? word_q : 32'b0);
          assign port_words[32*(k+1)+:32] = port_words[32*k+:32] | (port_hit_q[1] ? port_word_q : 32'b0);
        end else begin : gen_none
          assign words[32*(k+1)+:32]      = words[32*k+:32];
          assign port_words[32*(k+1)+:32] = port_words[32*k+:32];
        end
      end

      always_ff @(posedge clk_i) begin
        source_q       <= BANK + rd_first_q[3];
        bank_q[b]      <= words[32*(R_W+1)+:32];
        rd_data_q[b]   <= bank_q[source_q];
        port_bank_q[b] <= port_words[32*(R_W+1)+:32];
      end
    end
    for (v = 0; v < 4; v = v + 1) begin : gen_port_data
      logic [2:0] source_q;
      always_ff @(posedge clk_i) begin
        source_q       <= 3'(v) + port_first_q[2];
        port_data_q[v] <= port_bank_q[source_q];
      end
    end
  endgenerate
  assign wr_data_o = port_data_q;
  assign rd_data_o = rd_data_q;

endmodule

`default_nettype wire
