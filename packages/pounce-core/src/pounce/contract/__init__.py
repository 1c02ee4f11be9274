"""The contract between wires, the request core and plugins: the ground floor, which imports nothing above it."""
