"""One worker: an event loop with its listeners, its Service, its ticker and its drain."""
