"""Each comparison catches what would hurt a patient, and lets style pass."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.compare.answers import COMPARERS, compare_answers, worst
from gpu_cutover.compare.kinds import SCORES, kind_of, primary
from gpu_cutover.compare.ranking import kendall

NOTE = """S: cough for three days, no fever
O: temperature 37.2
A: viral bronchitis
P: paracetamol 500 mg daily"""


def chat(text: str, finish: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": finish}]}


def compared(kind: str, was: Any, now: Any, request: Any = None) -> Any:
    return compare_answers(kind, request or {}, was, now)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("text", chat("All is well, drink water.")),
        ("soap", chat(NOTE)),
        ("speech", {"text": "take 500 mg daily, no fever"}),
        ("vectors", {"data": [{"index": i, "embedding": [math.cos(i), math.sin(i)]} for i in range(4)]}),
        ("ranking", {"results": [{"index": i, "relevance_score": 1 / (i + 1)} for i in range(4)]}),
        ("vision", chat('{"patient": "A-1", "dose": "5 mg"}')),
    ],
)
def test_an_answer_compared_with_itself_is_perfect(kind: str, answer: Any) -> None:
    comparison = compared(kind, answer, answer)
    assert dict(comparison.scores) == dict.fromkeys(SCORES[kind], 1.0)
    assert comparison.critical == ()


@pytest.mark.parametrize(
    ("kind", "was", "now", "critical"),
    [
        ("text", chat("Drink water."), chat(""), "empty answer"),
        ("text", chat("Drink water."), chat("I'm sorry, but I cannot help with that."), "refused where"),
        ("text", chat("Drink water."), chat("Drink wa", "length"), "truncated"),
        ("soap", chat(NOTE), chat(NOTE.replace("500 mg", "5000 mg")), "unknown dose"),
        ("soap", chat(NOTE), chat(NOTE.replace("paracetamol", "metoprolol")), "unknown drug"),
        ("soap", chat(NOTE), chat(NOTE.split("P:")[0]), "section lost: plan"),
        ("speech", {"text": "take 50 mg"}, {"text": "take 15 mg"}, "a dose differs"),
        ("speech", {"text": "no chest pain"}, {"text": "chest pain"}, "a negation differs"),
        ("speech", {"text": ""}, {"text": "thank you for watching"}, "invented"),
        ("ranking", {"results": [{"index": 0, "relevance_score": 1}]}, {"results": []}, "documents lost"),
        ("vision", chat('{"dose": "5 mg"}'), chat('{"dose": "50 mg"}'), "a dose differs"),
    ],
)
def test_what_would_hurt_is_critical(kind: str, was: Any, now: Any, critical: str) -> None:
    assert any(critical in words for words in compared(kind, was, now).critical)


def test_a_drug_from_the_transcript_is_no_invention() -> None:
    request = {"messages": [{"role": "user", "content": "Patient takes metformin 850 mg."}]}
    now = chat(NOTE + "\nmetformin 850 mg")
    assert compared("soap", chat(NOTE), now, request).critical == ()


def test_other_words_for_the_same_are_style() -> None:
    comparison = compared("text", chat("Drink a lot of water and rest."), chat("Rest, and drink plenty of water."))
    assert comparison.critical == ()
    assert comparison.scores[primary("text")] == 1.0
    assert comparison.scores["likeness"] < 1.0


def test_vectors_of_two_spaces_agree_when_they_find_the_same_things_alike() -> None:
    def answer(dimension: int, angles: list[float]) -> dict[str, Any]:
        rows = [[math.cos(a), math.sin(a)] + [0.0] * (dimension - 2) for a in angles]
        return {"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}

    same = compared("vectors", answer(4, [0.0, 0.1, 1.0]), answer(8, [0.5, 0.7, 2.0]))
    turned = compared("vectors", answer(4, [0.0, 0.1, 1.0]), answer(8, [0.5, 2.0, 0.7]))
    assert same.scores["similarity_order"] == 1.0
    assert turned.scores["similarity_order"] < 1.0


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1.0, 0.0], [float("nan"), 0.0]], "not a number"),
        ([[1.0, 0.0], [2.0, 0.0]], "unit length"),
        ([[1.0, 0.0], [1.0]], "dimensions"),
        ([[1.0, 0.0]], "number of vectors"),
    ],
)
def test_unsound_vectors_are_critical(rows: list[list[float]], words: str) -> None:
    good = {"data": [{"index": i, "embedding": [1.0, 0.0]} for i in range(2)]}
    bad = {"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}
    assert any(words in one for one in compared("vectors", good, bad).critical)


def test_the_route_and_workload_give_the_kind() -> None:
    assert [kind_of("chat", "soap"), kind_of("chat", "chat"), kind_of("audio", "x")] == ["soap", "text", "speech"]


@given(st.lists(st.integers(0, 5), min_size=2, max_size=8))
def test_kendall_of_a_list_with_itself_is_one_and_with_its_opposite_minus_one(values: list[int]) -> None:
    assert kendall(values, values) == pytest.approx(1.0)
    if len(set(values)) > 1:
        assert kendall(values, [-value for value in values]) == pytest.approx(-1.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "data", "results", "text", "index", "message", "content"]), inner)
    ),
    max_leaves=10,
)


@given(kind=st.sampled_from(sorted(COMPARERS)), answer=st.dictionaries(st.text(max_size=8), JSON) | JSON)
def test_no_shape_of_answer_raises_and_every_score_is_a_share(kind: str, answer: Any) -> None:
    good = {"text": "a b", "choices": [{"message": {"content": "a: b"}}], "data": [], "results": []}
    comparison = compared(kind, good, answer)
    assert set(comparison.scores) == set(SCORES[kind])
    assert all(0.0 <= score <= 1.0 for score in comparison.scores.values())


def test_a_missing_answer_scores_zero() -> None:
    assert set(worst("soap").scores.values()) == {0.0}
