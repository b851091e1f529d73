"""From registered results to a record."""

from __future__ import annotations

import json

from gpu_cutover.gates.check import Check
from gpu_cutover.gates.closing import collect, gate_data, sentence

PASSED = Check("a.passed", "pass", 1, "s", 2, "test", "It is fast", "gpu1", "at most")
FAILED = Check("b.failed", "fail", 3, "s", 2, "test", "It is slow", "gpu1", "at most")


def test_readings_are_collected_by_subject_and_host() -> None:
    hostvars = {
        "gpu1": {"nvidia_driver_reading_driver": {"reading": {"loaded": "580"}}, "reading": {"reading": {"x": 1}}},
        "gw1": {
            "reading_stack": {"reading": {"up": 3}},
            "network_reading_network": {"skipped": True},
            "other": {"reading": {"x": 1}},
        },
    }
    readings, attachments = collect(hostvars)
    assert readings == {"driver": {"gpu1": {"loaded": "580"}}, "stack": {"gw1": {"up": 3}}}
    assert attachments == []


def test_an_attachment_goes_beside_the_record() -> None:
    reading = {"peak": 80, "attachment": {"name": "telemetry-gpu1", "content": [1, 2]}}
    readings, attachments = collect({"gpu1": {"burn_in_reading_burn_in": {"reading": reading}}})
    assert readings == {"burn_in": {"gpu1": {"peak": 80}}}
    assert attachments == [{"name": "telemetry-gpu1", "content": [1, 2]}]


def test_what_fails_stands_first() -> None:
    words = sentence(3, [PASSED, FAILED]).splitlines()
    assert words[0] == "The gate of day 3 says fail: 1 of 2 checks passed"
    assert "b.failed" in words[1] and "a.passed" in words[2]
    assert "would say" in sentence(3, [PASSED], predicted=True)


def test_the_record_is_plain_json() -> None:
    data = gate_data(3, [PASSED], "s", "f", "digest", None)
    assert json.loads(json.dumps(data, allow_nan=False))["verdict"] == "promote"
    assert data["checks"][0]["id"] == "a.passed"
