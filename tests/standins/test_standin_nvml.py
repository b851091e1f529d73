"""The simulated NVML through the real pynvml."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from standin_lab import CHECKOUT, Driver

from gpu_cutover.twin.parts import nvml_library


def test_four_boards_with_serial_numbers_and_margins(driver: Driver) -> None:
    told = driver.python(
        "h = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]\n"
        "print([n.nvmlDeviceGetSerial(x) for x in h])\n"
        "print(n.nvmlDeviceGetName(h[0]), n.nvmlDeviceGetPciInfo(h[0]).busId, n.nvmlSystemGetDriverVersion())\n"
        "print(n.nvmlDeviceGetTemperatureV(h[0], 0) + n.nvmlDeviceGetMarginTemperature(h[0]))\n"
        "f = n.nvmlDeviceGetFieldValues(h[0], [193, 194, 195])\n"
        "print([(x.nvmlReturn, x.value.siVal) for x in f])"
    ).splitlines()
    assert told[0] == str([f"132462300001{number}" for number in range(4)])
    assert told[1] == "NVIDIA L40S 00000000:41:00.0 580.105.08"
    assert told[2] == "88"
    assert told[3] == "[(0, -5), (0, -2), (3, 0)]"  # an L40S has no memory sensor: not supported


def test_uuid_finds_the_same_board(driver: Driver) -> None:
    told = driver.python(
        "h = n.nvmlDeviceGetHandleByIndex(2)\n"
        "print(n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleByUUID(n.nvmlDeviceGetUUID(h))))"
    )
    assert told == "2"


@pytest.mark.twin  # root: nobody else may set a power limit, as on a real board
def test_a_power_limit_is_set_and_read_back(driver: Driver) -> None:
    told = driver.python(
        "h = n.nvmlDeviceGetHandleByIndex(1)\nn.nvmlDeviceSetPowerManagementLimit(h, 200000)\n"
        "print(n.nvmlDeviceGetPowerManagementLimit(h), n.nvmlDeviceGetPowerManagementDefaultLimit(h))\n"
        "try:\n    n.nvmlDeviceSetPowerManagementLimit(h, 50000)\n"
        "except n.NVMLError_InvalidArgument:\n    print('refused')"
    )
    assert told.split() == ["200000", "350000", "refused"]


def test_a_lost_gpu_is_lost_and_the_others_are_not(driver: Driver) -> None:
    driver.break_it(lost=[3])
    told = driver.python(
        "n.nvmlDeviceGetTemperatureV(n.nvmlDeviceGetHandleByIndex(2), 0)\n"
        "try:\n    n.nvmlDeviceGetHandleByIndex(3)\nexcept n.NVMLError_GpuIsLost:\n    print('lost')"
    )
    assert told == "lost"


def test_an_uncorrectable_error_asks_for_a_reset(driver: Driver) -> None:
    driver.break_it(ecc={"1": 2})
    told = driver.python(
        "h = n.nvmlDeviceGetHandleByIndex(1)\n"
        "print(n.nvmlDeviceGetTotalEccErrors(h, 1, 0), n.nvmlDeviceGetRemappedRows(h)[2],"
        " n.nvmlDeviceGetFieldValues(h, [230])[0].value.uiVal)"
    )
    assert told == "2 1 1"


def test_an_xid_is_delivered_once_to_sets_made_before_it(driver: Driver) -> None:
    told = driver.python(
        f"queue = {str(driver.state) + '.xid'!r}\nopen(queue, 'a').write('0 13\\n')\n"
        "s = n.nvmlEventSetCreate()\nh = n.nvmlDeviceGetHandleByIndex(3)\nn.nvmlDeviceRegisterEvents(h, 8, s)\n"
        "open(queue, 'a').write('3 79\\n')\ne = n.nvmlEventSetWait_v2(s, 1000)\n"
        "print(e.eventData, n.nvmlDeviceGetIndex(e.device))\n"
        "try:\n    n.nvmlEventSetWait_v2(s, 50)\nexcept n.NVMLError_Timeout:\n    print('no more')"
    )
    assert told.splitlines() == ["79 3", "no more"]


def test_a_wedged_driver_hangs_every_call(driver: Driver) -> None:
    driver.break_it(hang_s=1.5)
    began = time.monotonic()
    driver.python("")
    assert time.monotonic() - began >= 1.5


def test_an_installed_library_that_is_not_the_loaded_driver_fails(driver: Driver, tmp_path: Path) -> None:
    other = nvml_library(CHECKOUT, tmp_path / "cache", "580.95.05")
    result = Driver(driver.directory, other).run(sys.executable, "-c", "import pynvml; pynvml.nvmlInit()")
    assert "version mismatch" in result.stderr


def test_processes_and_memory_follow_a_declared_load(driver: Driver) -> None:
    told = driver.python(
        f"import os, sys, time\nsys.path.insert(0, {str(CHECKOUT / 'twin/shared')!r})\nimport load\n"
        "load.declare('me', 1.0, 10 * 2**30, [2, 3])\nh = n.nvmlDeviceGetHandleByIndex(3)\n"
        "ends = time.monotonic() + 15\n"
        "while not (p := n.nvmlDeviceGetComputeRunningProcesses(h)) and time.monotonic() < ends: time.sleep(0.05)\n"
        "print([(x.pid == os.getpid(), x.usedGpuMemory) for x in p], n.nvmlDeviceGetUtilizationRates(h).gpu)"
    )
    assert told == f"[(True, {10 * 2**30})] 100"
