"""The twin: the rehearsal's hosts on one machine, and everything that is not real about them."""
