"""`vllm serve`: the endpoints."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import sys
import time
import uuid
from typing import Any

from aiohttp import web

from . import __version__, answers
from .engine import CHARACTERS_PER_TOKEN, Engine, StartError
from .flags import parser

VOICE = "onprem"
EMBEDDING_DIMENSIONS = 1024
IMAGE_TOKENS = 576  # one tile of LLaVA-1.6; a large picture has up to five
ENGINE: web.AppKey[Engine] = web.AppKey("engine", Engine)


def refuse(status: int, message: str, kind: str) -> web.HTTPException:
    """vLLM's error body."""
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": status}})
    classes = {400: web.HTTPBadRequest, 404: web.HTTPNotFound}
    return classes[status](text=body, content_type="application/json")


async def body_of(request: web.Request) -> dict[str, Any]:
    """The JSON body, with a model that is served here."""
    try:
        data = await request.json()
    except ValueError as error:
        raise refuse(400, f"Invalid JSON: {error}", "BadRequestError") from error
    if not isinstance(data, dict):
        raise refuse(400, "The body must be an object", "BadRequestError")
    check_model(request.app[ENGINE], data.get("model"))
    return data


def check_model(engine: Engine, model: Any) -> None:
    """The named model must be the served one (none named: the served one)."""
    if model is not None and model not in engine.names:
        raise refuse(404, f"The model `{model}` does not exist.", "NotFoundError")


async def health(request: web.Request) -> web.Response:
    """200 with an empty body."""
    return web.Response()


async def version(request: web.Request) -> web.Response:
    """The version string."""
    return web.json_response({"version": __version__})


async def models(request: web.Request) -> web.Response:
    """The served model."""
    engine = request.app[ENGINE]
    entries = [
        {"id": name, "object": "model", "owned_by": "vllm", "root": name, "max_model_len": engine.max_model_len}
        for name in engine.names
    ]
    return web.json_response({"object": "list", "data": entries})


async def metrics(request: web.Request) -> web.Response:
    """Prometheus text."""
    return web.Response(text=request.app[ENGINE].metrics.text(), content_type="text/plain")


async def chat(request: web.Request) -> web.StreamResponse:
    """/v1/chat/completions, whole or as server-sent events."""
    engine, data = request.app[ENGINE], await body_of(request)
    if engine.is_pooling or engine.is_speech:
        raise refuse(400, "The model does not support Chat Completions API", "BadRequestError")
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise refuse(400, "messages: a non-empty list of messages is required", "BadRequestError")
    prompt_tokens = len(answers.message_text(messages)) // CHARACTERS_PER_TOKEN + 1
    prompt_tokens += IMAGE_TOKENS if answers.has_image(messages) else 0
    pieces = answers.pieces(answers.chat(messages, VOICE))
    limit = data.get("max_completion_tokens") or data.get("max_tokens") or len(pieces)
    wanted = limit if data.get("ignore_eos") else min(limit, data.get("min_tokens") or 0)
    pieces = list(itertools.islice(itertools.cycle(pieces), max(len(pieces), wanted)))
    if prompt_tokens > engine.max_model_len:
        raise refuse(400, f"This model's maximum context length is {engine.max_model_len} tokens.", "BadRequestError")
    reason = "length" if limit < len(pieces) else "stop"
    pieces = pieces[:limit]
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": engine.names[0]}
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": len(pieces),
        "total_tokens": prompt_tokens + len(pieces),
    }
    if data.get("stream"):
        return await _stream(
            request, engine, head, pieces, reason, usage, bool((data.get("stream_options") or {}).get("include_usage"))
        )
    async with engine.slot() as arrived:
        await asyncio.sleep(engine.first_token_s(prompt_tokens))
        first = time.monotonic()
        await asyncio.sleep(engine.pace().itl_s * (len(pieces) - 1))
        engine.finish(arrived, first, prompt_tokens, len(pieces), reason)
    message = {"role": "assistant", "content": "".join(pieces)}
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})


