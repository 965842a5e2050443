// Program and weights stream: whatever comes, no program word is written beyond the memory and none out of order;
// weights are stable while stalled; at most one error until clear_i; prog_valid_o needs a whole program.
`default_nettype none

module stream_parser_proof #(
    parameter PROG_WORDS = 3
) (
    input wire logic        clk_i,
    input wire logic        rst_ni,
    input wire logic        clear_i,
    input wire logic        busy_i,
    input wire logic [63:0] s_axis_tdata,
    input wire logic [7:0]  s_axis_tkeep,
    input wire logic        s_axis_tvalid,
    input wire logic        s_axis_tlast,
    input wire logic        weights_ready_i
);

  logic tready, prog_we, prog_valid, prog_start, prog_done, weights_valid, weights_done, first_beat, err_valid;
  logic [10:0] prog_addr;
  logic [63:0] prog_data, weights_data;
  logic [7:0] err_code;

  stream_parser #(.PROG_WORDS(PROG_WORDS)) u_dut (
      .clk_i(clk_i), .rst_ni(rst_ni), .clear_i(clear_i), .busy_i(busy_i), .s_axis_tdata(s_axis_tdata),
      .s_axis_tkeep(s_axis_tkeep),
      .s_axis_tvalid(s_axis_tvalid), .s_axis_tready(tready), .s_axis_tlast(s_axis_tlast), .prog_we_o(prog_we),
      .prog_addr_o(prog_addr),
      .prog_data_o(prog_data), .prog_valid_o(prog_valid), .prog_start_o(prog_start), .prog_done_o(prog_done),
      .weights_valid_o(weights_valid), .weights_ready_i(weights_ready_i), .weights_data_o(weights_data),
      .weights_done_o(weights_done),
      .first_beat_o(first_beat), .err_valid_o(err_valid), .err_code_o(err_code)
  );

  localparam logic [2:0] HEADER = 3'd0, PROGRAM = 3'd1, WEIGHTS = 3'd2, TRAILER = 3'd3, DROP = 3'd4;
  (* hierconn *) logic [2:0] \u_dut.state_q ;
  (* hierconn *) logic [31:0] \u_dut.left_q ;
  (* hierconn *) logic \u_dut.left_one_q ;
  (* hierconn *) logic [10:0] \u_dut.addr_q ;
  (* hierconn *) logic \u_dut.check_q ;
  (* hierconn *) logic \u_dut.check_program_q ;
  (* hierconn *) logic \u_dut.is_program_q ;
  (* hierconn *) logic [70:0] \u_dut.u_skid.out_data_q ;
  (* hierconn *) logic [70:0] \u_dut.u_skid.skid_data_q ;
  (* hierconn *) logic \u_dut.u_skid.out_valid_q ;
  (* hierconn *) logic \u_dut.u_skid.skid_valid_q ;
  (* hierconn *) logic \u_dut.u_skid.ready_q ;

  // what was decided about a beat before the register slice belongs to its data
  function automatic logic consistent(input logic [70:0] beat);
    logic [31:0] magic, length;
    magic      = program_pkg::packet_magic(beat[63:0]);
    length     = program_pkg::packet_length(beat[63:0]);
    consistent = beat[70] == (magic == program_pkg::MAGIC_PROGRAM) &&
        beat[69] == (magic == program_pkg::MAGIC_WEIGHTS) &&
        beat[68] == (length == 32'd0) && beat[67] == (length == 32'd1) && beat[66] == (length != 32'd0 &&
        length <= 32'(PROG_WORDS));
  endfunction

  logic past_q = 1'b0, failed_q = 1'b0, stalled_q = 1'b0;
  logic [63:0] weights_q;
  logic [10:0] next_q;  // program words written since the header
  logic [15:0] programs_q = '0;
  always_ff @(posedge clk_i) begin
    past_q    <= 1'b1;
    stalled_q <= rst_ni && !clear_i && weights_valid && !weights_ready_i;
    weights_q <= weights_data;
    if (!rst_ni || clear_i) failed_q <= 1'b0;
    else if (err_valid) failed_q <= 1'b1;
    if (!rst_ni || clear_i || prog_start) next_q <= '0;
    else if (prog_we) next_q <= next_q + 11'd1;
  end

  logic calm;
  assign calm = past_q && rst_ni && !clear_i;
  always @(*) begin
    if (!past_q) assume (!rst_ni);
    if (past_q && rst_ni) begin
      assert (!prog_we || prog_addr < 11'(PROG_WORDS));
      assert (!prog_we || prog_addr == (prog_start ? 11'd0 : next_q));
      assert (!(prog_done && weights_done));
      assert (!prog_done || prog_valid || prog_start);  // the next program may begin in the same cycle
    end
    if (calm) begin
      assert (!(failed_q && err_valid));
      assert (!err_valid || err_code != 8'd0);
      assert (!failed_q || (!prog_we && !weights_valid && !prog_done && !weights_done));
      if (stalled_q) assert (weights_valid && weights_data == weights_q);
    end
    // invariants
    if (past_q && rst_ni) begin
      assert (\u_dut.state_q <= DROP);
      assert (!\u_dut.u_skid.skid_valid_q || \u_dut.u_skid.out_valid_q );
      assert (!\u_dut.u_skid.ready_q || !\u_dut.u_skid.skid_valid_q );
      if (\u_dut.u_skid.out_valid_q ) assert (consistent(\u_dut.u_skid.out_data_q ));
      if (\u_dut.u_skid.skid_valid_q ) assert (consistent(\u_dut.u_skid.skid_data_q ));
      if (\u_dut.state_q == PROGRAM) begin
        assert (\u_dut.left_q != '0 && \u_dut.left_q <= 32'(PROG_WORDS));
        assert (\u_dut.left_one_q == (\u_dut.left_q == 32'd1));
        assert (32'(\u_dut.addr_q ) + \u_dut.left_q <= 32'(PROG_WORDS));
        assert (\u_dut.addr_q == (prog_start ? 11'd0 : next_q + 11'(prog_we)));
        assert (!prog_start || !prog_we);
      end
      assert (!prog_we || !prog_start);
      assert (!prog_start || \u_dut.state_q == PROGRAM || \u_dut.state_q == DROP);
      if ((failed_q || err_valid) && !clear_i) assert (\u_dut.state_q == DROP && !\u_dut.check_q && !prog_we);
      if (\u_dut.state_q == TRAILER || \u_dut.state_q == HEADER) assert (!failed_q && !err_valid || clear_i);
      assert (!(\u_dut.check_q && prog_done && \u_dut.check_program_q ));
    end
    cover (past_q && calm && prog_we && prog_addr == 11'(PROG_WORDS - 1));
    cover (past_q && calm && stalled_q && weights_valid && weights_ready_i);
    cover (past_q && calm && weights_done);
    cover (past_q && calm && failed_q && s_axis_tvalid && tready);
  end

endmodule

`default_nettype wire
