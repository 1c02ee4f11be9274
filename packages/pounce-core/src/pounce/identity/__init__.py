"""Identity: who asks and through whom, before anything else is done with a request."""
