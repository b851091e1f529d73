"""What several comparisons need: the answer's text, normal words, and the entities that must not change."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

# Clinical wording where one changed word changes the treatment. English; another language brings its own list.
NEGATIONS = frozenset({"no", "not", "without", "denies", "denied", "negative", "never", "none", "absent"})
UNITS = "mg|mcg|µg|ug|g|kg|ml|l|iu|units?|mmol|mmhg|bpm|%|hours?|days?|weeks?|daily|tablets?|puffs?|drops?"
_NUMBER = re.compile(r"\d+(?:[.,/:]\d+)*")
_DOSE = re.compile(rf"(\d+(?:[.,]\d+)?)\s*({UNITS})\b", re.IGNORECASE)
# A drug is known by its dose standing behind it ("metformin 500 mg"), or by the usual endings of generic names.
_DRUG_BEFORE_DOSE = re.compile(r"\b([A-Za-z][a-z]{3,})\s+\d+(?:[.,]\d+)?\s*(?:mg|mcg|µg|ug|g|ml|iu|units?)\b")
_DRUG_ENDING = re.compile(
    r"\b[A-Za-z]{2,}(?:pril|sartan|olol|statin|cillin|mycin|azole|formin|pine|oxacin|prazole|gliptin|parin|caine|profen)\b"
)
_WORD = re.compile(r"[a-zA-ZäöüÄÖÜßéèçñ]+|\d+(?:[.,/:]\d+)*")
_REFUSALS = re.compile(
    r"\b(i (?:can(?:no|')t|am unable to|will not|won't)|as an ai|i'm sorry,? but|cannot (?:help|assist) with)\b",
    re.IGNORECASE,
)


def chat_text(answer: Mapping[str, Any]) -> str:
    """The text of a chat answer. Raises KeyError, IndexError, TypeError where there is none."""
    content = answer["choices"][0]["message"]["content"]
    if not isinstance(content, str):
        raise TypeError("no text")
    return content


def finish_reason(answer: Mapping[str, Any]) -> str | None:
    """Why the engine stopped: `length` means the text was cut."""
    reason = answer["choices"][0].get("finish_reason")
    return str(reason) if reason else None


def words(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return [word.lower() for word in _WORD.findall(text)]


def is_refusal(text: str) -> bool:
    """Does the answer decline? Looked for where refusals stand: at the beginning."""
    return bool(_REFUSALS.search(text[:200]))


def numbers(text: str) -> Counter[str]:
    """Every figure in the text, decimal comma as point."""
    return Counter(figure.replace(",", ".") for figure in _NUMBER.findall(text))


def doses(text: str) -> Counter[str]:
    """Figures with their unit, e.g. `500 mg`."""
    return Counter(f"{figure.replace(',', '.')} {unit.lower()}" for figure, unit in _DOSE.findall(text))


def drugs(text: str) -> Counter[str]:
    """Names of medicines, as far as dose and ending give them away (a lexicon is the site's to add)."""
    found = {name.lower() for name in _DRUG_BEFORE_DOSE.findall(text)}
    found |= {match.group(0).lower() for match in _DRUG_ENDING.finditer(text)}
    return Counter(found)


def negations(text: str) -> Counter[str]:
    """Words that deny."""
    return Counter(word for word in words(text) if word in NEGATIONS)


def f1(base: Counter[str], candidate: Counter[str]) -> float:
    """Agreement of two multisets, 1.0 when both are empty."""
    shared = sum((base & candidate).values())
    total = sum(base.values()) + sum(candidate.values())
    return 1.0 if total == 0 else 2 * shared / total
