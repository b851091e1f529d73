"""The work that every gateway is given: the same questions, as each of them wants to be asked."""

from __future__ import annotations

from typing import Any

SENTENCE = "The patient reports three days of cough and fever, no chest pain; takes metformin 500 mg twice daily. "
PROMPT = SENTENCE * 4  # 400 characters
AUDIO_MB = 20
JOBS = ("chat", "think", "stream", "embed", "audio")
# What the engine is asked to do for a job, as segments of the path (see engine.py).
PACE = {"chat": "", "think": "/d20", "stream": "/g1", "embed": "", "audio": ""}
TITLES = {
    "chat": "chat, engine answers at once",
    "think": "chat, engine takes 20 ms",
    "stream": "chat streamed, 20 events 1 ms apart",
    "embed": "embed",
    "audio": "audio, 20 MB",
}
OPENAI = {
    "chat": "/v1/chat/completions",
    "think": "/v1/chat/completions",
    "stream": "/v1/chat/completions",
    "embed": "/v1/embeddings",
    "audio": "/v1/audio/transcriptions",
}
Request = dict[str, Any]


def request(job: str, path: str, model: str, headers: dict[str, str] | None = None) -> Request:
    """The job's request on that path, for that model."""
    told: Request = {"path": path, "headers": headers or {}}
    if job == "audio":
        return {**told, "audio_mb": AUDIO_MB, "model": model}
    if job == "embed":
        return {**told, "json": {"model": model, "input": PROMPT}}
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 20}
    return {**told, "json": {**body, "stream": True} if job == "stream" else body}
