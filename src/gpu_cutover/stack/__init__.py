"""The inference stack on a host: environments from a lock, verified model files, what really runs.

Travels to the targets with modules: relative imports, stdlib only.
"""
