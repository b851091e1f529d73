"""What one node should carry when every replica has a price: the pattern search behind `fleet`. Exact, pure.

A node is split into aligned blocks of 1, 2, 4, … GPUs. An engine over a whole block takes the same of each of its GPUs,
so both halves of the block are left alike, and the best filling of one half is the best of the other: the value of a
block is that of its engines plus twice the value of a half. A single GPU is a small knapsack in two dimensions, memory
and time, solved by branch and bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

VISITS = 20_000  # branches looked at in one knapsack before it answers with a bound instead of a proof


@dataclass(frozen=True)
class Item:
    """A replica: what it takes of each of its `gpus` GPUs."""

    name: str
    gpus: int
    memory: int
    time: int


@dataclass(frozen=True)
class Filling:
    """Engines (model, first GPU of its block), what they are worth, and what no filling is worth more than."""

    value: float
    bound: float
    engines: tuple[tuple[str, int], ...]


EMPTY = Filling(0.0, 0.0, ())


def sizes(gpus: int) -> list[int]:
    """Sizes of aligned blocks on a node: 1, 2, 4, … up to its number of GPUs."""
    return [1 << power for power in range(gpus.bit_length())]


def top_blocks(gpus: int) -> list[int]:
    """Sizes of the largest aligned blocks that make up a node: 6 GPUs are a block of 4 and one of 2."""
    return [size for size in reversed(sizes(gpus)) if gpus & size]


class Shelf:
    """One kind of node: how much a GPU gives, and the replicas that may stand on it."""

    def __init__(self, gpus: int, memory: int, time: int, items: Sequence[Item]) -> None:
        self.gpus, self.memory, self.time = gpus, memory, time
        self.items = [item for item in items if item.memory <= memory and item.time <= time]

    def part(self, item: Item) -> float:
        """How many GPUs' worth of the node the replica takes."""
        return item.gpus * _size(item, self.memory, self.time)

    def best(self, prices: Mapping[str, float]) -> tuple[float, list[tuple[int, Filling]]]:
        """What no filling of the node is worth more than, and the best filling of a block of each size.

        A larger block is filled only where engines over the whole of it are worth more than two halves alone.
        """
        known: dict[tuple[int, int, int], Filling] = {}
        fillings = {size: self._block(size, self.memory, self.time, prices, known) for size in sizes(self.gpus)}
        bound = sum(fillings[size].bound for size in top_blocks(self.gpus))
        whole = [(size, f) for size, f in fillings.items() if f.value > 2 * fillings.get(size // 2, EMPTY).value]
        return bound, whole

    def all(self, most: int) -> list[tuple[int, Filling]] | None:
        """Every filling of a block of each size with an engine over all of it; None if there are more than `most`."""
        found = []
        for size in sizes(self.gpus):
            for engines in self._fillings(size, self.memory, self.time, whole=True):
                found.append((size, Filling(0.0, 0.0, engines)))
                if len(found) > most:
                    return None
        return found

    def _fillings(self, size: int, memory: int, time: int, *, whole: bool) -> Iterator[tuple[tuple[str, int], ...]]:
        """Every filling of one block; `whole`: only those with an engine over all of it. The halves may be swapped."""
        for chosen in _multisets([item for item in self.items if item.gpus == size], memory, time):
            if whole and not chosen:
                continue
            own = tuple((item.name, 0) for item in chosen)
            if size == 1:
                yield own
                continue
            left = (memory - sum(item.memory for item in chosen), time - sum(item.time for item in chosen))
            for first in self._fillings(size // 2, *left, whole=False):
                for second in self._fillings(size // 2, *left, whole=False):
                    if first <= second:
                        yield own + first + tuple((name, at + size // 2) for name, at in second)

    def _block(
        self, size: int, memory: int, time: int, prices: Mapping[str, float], known: dict[tuple[int, int, int], Filling]
    ) -> Filling:
        key = (size, memory, time)
        if key not in known:
            items = [item for item in self.items if item.gpus == size and prices.get(item.name, 0.0) > 0]
            if size == 1:
                known[key] = _knapsack(items, memory, time, prices)
            else:
                known[key] = self._wide(size, items, memory, time, prices, known)
        return known[key]

    def _wide(
        self,
        size: int,
        items: Sequence[Item],
        memory: int,
        time: int,
        prices: Mapping[str, float],
        known: dict[tuple[int, int, int], Filling],
    ) -> Filling:
        found = EMPTY
        bound = 0.0
        for chosen in _multisets(items, memory, time):
            half = self._block(
                size // 2,
                memory - sum(item.memory for item in chosen),
                time - sum(item.time for item in chosen),
                prices,
                known,
            )
            own = sum(prices[item.name] for item in chosen)
            bound = max(bound, own + 2 * half.bound)
            if own + 2 * half.value > found.value:
                engines = tuple((item.name, 0) for item in chosen)
                found = Filling(own + 2 * half.value, 0.0, engines + half.engines + _moved(half, size // 2).engines)
        return Filling(found.value, bound, found.engines)


def _moved(filling: Filling, by: int) -> Filling:
    return Filling(filling.value, filling.bound, tuple((name, first + by) for name, first in filling.engines))


def _multisets(items: Sequence[Item], memory: int, time: int) -> Iterator[tuple[Item, ...]]:
    """Every choice of items, also several times the same, that fits; the empty one first."""
    yield ()
    for index, item in enumerate(items):
        if item.memory <= memory and item.time <= time:
            for more in _multisets(items[index:], memory - item.memory, time - item.time):
                yield (item, *more)


def _knapsack(items: Sequence[Item], memory: int, time: int, prices: Mapping[str, float]) -> Filling:
    """One GPU: the most worth of whole items within memory and time."""
    order = sorted(items, key=lambda item: (-prices[item.name] / _size(item, memory, time), item.name))
    search = _Branches(order, [prices[item.name] for item in order])
    root = search.limit(0, memory, time)
    search.visit(0, memory, time, 0.0, [])
    return Filling(search.value, search.value if search.visits < VISITS else root, tuple((n, 0) for n in search.names))


def _size(item: Item, memory: int, time: int) -> float:
    return max(item.memory / max(1, memory), item.time / max(1, time))


class _Branches:
    """Depth-first branch and bound over how often each item is taken."""

    def __init__(self, items: Sequence[Item], prices: Sequence[float]) -> None:
        self.items, self.prices = items, prices
        self.value, self.names, self.visits = 0.0, [""][:0], 0
        self.per_memory = self._rates([item.memory for item in items])
        self.per_time = self._rates([item.time for item in items])

    def _rates(self, sizes: Sequence[int]) -> list[float]:
        """From each item on, the most that one unit of a resource can earn."""
        rates = [0.0]
        for price, size in zip(reversed(self.prices), reversed(sizes), strict=True):
            rates.append(max(rates[-1], price / size if size else float("inf")))
        return rates[::-1]

    def limit(self, index: int, memory: int, time: int) -> float:
        return min(memory * self.per_memory[index] if memory else 0.0, time * self.per_time[index] if time else 0.0)

    def visit(self, index: int, memory: int, time: int, value: float, taken: list[str]) -> None:
        self.visits += 1
        if value > self.value:
            self.value, self.names = value, taken
        if index == len(self.items) or self.visits >= VISITS:
            return
        if value + self.limit(index, memory, time) <= self.value * (1 + 1e-12):
            return
        item = self.items[index]
        most = min(memory // item.memory, time // item.time if item.time else memory // item.memory)
        for number in range(most, -1, -1):
            self.visit(
                index + 1,
                memory - number * item.memory,
                time - number * item.time,
                value + number * self.prices[index],
                [*taken, *[item.name] * number],
            )
