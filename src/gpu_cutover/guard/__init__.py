"""The GPU host's guard: sample, decide, act. `placement` is shared with the modules that run on targets."""
