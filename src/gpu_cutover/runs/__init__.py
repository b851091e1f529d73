"""A day or a verb as one run: its lock, its record, its progress, and what `status` says about all of them."""
