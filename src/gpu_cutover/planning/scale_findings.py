"""Where the hospital's scaling framework and arithmetic part. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..catalog import Catalog
from ..catalog.scaling import Scaling
from . import latency, training
from .finding import Finding
from .queueing import waiting
from .scale_engine import SCENARIOS, Question, chat_engine, width
from .scale_tables import batch

LARGE = "llama-3.1-70b-instruct"
FRAMEWORK = "framework, section"


def findings(question: Question, scenarios: Sequence[str], catalog: Catalog, data: Scaling) -> Iterator[Finding]:
    """What is wrong in the framework for these scenarios, with figures of the GPU and model asked for."""
    yield from _links(question, catalog, data)
    if "chat" in scenarios:
        yield from _responses(question, catalog, data)
        yield _nodes_and_decoding(question, catalog, data)
    if "batch" in scenarios:
        yield from _batches(question, catalog, data)
    if "chat" in scenarios or "batch" in scenarios:
        yield _memory_rule(catalog)
    if "training" in scenarios:
        yield from _training(question, catalog, data)
    if set(scenarios) == set(SCENARIOS):
        yield from _ways(question, data)


def _links(question: Question, catalog: Catalog, data: Scaling) -> Iterator[Finding]:
    framework = catalog.gpus[data.gpu]
    if framework.nvlink:
        return
    layers = question.model.architecture.layers
    cost = 2 * layers * framework.all_reduce_s * 1000
    yield Finding(
        "l40s-no-nvlink",
        "blocker",
        0.9,
        f"The framework draws 2 x {data.gpu.upper()} with NVLink; the card has none, only PCIe Gen{framework.pcie_gen}"
        f" x{framework.pcie_width}: a model split over two spends 2 x {layers} x {framework.all_reduce_s * 1e6:.0f}"
        f" us ="
        f" {cost:.1f} ms per token on transfers",
        "one engine per card where its weights leave cache enough; split over a pair in one socket where they do not",
        f"{FRAMEWORK}s 27.2 and 27.3; {framework.sources['nvlink']}",
    )


def _responses(question: Question, catalog: Catalog, data: Scaling) -> Iterator[Finding]:
    model, weights = catalog.models[LARGE], catalog.formats["awq-int4"]
    tokens = data.chat_answer_tokens
    floor = latency.note_floor(model, weights, question.gpu, 2, tokens)
    gpus = width(question, catalog, data)
    own = ""
    if gpus:
        alone = chat_engine(question, gpus, catalog, data).answer_s(1)
        own = f", and one of {question.model.name} takes {alone:.1f} s alone on {gpus} x {question.gpu_name}"
    yield Finding(
        "p95-two-seconds-never-clears",
        "major",
        0.9,
        f"'p95 > {data.response_limit_s:g} s: scale horizontally' never clears: an answer of {tokens} tokens by a"
        f" 70B in"
        f" int4 on 2 x {question.gpu_name} cannot take less than {floor:.1f} s at full memory bandwidth{own}",
        "alarm on the first token (p95 > 1 s) and on the time in the queue, which another engine does shorten",
        f"{FRAMEWORK} 27.6; bytes per token / memory bandwidth",
    )
    engine = chat_engine(question, gpus, catalog, data) if gpus else None
    if engine is None:
        return
    busiest = max(data.chat_users)
    seen = waiting(engine, busiest)
    yield Finding(
        "response-time-says-not-what",
        "minor",
        0.5,
        f"The table of users and response times names neither model, prompt, answer nor think time: with"
        f" {question.model.name} {busiest} users of one engine wait {seen.first_token_p95_s:.1f} s for the first token"
        f" and {seen.answer_p95_s:.0f} s for the whole answer (p95)",
        "state tokens, think time and percentile with every figure, and measure both times",
        f"{FRAMEWORK} 27.1; closed queue with {data.think_s:g} s of thinking",
    )


def _nodes_and_decoding(question: Question, catalog: Catalog, data: Scaling) -> Finding:
    gpus = width(question, catalog, data) or 1
    engine = chat_engine(question, gpus, catalog, data)
    return Finding(
        "nodes-shorten-the-queue-only",
        "minor",
        0.6,
        f"The table lets 4 servers answer 10 users in a quarter of one GPU's time; an idle engine still needs"
        f" {engine.prefill_s:.2f} s + {data.chat_answer_tokens} x {engine.itl_s * 1000:.1f} ms ="
        f" {engine.answer_s(1):.1f} s"
        " however many others stand beside it",
        "add nodes for more users, not for faster answers; for those fewer bits, a smaller model or faster memory",
        f"{FRAMEWORK} 27.1; planning/latency.py",
    )


def _batches(question: Question, catalog: Catalog, data: Scaling) -> Iterator[Finding]:
    rows = {row["name"]: row for row in batch(question, catalog, data)["rows"]}
    said, cost = data.batch_table["one-gpu"]
    row = next((row for row in rows.values() if row["fits"]), None)
    if row:
        alone, most = row["tokens_s"][str(min(data.batch_sizes))], max(row["tokens_s"].values())
        yield Finding(
            "batch-table-is-one-stream",
            "major",
            0.7,
            f"The batch table's {said:g} tokens/s is the order of one stream (here {alone:.0f}); the batches of"
            f" {data.batch_sizes[1]}-{data.batch_sizes[-1]} that the same section asks for give {most:.0f} tokens/s"
            f" with"
            f" {row['title']}",
            "size batch work by the throughput of a full batch, and the cache by how many requests it holds",
            f"{FRAMEWORK} 27.2; 4.5 % more time per token and stream",
        )
    ours = next((row["per_million"] for row in rows.values() if row["per_million"]), None)
    yield Finding(
        "cost-per-token-is-no-token",
        "major",
        0.8,
        f"{cost:.2f} {data.currency} per token at {said:g} tokens/s is {cost * said * 86400:,.0f} {data.currency} a"
        f" day;"
        f" even per 1,000 tokens it is {cost * 1000:,.0f} {data.currency} a million"
        + (f", ours is {ours:,.2f}" if ours else ""),
        "compare cost per million answer tokens: (purchase / months + electricity) / tokens of the month",
        f"{FRAMEWORK} 27.2; prices and busy hours of catalog/scaling.yml",
    )
    pair, two = rows["two-engines"], rows["two-servers"]
    if pair["fits"] and pair["capex"]:
        yield Finding(
            "two-servers-are-not-slower",
            "minor",
            0.4,
            f"The table lets 2 servers give less (90) than 2 cards in one (95): separate engines exchange nothing, both"
            f" give {max(pair['tokens_s'].values()):.0f} tokens/s; what differs is the price,"
            f" {two['capex']:,} against {pair['capex']:,} {data.currency}",
            "decide by price and by what is lost with a server, not by throughput",
            f"{FRAMEWORK} 27.2",
        )


def _memory_rule(catalog: Catalog) -> Finding:
    share = catalog.vllm.gpu_memory_utilization
    return Finding(
        "gpu-memory-rule-always-true",
        "major",
        0.6,
        f"'GPU memory > 90 %' is true from the first minute: vLLM takes {share:.0%} of the card when it starts,"
        f" whatever"
        " the load",
        "watch vllm:kv_cache_usage_perc > 0.9 together with preemptions",
        f"{FRAMEWORK} 27.6; {catalog.vllm.sources['gpu_memory_utilization']}",
    )


def _training(question: Question, catalog: Catalog, data: Scaling) -> Iterator[Finding]:
    usable = training.usable_bytes(catalog.gpus[data.gpu], data) / 1e9
    per = sum(data.methods["full"])
    for below, cards in data.training_tree[:2]:
        if below is None or cards is None:
            continue
        full = training.states_bytes(below * 1e9, "full", data) / 1e9
        slim = training.states_bytes(below * 1e9, "full-8bit", data) / 1e9
        frozen = training.states_bytes(below * 1e9, "lora", data) / 1e9
        tight = training.states_bytes(below * 1e9, "qlora", data) / 1e9
        room = usable * cards
        holds = [name for name, size in (("LoRA", frozen), ("QLoRA", tight)) if size < room]
        yield Finding(
            f"full-fine-tune-{below}b",
            "major",
            0.9 if cards == 1 else 0.8,
            f"'Up to {below}B on {cards} x {data.gpu.upper()}' is not true of full fine-tuning: {below} B x {per:g}"
            f" bytes ="
            f" {full:.0f} GB against {room:.0f} GB ({slim:.0f} GB with an 8-bit optimiser, {frozen:.0f} GB of"
            f" weights with"
            f" LoRA, {tight:.0f} GB with QLoRA, each before activations)",
            f"use {' or '.join(holds)} on these cards; full fine-tuning needs"
            f" {-(-int(full) // int(usable))} of them and a network for its gradients",
            f"{FRAMEWORK} 27.3; {data.sources['methods']['full']}",
        )
    yield Finding(
        "raid-is-no-replica",
        "minor",
        0.3,
        "RAID 10 is one copy in one server; three replicas of a checkpoint are three machines or three failure domains",
        "write checkpoints to local NVMe, copy them to an object store with three copies, name them last in a manifest",
        f"{FRAMEWORK} 27.3",
    )


def _ways(question: Question, data: Scaling) -> Iterator[Finding]:
    one, two = data.server(question.gpu_name, 1), data.server(question.gpu_name, 2)
    if one is not None and two is not None:
        yield Finding(
            "horizontal-is-not-cheaper",
            "minor",
            0.4,
            f"The matrix calls horizontal the lower initial cost: two cards in one server cost {two:,}"
            f" {data.currency}, in"
            f" two servers {2 * one:,}; what the second buys is that one may fail",
            "take the second server for redundancy and say so; take the second card for throughput",
            f"{FRAMEWORK} 27.5; {data.sources['card'].get(question.gpu_name, '')}",
        )
    yield Finding(
        "phase-one-has-no-spare",
        "minor",
        0.5,
        "Phase 1 runs three months on one server with no redundancy while three scenarios share two cards: a"
        " training job"
        " takes a card from chat for hours",
        "keep the cloud as second leg of what may go there in phase 1, and train at night",
        f"{FRAMEWORK}s 27.6 and 27.7",
    )
    yield Finding(
        "kubernetes-is-not-needed-yet",
        "note",
        0.3,
        "Kubernetes 'even single-node initially' adds a control plane that decides nothing with one node: a load"
        " balancer"
        " and one systemd unit per engine do the same until several teams share a pool",
        "start with HAProxy (leastconn, a health check that asks for the model) and units; move when pools are shared",
        f"{FRAMEWORK} 27.7; own judgement",
    )
