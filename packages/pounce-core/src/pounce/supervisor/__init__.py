"""The process that keeps server processes alive, and what it tells the system."""
