"""What a rehearsal's figures do not come from: the parts of the twin that only stand for the real ones."""

from __future__ import annotations

STAND_INS: list[tuple[str, str]] = [
    (
        "GPUs, driver library",
        "a simulated libnvidia-ml.so.1: temperatures, power, ECC, Xid events and lost GPUs are computed",
    ),
    (
        "nvidia-smi, dcgmi, nccl-tests",
        "small programs that read the same simulated state; bandwidths are the tier's own",
    ),
    ("NVIDIA packages", "packages with the real names and versions and nothing inside"),
    (
        "vLLM",
        "a server with vLLM's endpoints and metric names; its speed follows the planner's prediction for the tier",
    ),
    ("Models on Triton", "the real Triton server with small Python models in place of the networks"),
    ("Chassis, power supplies, BMC, switch", "tables and a small BMC, in place of DMI, Redfish and LLDP of real boxes"),
    ("The cloud and the clinic", "two hosts outside the site: one answers as the provider would, one sends load"),
    ("Durations", "a day of burn-in, mirror and watch is some seconds; see the site's durations"),
]
