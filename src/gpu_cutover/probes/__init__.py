"""Reading a machine: plain data out, hard time-outs, never an exception for what a machine may do.

Travels to targets with the modules: standard library only, relative imports only.
"""
