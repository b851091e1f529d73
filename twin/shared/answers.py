"""What the stand-ins answer: deterministic, clinical-looking, the same facts in two voices.

The cloud stand-in speaks with voice "cloud", the engine stand-in with voice "onprem": equal drugs, doses, figures and
order, different wording, so that comparing answers has something to do and something to find.
Does NOT imitate: a model. It copies the facts it finds in the prompt, never reasons, never hears, never sees.
Standard library only: it runs in the engine's wheel and on the plain Python of the outside hosts.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from functools import lru_cache

DRUG_WITH_DOSE = re.compile(r"\b([A-Za-z][a-z]{3,})\s+(\d+(?:[.,]\d+)?)\s*(mg|mcg|g|ml|iu|units?)\b")
PRESSURE = re.compile(r"\b(\d{2,3}/\d{2,3})\b")
COMPLAINT = re.compile(r"\b(?:reports?|complains of|presents with)\s+([a-z ]{4,60})")
TOKEN = re.compile(r"[a-z0-9äöüß]+")

# One dictation per clip; punctuation and case are the voice's, one filler word differs.
DICTATIONS = (
    "patient reports intermittent chest tightness on exertion for two weeks no radiation blood pressure 148/92",
    "follow up visit for type two diabetes continue metformin 500 mg twice daily fasting glucose 7.8",
    "wound on the left forearm is clean and dry no signs of infection dressing changed return in three days",
    "cough for five days without fever lungs clear no antibiotic needed ibuprofen 400 mg as required",
    "blood pressure today 132/84 on lisinopril 10 mg daily no dizziness no oedema renal function stable",
    "child with otitis media on the right side amoxicillin 250 mg three times daily for seven days",
)
VOICES = {
    "cloud": {
        "opens": "The patient reports",
        "denies": "denies fever",
        "plan": "Continue",
        "review": "Review in two weeks.",
    },
    "onprem": {
        "opens": "Patient describes",
        "denies": "denies fever",
        "plan": "Carry on with",
        "review": "Follow-up in two weeks.",
    },
}


def pick(seed: str | bytes, count: int) -> int:
    """A stable choice out of `count`, from the content alone."""
    data = seed.encode() if isinstance(seed, str) else seed
    return int.from_bytes(hashlib.sha256(data).digest()[:4], "big") % count


def message_text(messages: list[dict[str, object]]) -> str:
    """All text that the caller sent; parts that are not text are left out."""
    found = []
    for message in messages:
        content = message.get("content", "")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        found += [str(part.get("text", "")) for part in parts if part.get("type") == "text"]
    return "\n".join(found)


def has_image(messages: list[dict[str, object]]) -> bool:
    """Is there a picture among the parts?"""
    contents = (message.get("content") for message in messages)
    return any(part.get("type") == "image_url" for content in contents if isinstance(content, list) for part in content)


def picture_of(messages: list[dict[str, object]]) -> str:
    """The pictures' URLs: what a form is chosen by, whatever else a proxy adds to the parts."""
    contents = (message.get("content") for message in messages)
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return "".join(str(part["image_url"].get("url", "")) for part in parts if part.get("type") == "image_url")


def chat(messages: list[dict[str, object]], voice: str) -> str:
    """The answer to a chat request: a document's fields, a SOAP note, or a short paragraph."""
    text = message_text(messages)
    if has_image(messages):
        return vision(text + picture_of(messages), voice)
    if re.search(r"\bsoap\b", text, re.IGNORECASE):
        return soap(text, voice)
    return paragraph(text, voice)


def _medicines(text: str) -> list[str]:
    return list(dict.fromkeys(f"{name.lower()} {amount} {unit}" for name, amount, unit in DRUG_WITH_DOSE.findall(text)))


