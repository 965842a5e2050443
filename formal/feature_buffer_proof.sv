// Feature buffer: for a quad that the solver chooses, a read returns what was last written inside [base, end); nothing
// outside is ever changed and no bank is written beyond its words; oob_o tells exactly of writes that were left out. A
// read through the write port returns the same. The region is free in each cycle: a write's is that of the cycle after.
// With DATA = 0 only where writes go.
`default_nettype none

module feature_buffer_proof #(
    parameter BANK_WORDS = 3,
    parameter DATA       = 1   // also what reads return
) (
    input wire logic             clk_i,
    input wire logic             rst_ni,
    input wire logic             rd_valid_i,
    input wire logic [16:0]      rd_addr_i,
    input wire logic [3:0]       rd_count_i,
    input wire logic             wr_valid_i,
    input wire logic             wr_read_i,
    input wire logic [16:0]      wr_addr_i,
    input wire logic [7:0]       wr_mask_i,
    input wire logic [7:0][1:0]  wr_bits_i
);

  // two bits tell a word from others: no logic looks at them
  logic [7:0][31:0] wr_data;
  assign wr_data = {30'b0, wr_bits_i[7], 30'b0, wr_bits_i[6], 30'b0, wr_bits_i[5], 30'b0, wr_bits_i[4], 30'b0,
      wr_bits_i[3], 30'b0, wr_bits_i[2], 30'b0, wr_bits_i[1], 30'b0, wr_bits_i[0]};
  (* anyseq *) logic [16:0] base;
  (* anyseq *) logic [17:0] limit;
  (* anyconst *) logic [13:0] vstep;
  (* anyconst *) logic pair;
  (* anyconst *) logic [16:0] quad;  // the one that is followed
  (* anyconst *) logic [2:0] entry;  // of the read
  logic [7:0][31:0] rd_data;
  logic [3:0][31:0] port_data;
  logic oob;

  feature_buffer #(.BANK_WORDS(BANK_WORDS)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .rd_valid_i(rd_valid_i), .rd_addr_i(rd_addr_i), .rd_count_i(rd_count_i),
      .rd_vstep_i(vstep), .rd_pair_i(pair),
      .rd_data_o(rd_data), .wr_valid_i(wr_valid_i), .wr_addr_i(wr_addr_i), .wr_mask_i(wr_mask_i), .wr_data_i(wr_data),
      .wr_read_i(wr_read_i), .wr_data_o(port_data), .wr_base_i(base), .wr_end_i(limit), .oob_o(oob)
  );
  (* hierconn *) logic \u_dut.gen_bank[0].we ;
  (* hierconn *) logic [13:0] \u_dut.gen_bank[0].wr_row ;
  (* hierconn *) logic \u_dut.gen_bank[1].we ;
  (* hierconn *) logic [13:0] \u_dut.gen_bank[1].wr_row ;
  (* hierconn *) logic \u_dut.gen_bank[2].we ;
  (* hierconn *) logic [13:0] \u_dut.gen_bank[2].wr_row ;
  (* hierconn *) logic \u_dut.gen_bank[3].we ;
  (* hierconn *) logic [13:0] \u_dut.gen_bank[3].wr_row ;
  (* hierconn *) logic \u_dut.gen_bank[4].we ;
  (* hierconn *) logic [13:0] \u_dut.gen_bank[4].wr_row ;
  (* hierconn *) logic \u_dut.gen_bank[5].we ;
  (* hierconn *) logic [13:0] \u_dut.gen_bank[5].wr_row ;
  (* hierconn *) logic \u_dut.gen_bank[6].we ;
  (* hierconn *) logic [13:0] \u_dut.gen_bank[6].wr_row ;
  (* hierconn *) logic \u_dut.gen_bank[7].we ;
  (* hierconn *) logic [13:0] \u_dut.gen_bank[7].wr_row ;
  logic [7:0] we;
  logic [7:0][13:0] row;
  assign we  = {\u_dut.gen_bank[7].we , \u_dut.gen_bank[6].we , \u_dut.gen_bank[5].we , \u_dut.gen_bank[4].we ,
      \u_dut.gen_bank[3].we , \u_dut.gen_bank[2].we , \u_dut.gen_bank[1].we , \u_dut.gen_bank[0].we };
  assign row = {\u_dut.gen_bank[7].wr_row , \u_dut.gen_bank[6].wr_row , \u_dut.gen_bank[5].wr_row ,
      \u_dut.gen_bank[4].wr_row ,
      \u_dut.gen_bank[3].wr_row , \u_dut.gen_bank[2].wr_row , \u_dut.gen_bank[1].wr_row , \u_dut.gen_bank[0].wr_row };

  // a write or a read through the write port, in the cycle after it, when its region stands at the ports
  logic valid_q = 1'b0, port_read_q = 1'b0;
  logic [16:0] addr_q;
  logic [7:0] mask_q;
  logic [7:0][31:0] data_q;
  logic [1:0][16:0] base_q;
  logic [1:0][17:0] limit_q;
  always_ff @(posedge clk_i) begin
    base_q      <= {base_q[0], base};
    limit_q     <= {limit_q[0], limit};
    valid_q     <= rst_ni && wr_valid_i;
    port_read_q <= wr_read_i && age_q >= 4'd2;
    {addr_q, mask_q, data_q} <= {wr_addr_i, wr_mask_i, wr_data};
  end

  // writes: which entry meets the quad, which lie outside
  logic [7:0] outside, hits;
  genvar v;
  generate
    for (v = 0; v < 8; v = v + 1) begin : g_entry
      logic [17:0] addr;
      assign addr       = {1'b0, addr_q} + 18'(v);
      assign outside[v] = mask_q[v] && (addr < {1'b0, base} || addr_q < base || addr >= limit);
      assign hits[v]    = mask_q[v] && !outside[v] && addr == {1'b0, quad};
    end
  endgenerate
  logic [31:0] hit_data;
  always @(*) begin
    hit_data = '0;
    for (int k = 0; k < 8; k = k + 1) if (hits[k]) hit_data = data_q[k];
  end

  logic past_q = 1'b0, known1_q = 1'b0, known2_q = 1'b0, changed_q = 1'b0;
  logic [31:0] word1_q, word2_q;  // two and three cycles after the write; from then on it can be requested
  logic [1:0] oob_q = '0;
  logic [5:0] asked_q = '0, changed_asked_q = '0;
  logic [5:0][31:0] want_q;
  logic [3:0] age_q = '0;
  logic [17:0] read_quad;
  assign read_quad = {1'b0, rd_addr_i} + 18'(entry) + (pair ? 18'(entry[2]) : 18'(entry)) * {1'b0, vstep, 3'b0};
  logic changing;
  assign changing = valid_q && hits != '0;
  always_ff @(posedge clk_i) begin
    past_q <= 1'b1;
    age_q  <= (age_q == 4'd15) ? age_q : age_q + 4'd1;
    oob_q  <= !rst_ni ? '0 : {oob_q[0], valid_q && outside != '0};
    if (changing) {known1_q, word1_q} <= {1'b1, hit_data};
    if (changing && known1_q && hit_data != word1_q) changed_q <= 1'b1;
    known2_q <= known1_q && !changing;
    word2_q  <= word1_q;
    // a request that meets a write on its way is not checked: the units never make one
    asked_q <= {asked_q[4:0], age_q >= 4'd2 && rd_valid_i && {1'b0, entry} < rd_count_i &&
        read_quad == {1'b0, quad} && known2_q && !changing};
    changed_asked_q <= {changed_asked_q[4:0], changed_q};
    want_q  <= {want_q[4:0], word2_q};
  end

  // a read through the write port takes the way of the writes: it sees all before it
  logic [6:0] port_asked_q = '0;
  logic [6:0][31:0] port_want_q;
  always_ff @(posedge clk_i) begin
    port_asked_q <= {port_asked_q[5:0], port_read_q && !entry[2] &&
        {1'b0, addr_q} + 18'(entry) == {1'b0, quad} && known1_q};
    port_want_q  <= {port_want_q[5:0], word1_q};
  end

  logic [31:0] read_entry, port_entry;
  assign read_entry = rd_data[entry];
  assign port_entry = port_data[entry[1:0]];
  always @(*) begin
    if (!past_q) assume (!rst_ni);
    else if (DATA != 0) assume (rst_ni);
    assume (limit <= 18'(8 * BANK_WORDS));  // main_controller refuses others: proof main_controller
    assume ({1'b0, quad} < 18'(8 * BANK_WORDS));
    if (wr_read_i) assume (!wr_valid_i);
    if (past_q && rst_ni) begin
      if (DATA != 0 && port_asked_q[6]) assert (port_entry == port_want_q[6]);
      if (DATA != 0 && asked_q[5]) assert (read_entry == want_q[5]);
      for (int k = 0; k < 8; k = k + 1) begin
        if (we[k]) begin
          assert (row[k] < 14'(BANK_WORDS));
          assert ({1'b0, row[k], 3'(k)} >= {1'b0, base_q[1]} && {1'b0, row[k], 3'(k)} < limit_q[1]);
        end
      end
      assert (oob == oob_q[1]);
    end
    cover (DATA == 0 || (asked_q[5] && vstep == 14'd1 && entry == 3'd1));
    cover (DATA == 0 || (asked_q[5] && vstep == 14'd1 && entry == 3'd5 && pair));
    cover (DATA == 0 || (asked_q[5] && vstep == '0 && entry == 3'd5 && quad[2:0] == 3'd2));
    cover (DATA == 0 || (asked_q[5] && changed_asked_q[5]));
    cover (DATA == 0 || (port_asked_q[6] && entry == 3'd3 && quad[2:0] == 3'd1));
    cover (past_q && we == 8'hff && row[0] == row[7] + 14'd1);
    cover (oob && past_q);
  end

endmodule

`default_nettype wire
