"""The gateways' records on the controller: collected, proven, asked, handed to an auditor.

`store` keeps the copies, `kept` reads the checkpoints in the ledger, `proof` verifies, `query` asks, `export` packs.
The records themselves are written on the gateways (`router.record`, `router.chain`).
"""