def soap(text: str, voice: str) -> str:
    """A note with the four sections, holding the drugs, doses and pressures of the transcript and no others."""
    words = VOICES[voice]
    complaint = COMPLAINT.search(text)
    reason = complaint.group(1).strip() if complaint else "no new complaints"
    medicines = " and ".join(_medicines(text)) or "the present treatment"
    pressure = PRESSURE.search(text)
    objective = f"Blood pressure {pressure.group(1)}." if pressure else "Examination without findings."
    return (
        f"Subjective: {words['opens']} {reason}; {words['denies']}.\n"
        f"Objective: {objective}\n"
        f"Assessment: {'Stable' if voice == 'cloud' else 'Stable course'}, no alarm signs.\n"
        f"Plan: {words['plan']} {medicines}. {words['review']}"
    )


def paragraph(text: str, voice: str) -> str:
    """Two sentences that name what the question named."""
    subject = " ".join(TOKEN.findall(text.lower())[-8:])
    medicines = _medicines(text)
    about = f" The dose stays at {medicines[0]}." if medicines else ""
    if voice == "cloud":
        return (
            f"Regarding {subject}: no urgent action is needed.{about} Watch the symptoms and ask again if they change."
        )
    return (
        f"On {subject}: nothing urgent has to be done.{about} Keep watching the symptoms and ask again if they change."
    )


def vision(seed: str, voice: str) -> str:
    """A form read from a picture: equal fields, another order and spacing."""
    form = {
        "document": ("referral", "laboratory report", "prescription")[pick(seed, 3)],
        "date": f"2026-11-{1 + pick(seed + 'd', 28):02d}",
        "medicine": ("ibuprofen 400 mg", "metformin 500 mg", "lisinopril 10 mg")[pick(seed + "m", 3)],
        "quantity": str(10 * (1 + pick(seed + "q", 9))),
    }
    if voice == "cloud":
        return json.dumps(form)
    return json.dumps(dict(sorted(form.items(), reverse=True)), indent=1)


def transcript(audio: bytes, voice: str) -> str:
    """The text of a clip, chosen by its bytes; the cloud writes a sentence, the engine plain words."""
    words = DICTATIONS[pick(audio, len(DICTATIONS))]
    return words[0].upper() + words[1:] + "." if voice == "cloud" else words


def clip_seconds(audio: bytes) -> float:
    """Duration in seconds, by the byte rate in a WAV header; without one, 16 kHz mono 16-bit PCM as clinics record."""
    told = int.from_bytes(audio[28:32], "little") if audio[:4] == b"RIFF" else 0
    return max(0.1, (len(audio) - 44) / (told or 32000))


@lru_cache(maxsize=4096)
def _direction(token: str, dimensions: int) -> tuple[float, ...]:
    return tuple(byte - 127.5 for byte in hashlib.shake_256(token.encode()).digest(dimensions))


def embedding(text: str, dimensions: int) -> list[float]:
    """A unit vector in which texts that share words are near: the sum of one fixed random direction per word."""
    tokens = TOKEN.findall(text.lower()) or ["empty"]
    total = [sum(column) for column in zip(*(_direction(token, dimensions) for token in tokens), strict=True)]
    length = math.hypot(*total)
    return [value / length for value in total]


def relevance(query: str, document: str, voice: str) -> float:
    """Share of the query's words in the document, 0..1; voices differ in the third decimal, below any real gap."""
    wanted, given = set(TOKEN.findall(query.lower())), set(TOKEN.findall(document.lower()))
    share = len(wanted & given) / len(wanted) if wanted else 0.0
    return round(0.02 + 0.95 * share + pick(document, 1000) / 1e5 + (0.001 if voice == "cloud" else 0.0), 6)


def ranking(query: str, documents: list[str], voice: str) -> list[tuple[int, float]]:
    """(index, score) of every document, best first."""
    scored = [(index, relevance(query, document, voice)) for index, document in enumerate(documents)]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))


def pieces(text: str) -> list[str]:
    """The text as a stream sends it, about a token each; joined they are the text."""
    return re.findall(r"\s*\S{1,6}", text) or [text]
