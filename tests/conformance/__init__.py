"""One suite for every wire: files are named after the specification they check."""
