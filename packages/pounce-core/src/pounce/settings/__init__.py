"""The settings of the server, in groups; `pounce.config.ServerConfig` is all of them."""
