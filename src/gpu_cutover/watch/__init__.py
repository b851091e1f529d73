"""The watch over a tenant that was just cut over: sample the router's records, decide, roll back by itself."""
