"""The smoke benchmark: every route asked as a clinic asks it, timed to the first token, between tokens and in all.

Travels to the gateway with its module: relative imports, stdlib only.
"""
