// CRC step: equal to 64 steps of the bit-serial CRC-32 (reflected polynomial).
//
// Parities of 64 bits are beyond a SAT solver, so the equality is shown on a basis: all zero, and each of the 96 input
// bits alone.  Both forms consist of XORs of input bits only, by their text, hence are linear and equal everywhere if
// equal there.
`default_nettype none

module crc32_word_proof (
    input wire logic [31:0] crc_i,
    input wire logic [63:0] data_i
);

  logic [31:0] crc;
  crc32_word u_dut (.crc_i(crc_i), .data_i(data_i), .crc_o(crc));

  logic [95:0] bits;
  assign bits = {crc_i, data_i};

  function automatic logic [31:0] serial(input logic [31:0] start, input logic [63:0] data);
    serial = start;
    for (int i = 0; i < 64; i = i + 1) serial = (serial >> 1) ^ ((serial[0] ^ data[i]) ? 32'hedb88320 : 32'h0);
  endfunction

  always @(*) begin
    if ((bits & (bits - 96'd1)) == '0) assert (crc == serial(crc_i, data_i));
    // zlib.crc32(b"12345678") = 0x9ae0daaf
    cover (crc_i == 32'hffffffff && data_i == 64'h3837363534333231 && crc == ~32'h9ae0daaf);
  end

endmodule

`default_nettype wire
