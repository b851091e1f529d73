"""What fits where, how fast physics lets it be, and everything a site's declaration implies. Pure functions."""
