"""How much may be under way at once, and how much of it may be one tenant's. Pure.

The share is a dynamic threshold, as in shared-memory switches (Choudhury and Hahne, 1998): a tenant may hold at most
`SHARE` times what is still free. Alone it gets 4/5 of everything; two greedy ones 4/9 each; whatever they do, there is
room for one more. No list of tenants and no reserved part is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SHARE = 4


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not taken in now: 429 where this tenant holds its share, 503 where nothing is left."""

    status: int
    reason: str
    sentence: str


@dataclass(slots=True)
class Pool:
    """Something limited, and who holds how much of it."""

    limit: int
    used: int = 0
    held: dict[str, int] = field(default_factory=dict)

    def has_room(self, size: int) -> bool:
        """Is there room for it at all?"""
        return self.used + size <= self.limit

    def is_fair(self, tenant: str, size: int) -> bool:
        """Would the tenant, with it, hold no more than its share of what is then free?"""
        return self.held.get(tenant, 0) + size <= SHARE * (self.limit - self.used - size)

    def take(self, tenant: str, size: int) -> None:
        """Hold it. `has_room` and `is_fair` are asked first."""
        self.used += size
        self.held[tenant] = self.held.get(tenant, 0) + size

    def give_back(self, tenant: str, size: int) -> None:
        """Let go of it."""
        self.used -= size
        left = self.held[tenant] - size
        if left:
            self.held[tenant] = left
        else:
            del self.held[tenant]


class Admission:
    """Requests under way (at least two may be) and the bytes of their bodies."""

    def __init__(self, requests: int, body_bytes: int) -> None:
        self.requests, self.body_bytes = Pool(requests), Pool(body_bytes)

    def enter(self, tenant: str, size: int) -> Refusal | None:
        """Take a request with a body of `size` bytes in, or say why not. What was taken in must `leave`."""
        if not self.requests.has_room(1) or not self.body_bytes.has_room(size):
            return Refusal(503, "full", "too much is under way at the moment")
        if not self.requests.is_fair(tenant, 1) or not self.body_bytes.is_fair(tenant, size):
            return Refusal(429, "share", "too much of this tenant is under way at the moment")
        self.requests.take(tenant, 1)
        if size:
            self.body_bytes.take(tenant, size)
        return None

    def leave(self, tenant: str, size: int) -> None:
        """The request is over."""
        self.requests.give_back(tenant, 1)
        if size:
            self.body_bytes.give_back(tenant, size)
