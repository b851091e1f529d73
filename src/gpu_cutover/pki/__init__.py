"""The site's own certificate authority: who may knock at the edge, and what the edge shows."""