async def _stream(
    request: web.Request,
    engine: Engine,
    head: dict[str, Any],
    pieces: list[str],
    reason: str,
    usage: dict[str, int],
    with_usage: bool,
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    )

    async def event(delta: dict[str, str], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        await response.write(_event({**head, "object": "chat.completion.chunk", "choices": [choice]}))

    async with engine.slot() as arrived:
        await response.prepare(request)
        await asyncio.sleep(engine.first_token_s(usage["prompt_tokens"]))
        first = time.monotonic()
        await event({"role": "assistant", "content": ""})
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(engine.pace().itl_s)
            await event({"content": piece})
        await event({}, reason)
        if with_usage:
            await response.write(_event({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")
        engine.finish(arrived, first, usage["prompt_tokens"], len(pieces), reason)
    await response.write_eof()
    return response


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


async def transcribe(request: web.Request) -> web.Response:
    """/v1/audio/transcriptions, multipart."""
    engine = request.app[ENGINE]
    if not engine.is_speech:
        raise refuse(400, "The model does not support Transcriptions API", "BadRequestError")
    try:
        form = await request.post()
    except ValueError as error:
        raise refuse(400, f"Invalid form: {error}", "BadRequestError") from error
    upload = form.get("file")
    if not isinstance(upload, web.FileField):
        raise refuse(400, "file: an audio file is required", "BadRequestError")
    check_model(engine, form.get("model"))
    audio = upload.file.read()
    seconds = answers.clip_seconds(audio)
    text = answers.transcript(audio, VOICE)
    await _compute(
        engine,
        engine.first_token_s(0) + engine.pace().rtf * seconds,
        int(seconds * 50),
        len(text) // CHARACTERS_PER_TOKEN,
    )
    if form.get("response_format") == "text":
        return web.Response(text=text)
    return web.json_response({"text": text, "usage": {"type": "duration", "seconds": int(seconds) + 1}})


async def _compute(engine: Engine, seconds: float, prompt_tokens: int, tokens: int) -> None:
    async with engine.slot() as arrived:
        await asyncio.sleep(seconds)
        engine.finish(arrived, time.monotonic(), prompt_tokens, tokens, "stop")


def _pooling(engine: Engine, what: str) -> None:
    if not engine.is_pooling:
        raise refuse(400, f"The model does not support {what} API", "BadRequestError")


async def embeddings(request: web.Request) -> web.Response:
    """/v1/embeddings."""
    engine, data = request.app[ENGINE], await body_of(request)
    _pooling(engine, "Embeddings")
    texts = [data["input"]] if isinstance(data.get("input"), str) else data.get("input")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise refuse(400, "input: a text or a list of texts is required", "BadRequestError")
    tokens = sum(len(text) // CHARACTERS_PER_TOKEN + 1 for text in texts)
    await _compute(engine, engine.first_token_s(tokens), tokens, 0)
    rows = [
        {"index": index, "object": "embedding", "embedding": answers.embedding(text, EMBEDDING_DIMENSIONS)}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    return web.json_response(
        {"id": f"embd-{uuid.uuid4().hex}", "object": "list", "model": engine.names[0], "data": rows, "usage": usage}
    )


async def rerank(request: web.Request) -> web.Response:
    """/rerank, /v1/rerank, /v2/rerank: Cohere's shape."""
    engine, data = request.app[ENGINE], await body_of(request)
    _pooling(engine, "Rerank (Score)")
    query, documents = data.get("query"), data.get("documents")
    if not isinstance(query, str) or not isinstance(documents, list) or not documents:
        raise refuse(400, "query and documents are required", "BadRequestError")
    texts = [document if isinstance(document, str) else str(document.get("text", "")) for document in documents]
    tokens = sum(len(text) // CHARACTERS_PER_TOKEN + 1 for text in texts)
    await _compute(engine, engine.first_token_s(tokens), tokens, 0)
    ranked = answers.ranking(query, texts, VOICE)[: data.get("top_n") or len(texts)]
    results = [
        {"index": index, "document": {"text": texts[index]}, "relevance_score": score} for index, score in ranked
    ]
    return web.json_response(
        {
            "id": f"rerank-{uuid.uuid4().hex}",
            "model": engine.names[0],
            "usage": {"total_tokens": tokens},
            "results": results,
        }
    )


@web.middleware
async def key_and_request_id(request: web.Request, handler: Any) -> web.StreamResponse:
    """--api-key guards /v1; --enable-request-id-headers echoes the caller's id."""
    options: argparse.Namespace = request.app[OPTIONS]
    if (
        options.api_key
        and request.path.startswith("/v1")
        and request.headers.get("Authorization") != f"Bearer {options.api_key}"
    ):
        return web.json_response({"error": "Unauthorized"}, status=401)
    response: web.StreamResponse = await handler(request)
    if options.enable_request_id_headers and not response.prepared:
        response.headers["X-Request-Id"] = request.headers.get("X-Request-Id", uuid.uuid4().hex)
    return response


OPTIONS: web.AppKey[argparse.Namespace] = web.AppKey("options", argparse.Namespace)


async def application(options: argparse.Namespace) -> web.Application:
    """The server; raises StartError where vLLM would not start."""
    app = web.Application(client_max_size=64 * 2**20, middlewares=[key_and_request_id])
    app[OPTIONS] = options
    app[ENGINE] = Engine(options)
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/ping", health),
            web.get("/version", version),
            web.get("/v1/models", models),
            web.get("/metrics", metrics),
            web.post("/v1/chat/completions", chat),
            web.post("/v1/audio/transcriptions", transcribe),
            web.post("/v1/embeddings", embeddings),
            web.post("/rerank", rerank),
            web.post("/v1/rerank", rerank),
            web.post("/v2/rerank", rerank),
        ]
    )
    return app


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT; requests in flight are cut, as vLLM cuts them."""
    runner = web.AppRunner(await application(options), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, options.host, options.port, reuse_address=True).start()
    print("INFO:     Application startup complete.", flush=True)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    living = asyncio.create_task(runner.app[ENGINE].live())
    await ended.wait()
    living.cancel()
    await runner.cleanup()


def main() -> int:
    """The console script `vllm`."""
    options = parser().parse_args()
    try:
        asyncio.run(serve(options))
    except StartError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
