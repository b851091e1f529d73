"""The answer of `plan scale` for a terminal: at most 120 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

WIDTH = 118


def lines(made: dict[str, Any]) -> Iterator[str]:
    """All parts that are there, in the order a person asks."""
    yield from _head(made)
    for part, show in (
        ("tree", _tree),
        ("chat", _chat),
        ("nodes", _nodes),
        ("batch", _batch),
        ("training", _training),
        ("matrix", _matrix),
        ("phases", _phases),
        ("rules", _rules),
        ("findings", _findings),
    ):
        if made.get(part):
            yield ""
            yield from show(made)
    yield ""
    yield from _wrapped("Assumed: ", _assumed(made), "         ")


def _head(made: dict[str, Any]) -> Iterator[str]:
    engine = made["engine"]
    yield f"Scaling with {made['model']} ({made['format']}, {engine['weights_gb']} GB of weights) on {made['gpu']}"
    if engine["gpus"] is None:
        yield "No engine: the model does not fit on 1, 2, 4 or 8 of these GPUs in this format"
        return
    yield (
        f"One engine: {engine['gpus']} GPU, one stream {engine['tokens_s']} tokens/s (physics"
        f" {engine['tokens_s_limit']}),"
        f" cache for {engine['streams']} chats, an answer alone {engine['answer_s']} s"
    )
    if made["verdict"] == "impossible":
        yield from _wrapped("IMPOSSIBLE: ", made["binding"], "            ")


def _tree(made: dict[str, Any]) -> Iterator[str]:
    yield "Which way to grow"
    for step in made["tree"]:
        yield f"  {step['question']}"
        yield from _wrapped("    -> ", f"{step['answer']} ({step['because']})", " " * 7)


def _chat(made: dict[str, Any]) -> Iterator[str]:
    chat = made["chat"]
    titles = [layout["title"] for layout in chat["layouts"]]
    yield "Chat: seconds to the first token, and to the end of the answer (p95)"
    yield f"  {'':>9} | {'framework says':^24} | " + " | ".join(f"{title:^17}" for title in titles)
    yield f"  {'users':>9} | {'1 GPU   2 GPU 4 servers':^24} | " + " | ".join(
        f"{'first':>7} {'whole':>9}" for _ in titles
    )
    limit = made["assumptions"]["first_token_s"]["value"]
    for row in chat["rows"]:
        said = [_said(value) for value in row["framework"]] or ["-", "-", "-"]
        cells = [_cell(row[layout["name"]], limit) for layout in chat["layouts"]]
        yield f"  {row['users']:>9,} | {said[0]:>6} {said[1]:>7} {said[2]:>9} | " + " | ".join(cells)
    kept = [f"{layout['users']:,} users" if layout["fits"] else "-" for layout in chat["layouts"]]
    yield f"  {'carries':>9} | {'':24} | " + " | ".join(f"{users:>17}" for users in kept)
    yield f"  '!' is over {limit:g} s. 'carries': first token <= {limit:g} s and a stream at reading speed, both at p95"


def _said(value: float | None) -> str:
    return "queue" if value is None else f"{value:g} s"


def _cell(seen: dict[str, Any] | None, limit: float) -> str:
    if seen is None:
        return f"{'does not fit':^17}"
    mark = "!" if seen["first_token_p95_s"] > limit else " "
    return f"{_seconds(seen['first_token_p95_s']):>6}{mark} {_seconds(seen['answer_p95_s']):>9}"


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _nodes(made: dict[str, Any]) -> Iterator[str]:
    nodes = made["nodes"]
    money = made["currency"]
    yield f"Servers for {nodes['users']:,} chat users, still carried with any one server lost"
    yield (
        f"  {'servers':<22}{'engines':>13}{'users':>9}{'at least':>10}{'gap':>7}{'purchase':>12}{'month':>10}"
        f"{'per million tokens':>20}"
    )
    for option in nodes["options"]:
        if option["nodes"] is None or option["nodes"] == 0:
            yield from _wrapped(f"  {option['name']:<22}", "impossible: " + option["binding"], " " * 24)
            continue
        yield (
            f"  {option['name']:<22}{_engines(option):>13}{option['served']:>9,}{option['bound']:>10}"
            f"{option['gap']:>7.1%}"
            f"{_money(option['capex']):>12}{_money(option['month']):>10}{_money(option['per_million'], 2):>20}"
            + ("   <- cheapest" if option["name"] == nodes["best"] and len(nodes["options"]) > 1 else "")
        )
        if option["binding"]:
            yield from _wrapped("    short: ", option["binding"], " " * 11)
    yield f"  'at least': no fewer servers can. {money}; a month is purchase over its months and electricity"


def _engines(option: dict[str, Any]) -> str:
    return f"{option['engines']} of {option['gpus_per_engine']} GPU"


def _money(value: float | None, digits: int = 0) -> str:
    return "no price" if value is None else f"{value:,.{digits}f}"


def _batch(made: dict[str, Any]) -> Iterator[str]:
    batch = made["batch"]
    sizes = list(batch["rows"][0]["tokens_s"])
    yield "Batch: answer tokens per second by how many requests are in the batch, and what they cost"
    yield (
        f"  {'':<19} | {'framework says':^20} | "
        + " ".join(f"{size:>8}" for size in sizes)
        + f" | {'purchase':>9} {'month':>7} {'per million':>12}"
    )
    for row in batch["rows"]:
        said = f"{row['framework'][0]:g} tok/s, {row['framework'][1]:.2f}/tok" if row["framework"] else "-"
        rates = " ".join(f"{rate:>8,.0f}" for rate in row["tokens_s"].values())
        rates = rates if row["fits"] else f"{'does not fit':^35}"
        yield (
            f"  {row['title']:<19} | {said:>20} | {rates} | {_money(row['capex']):>9} {_money(row['month']):>7}"
            f" {_money(row['per_million'], 2) if row['fits'] else '-':>12}"
        )
    busy = made["assumptions"]["batch_busy"]["value"]
    yield f"  per million answer tokens with a full batch {busy:.0%} of the month, {made['currency']}"


def _training(made: dict[str, Any]) -> Iterator[str]:
    training = made["training"]
    methods = training["methods"]
    yield f"Training: {made['gpu']} GPUs needed, memory of the states, hours (one GPU holds {training['usable_gb']} GB)"
    yield f"  {'model':<23}{'framework':>10} | " + " | ".join(f"{method:^17}" for method in methods)
    for row in training["rows"]:
        said = f"{row['framework_gpus']} GPU" if row["framework_gpus"] else "multi-node"
        yield f"  {row['model']:<23}{said:>10} | " + " | ".join(_need(row[method]) for method in methods)
    cnn = training["cnn"]
    fits = f"{cnn['gpus']} GPU" if cnn["gpus"] else "fewer images at once"
    yield (
        f"  A CNN (ResNet-50, {cnn['images']} images at once): {cnn['states_gb']} GB of states +"
        f" {cnn['activations_gb']} GB"
        f" of activations: {fits}; more GPUs only for time"
    )


def _need(need: dict[str, Any]) -> str:
    if need["gpus"] is None:
        return f"{'more than 64':^17}"
    return f"{need['gpus']:>2} GPU {need['states_gb']:>4.0f} GB {need['hours']:>2.0f}h"


def _matrix(made: dict[str, Any]) -> Iterator[str]:
    yield f"Vertical or horizontal   {'framework: vertical':<21}{'horizontal':<13}with figures"
    for row in made["matrix"]:
        first, *more = textwrap.wrap(row["ours"], WIDTH - 59) or [""]
        yield f"  {row['metric']:<23}{row['vertical']:<21}{row['horizontal']:<13}{first}"
        for line in more:
            yield " " * 59 + line


def _phases(made: dict[str, Any]) -> Iterator[str]:
    yield f"Phases{'':<44}{'framework':>16}{'purchase':>11}{'month':>8}{'users':>8}{'one lost':>10}"
    for phase in made["phases"]:
        said = "{:,}-{:,}".format(*phase["framework_price"]) if phase["framework_price"] else "-"
        figures = "".join(
            f"{'-' if phase[key] is None else format(phase[key], ',.0f'):>{width}}"
            for key, width in (("capex", 11), ("month", 8), ("users", 8), ("users_one_lost", 10))
        )
        yield f"  {phase['name']:<48}{said:>16}{figures}"
        yield f"      {phase['remark']}"


def _rules(made: dict[str, Any]) -> Iterator[str]:
    yield "When to add what"
    for rule in made["rules"]:
        yield f"  {rule['title']}: framework {rule['framework']} - {rule['verdict'].upper()}"
        for label, key in (("watch", "signal"), ("act", "action"), ("why", "why")):
            text = f"{rule[key]}, for {rule['hold']}; off: {rule['clear']}" if key == "signal" else rule[key]
            yield from _wrapped(f"    {label:<6}", text, " " * 10)


def _findings(made: dict[str, Any]) -> Iterator[str]:
    yield "Where the framework does not hold"
    for finding in made["findings"]:
        yield from _wrapped(f"  {finding['severity'].upper():<8} ", finding["text"], " " * 11)
        yield from _wrapped("           -> ", finding["fix"], " " * 14)


def _assumed(made: dict[str, Any]) -> str:
    values = {name: entry["value"] for name, entry in made["assumptions"].items()}
    return (
        f"{values['think_s']} s between answer and next question, {values['chat_prompt_tokens']:,} tokens of context"
        f" ({values['chat_new_tokens']} of them new), answers of {values['chat_answer_tokens']} tokens; purchase over"
        f" {values['amortisation_months']} months, {values['kwh']} {made['currency']}/kWh, PUE {values['pue']};"
        f" training on"
        f" {values['train_tokens'] / 1e6:g} M tokens. Every value and its source: --json, assumptions"
    )


def _wrapped(first: str, text: str, indent: str) -> Sequence[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False)
