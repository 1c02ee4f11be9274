"""What stands in for other servers in programs that were written for them."""
