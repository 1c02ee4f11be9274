"""What the server answers itself, beside health and metrics."""
