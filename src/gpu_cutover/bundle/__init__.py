"""The offline bundle: everything a target installs, in one directory with one list of digests."""
