"""HTTP/3 clients that run in an ordinary Python: aioquic has no build for ours, and niquests brings its own urllib3."""
