"""The fast HTTP/1.1 parser of pounce. Being installed is all it takes: it is preferred to h11."""
