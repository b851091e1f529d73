"""The figures of a burn-in from telemetry, and telemetry that survives a crash."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.burn_in import state as states
from gpu_cutover.burn_in import summary, telemetry
from gpu_cutover.burn_in.loads import expand

STATE = {"started": 1000.0, "duration_s": 100.0, "interval_s": 1.0, "gpus": 2}


def row(second: float, margin: object = 25, bits: object = 4, tflops: object = 260.0, **other: Any) -> dict[str, Any]:
    return {
        "t": 1000.0 + second,
        "boot": "a",
        "g": {str(i): [63, margin, 345.0, bits, 100, 350.0] for i in range(2)},
        "f": {str(i): [tflops, 0] for i in range(2)},
        **other,
    }


def steady(**changes: Any) -> list[dict[str, Any]]:
    rows = [row(second, **changes) for second in range(100)]
    rows[0]["c"] = {str(i): [0, 0, 0, 0, 0] for i in range(2)}
    return rows


def test_a_good_burn_in() -> None:
    found = summary.summarise(steady(), STATE, 5.0)
    assert (found["coverage"], found["breaks"], found["tflops_spread"]) == (1.0, [], 0.0)
    gpu = found["gpus"]["1"]
    assert gpu["below_floor_celsius_s"] == 0.0
    assert gpu["forbidden_bits"] == {}
    assert gpu["ecc_uncorrected_delta"] == 0
    assert gpu["power_high_w"] == 345.0
    assert gpu["tflops_drift"] == 0.0


def test_heat_is_integrated_over_time() -> None:
    rows = steady()
    for second in range(50, 60):
        rows[second]["g"]["1"][1] = 2
    found = summary.summarise(rows, STATE, 5.0)["gpus"]["1"]
    assert found["below_floor_celsius_s"] == pytest.approx(30.0)
    assert found["margin_min_celsius"] == 2


@pytest.mark.parametrize("bit", [0x8, 0x20, 0x40, 0x80])
def test_a_forbidden_bit_is_counted(bit: int) -> None:
    rows = steady()
    rows[70]["g"]["0"][3] = bit | 0x4
    assert summary.summarise(rows, STATE, 5.0)["gpus"]["0"]["forbidden_bits"] == {hex(bit): 1}


def test_missing_sensors_give_no_figure_instead_of_a_good_one() -> None:
    found = summary.summarise(steady(margin=None, bits=None, tflops=None), STATE, 5.0)
    gpu = found["gpus"]["0"]
    assert gpu["below_floor_celsius_s"] is None
    assert gpu["bits_samples"] == 0
    assert gpu["tflops_median"] is None
    assert found["tflops_spread"] is None


def test_no_telemetry_at_all() -> None:
    found = summary.summarise([], STATE, 5.0)
    assert (found["samples"], found["coverage"]) == (0, 0.0)
    assert found["gpus"]["0"]["ecc_uncorrected_delta"] is None


def test_missed_seconds_lower_the_coverage_and_long_ones_are_a_break() -> None:
    rows = [r for r in steady() if not 1030 <= r["t"] < 1045]
    found = summary.summarise(rows, STATE, 5.0)
    assert found["coverage"] == pytest.approx(0.85)
    assert found["breaks"] == [{"from": 1029.0, "to": 1045.0, "seconds": 16.0, "reboot": False}]


def test_a_reboot_is_a_break_however_short() -> None:
    rows = steady()
    for second in range(50, 100):
        rows[second]["boot"] = "b"
    assert [gap["reboot"] for gap in summary.summarise(rows, STATE, 5.0)["breaks"]] == [True]


def test_a_slow_gpu_shows_in_the_spread_and_single_bad_seconds_do_not() -> None:
    rows = steady()
    for second in range(0, 100, 5):
        rows[second]["f"]["1"][0] = 20.0
    assert summary.summarise(rows, STATE, 5.0)["tflops_spread"] == 0.0
    for each in rows:
        each["f"]["1"][0] = 208.0
    assert summary.summarise(rows, STATE, 5.0)["tflops_spread"] == pytest.approx(0.2)


def test_drift_compares_the_first_quarter_with_the_last() -> None:
    rows = steady()
    for second in range(70, 100):
        rows[second]["f"]["0"][0] = 234.0
    assert summary.summarise(rows, STATE, 5.0)["gpus"]["0"]["tflops_drift"] == pytest.approx(0.1)
    assert summary.drift([1.0] * 7) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([None], None), ([3], 0), ([3, 3, 5], 2), ([3, 1, 2], 2), ([0, 4, 0, 4], 8), ([None, 1, 2], 1)],
)
def test_a_counter_that_was_reset_counts_from_zero(values: list[Any], expected: int | None) -> None:
    assert summary.increase(values) == expected


def test_wrong_results_and_hardware_xids_are_counted() -> None:
    rows = steady()
    rows[20]["f"]["1"][1] = 2
    rows[30]["x"] = [[1, 79], [0, 13], [0, 63]]
    found = summary.summarise(rows, STATE, 5.0)
    assert found["gpus"]["1"]["compute_errors"] == 2
    assert [event[2] for event in found["xids_hardware"]] == [79, 63]


def test_curves_keep_the_hottest_sample_of_each_bucket() -> None:
    rows = [row(second) for second in range(4000)]
    rows[1234]["g"]["1"][1] = -1
    curves = summary.curves(rows, {**STATE, "interval_s": 1.0}, "gpu1", 5.0)
    assert len(curves["t"]) <= summary.MAX_POINTS
    assert min(curves["gpus"]["1"]["margin_celsius"]) == -1
    assert all(len(values) == len(curves["t"]) for values in curves["gpus"]["0"].values())
    json.dumps(curves)


SAMPLE = {
    "t": 5.0,
    "gpus": [{"index": 0, "margin_celsius": 20, "ecc_uncorrected": 0}],
    "xids": [{"t": 5.0, "gpu": 0, "xid": 79}],
}


def test_a_torn_tail_is_passed_over_and_the_next_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    writer = telemetry.Writer(path)
    writer.append(telemetry.row(SAMPLE, {0: {"tflops": 1.0, "errors": 0}}, "b", {}, 9.0))
    writer.close()
    with path.open("ab") as handle:
        handle.write(b'{"t":6.0,"g":{"0":[1,')
    again = telemetry.Writer(path)
    again.append({"t": 7.0})
    again.close()
    assert [line["t"] for line in telemetry.read_file(path)] == [5.0, 7.0]


def lines(path: Path) -> list[float]:
    return [line["t"] for line in telemetry.read_file(path)]


def test_an_hour_of_lines_becomes_a_compressed_segment_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    writer = telemetry.Writer(path, segment_lines=3)
    for second in range(8):
        writer.append({"t": float(second)})
    writer.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        path.name,
        f"{path.name}.00000.gz",
        f"{path.name}.00001.gz",
    ]
    again = telemetry.Writer(path, segment_lines=3)
    again.append({"t": 8.0})
    again.close()
    assert lines(path) == [float(second) for second in range(9)]


@pytest.mark.parametrize(
    "crashed", ["closed, not compressed", "compressed, the plain one still there", "half compressed"]
)
def test_a_crash_while_a_segment_is_closed_loses_and_doubles_nothing(tmp_path: Path, crashed: str) -> None:
    path, closed = tmp_path / "telemetry.jsonl", tmp_path / "telemetry.jsonl.00000"
    closed.write_bytes(b'{"t":1.0}\n{"t":2.0}\n')
    if crashed != "closed, not compressed":
        whole = gzip.compress(closed.read_bytes())
        name = f".{closed.name}.gz.new" if crashed == "half compressed" else f"{closed.name}.gz"
        (tmp_path / name).write_bytes(whole[:10] if crashed == "half compressed" else whole)
    assert lines(path) == [1.0, 2.0]
    writer = telemetry.Writer(path)
    writer.append({"t": 3.0})
    writer.close()
    assert lines(path) == [1.0, 2.0, 3.0]
    assert not closed.exists()


def counted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "m": 50.0 + second} for second, one in enumerate(rows)]


@pytest.mark.parametrize("by", [3600.0, -3600.0])
def test_a_clock_that_is_set_is_told_and_is_no_break(by: float) -> None:
    rows = counted(steady())
    for one in rows[60:]:
        one["t"] += by
    found = summary.summarise(rows, STATE, 5.0)
    assert (found["breaks"], found["coverage"]) == ([], 1.0)
    assert found["clock_set"] == [{"t": 1059.0, "seconds": by}]
    assert found["elapsed_s"] == 99.0


def test_a_pause_is_a_break_also_when_the_clock_hides_it() -> None:
    rows = counted(steady())
    for one in rows[60:]:
        one["m"] += 30.0
    found = summary.summarise(rows, STATE, 5.0)
    assert found["breaks"] == [{"from": 1059.0, "to": 1090.0, "seconds": 31.0, "reboot": False}]


def test_a_burn_in_takes_as_long_as_declared_whatever_is_done_to_the_clock() -> None:
    state = {"started": 1000.0, "boot": "a", "uptime_s": 50.0, "sessions": [{"reached_s": 20.0}, {"started": 1030.0}]}
    assert states.elapsed_s(state, "a", 80.0, 9000.0) == 30.0  # the same boot: counted
    assert states.elapsed_s(state, "b", 5.0, 1060.0) == 60.0  # another boot: only the wall clock knows
    assert states.elapsed_s(state, "b", 5.0, 400.0) == 20.0  # and it never takes back what was reached


def test_counters_are_written_only_when_they_change() -> None:
    counters: dict[int, list[Any]] = {}
    lines = [telemetry.row(SAMPLE, {}, "b", counters, 9.0) for _ in range(3)]
    assert ["c" in line for line in lines] == [True, False, False]
    assert lines[0]["x"] == [[0, 79]]


def test_a_sample_that_failed_is_a_line_without_figures() -> None:
    assert telemetry.row({"t": 1.0, "error": "hung"}, {}, "b", {}, 9.0) == {
        "t": 1.0,
        "m": 9.0,
        "boot": "b",
        "error": "hung",
    }


def test_the_load_command_is_filled_in() -> None:
    assert expand(["load", "--gpu", "{gpu}", "--seconds={seconds}"], 2, 9.6) == ["load", "--gpu", "2", "--seconds=10"]


def test_progress_knows_absent_running_and_finished(tmp_path: Path) -> None:
    assert states.progress(tmp_path, 0.0)["status"] == "absent"
    state = states.begin(states.Config(gpus=2, duration_s=100.0), 1000.0)
    states.write_json(tmp_path / states.STATE, state)
    assert states.progress(tmp_path, 1025.0) | {"left_s": 0} == {
        "status": "running", "share": 0.25, "config": state["config"], "id": state["id"], "left_s": 0,
    }  # fmt: skip
    states.write_json(tmp_path / states.EVIDENCE, {"id": "another"})
    assert states.progress(tmp_path, 1025.0)["status"] == "running"
    states.write_json(tmp_path / states.EVIDENCE, {"id": state["id"]})
    assert states.progress(tmp_path, 1025.0)["status"] == "finished"


def test_another_configuration_is_another_burn_in() -> None:
    assert states.Config(4, 100.0).digest == states.Config(4, 100.0).digest
    assert states.Config(4, 100.0).digest != states.Config(4, 101.0).digest
