// Delay line: the word of DEPTH cycles ago.
`default_nettype none

module delay_line_proof #(
    parameter WIDTH = 3,
    parameter DEPTH = 3
) (
    input wire logic             clk_i,
    input wire logic [WIDTH-1:0] d_i
);

  logic [WIDTH-1:0] d_out;
  delay_line #(.WIDTH(WIDTH), .DEPTH(DEPTH)) u_dut (.clk_i(clk_i), .d_i(d_i), .d_o(d_out));

  // A word captured at a moment the solver chooses, and how long ago that was.
  (* anyseq *) logic pick;
  logic [4:0] age_q = '0;
  logic [WIDTH-1:0] word_q;
  always_ff @(posedge clk_i) begin
    if (pick && age_q == '0) begin
      age_q  <= 5'd1;
      word_q <= d_i;
    end else if (age_q != '0) age_q <= (age_q == 5'(DEPTH)) ? '0 : age_q + 5'd1;
  end
  always @(*) begin
    if (DEPTH == 0) assert (d_out == d_i);
    else if (age_q == 5'(DEPTH)) assert (d_out == word_q);
    cover (DEPTH == 0 ? d_out != '0 : age_q == 5'(DEPTH) && word_q != d_i);
  end

endmodule

`default_nettype wire
