"""The ledger: what stands behind every verdict, signed, chained and readable without this tool's daemons.

`records` reads it without cryptography (for `status`), `ledger` appends, `audit` verifies, `days` decides which day may
start.
"""
