"""gpu-cutover: ten gated days from cloud LLMs to an own GPU server.

Kept empty of imports: this file travels to every target with the modules.
"""

__version__ = "0.1.0"
