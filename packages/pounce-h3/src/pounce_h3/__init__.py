"""HTTP/3 for the pounce server. Installed, it is used with `--http3` and a certificate."""
