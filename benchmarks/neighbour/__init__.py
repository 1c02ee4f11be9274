"""What one hostile connection does to the latency of another client."""
