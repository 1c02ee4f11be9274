"""What runs in an ordinary Python: aioquic and pylsqpack have no build for ours, niquests brings its own urllib3."""
