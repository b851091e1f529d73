"""The data plane on a gateway: decides per request from the route table, streams, falls back, mirrors, records."""
