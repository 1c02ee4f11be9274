"""The HTTP/1.1 wire (RFC 9112)."""
