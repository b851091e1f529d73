"""Every alert: what is asked, how long it must hold, who is told, what it means and where to read on.

One table, in the order in which a person on call would ask. Rules ask what can change: cache use and preemptions
instead of GPU memory (an engine reserves it at its start), margins instead of degrees, time to the first token instead
of the whole answer. `slo` adds the objectives' alerts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .settings import Settings

PAGE, TICKET, NONE = "page", "ticket", "none"
ON_CALL = "runbooks/holiday-on-call.md"
THERMAL = "runbooks/thermal-alarm.md"
GATEWAY = "runbooks/gateway-lost.md"
CERTIFICATES = "runbooks/certificates.md"
CLOUD = "runbooks/cloud-down.md"
HISTORY = "runbooks/request-history.md"
WATCHDOG = "Watchdog"
CERTIFICATE_DAYS = 21
TRAINING_HOURS = 24
# Units of training jobs; nothing else tells how long a training runs: no engine has a metric for it.
TRAINING_UNITS = r"gpu-cutover-train@.+\\.service"
FIVE_MINUTES_S = 300
HOUR_S = 3600
# An engine that the placement in force does without is not missed: the guard says which ones belong to it.
BELONGS = 'on (host, engine_model) label_replace(gpu_guard_engine_up, "engine_model", "$1", "model", "(.+)")'


@dataclass(frozen=True, slots=True)
class Alert:
    """`meaning`: what it means and what happens by itself, for a person who was woken. Seconds in `hold_s`."""

    name: str
    expr: str
    severity: str
    summary: str
    meaning: str
    runbook: str
    hold_s: int = 0
    labels: dict[str, str] = field(default_factory=dict)


def every_alert(settings: Settings) -> dict[str, list[Alert]]:
    """{group: alerts} of everything but the objectives."""
    return {
        "watchdog": [_watchdog()],
        "hosts": [*_hosts(settings)],
        "service": [*_service(settings)],
        "routes": [*_routes()],
        "engines": [*_engines(settings)],
        "gpus": [*_gpus(settings)],
        "records": [*_records(settings)],
    }


def _watchdog() -> Alert:
    return Alert(
        WATCHDOG,
        "vector(1)",
        NONE,
        "The monitor works",
        "Always fires. The listeners on the gateways alarm when it stops: the monitor or the way from it is gone.",
        ON_CALL,
    )


def _hosts(settings: Settings) -> Iterable[Alert]:
    away = settings.missed_scrapes_s
    yield Alert(
        "HostLost",
        'up{job="node"} == 0',
        PAGE,
        "{{ $labels.host }} does not answer",
        "The host, its network or its node exporter is gone. Its other alerts are held back while this one fires.",
        GATEWAY,
        away,
    )
    yield Alert(
        "TargetDown",
        'up{job!~"node|vllm|triton|virtual-address"} == 0',
        PAGE,
        "{{ $labels.job }} on {{ $labels.host }} is not scraped",
        "The daemon is down or hangs. systemd starts it again within seconds; this one did not come back.",
        ON_CALL,
        away,
    )
    yield Alert(
        "VirtualAddressLost",
        'up{job="virtual-address"} == 0',
        PAGE,
        "No gateway holds the address that clinics connect to",
        "Keepalived moves it within two seconds when a gateway fails. Now neither has it: no clinic gets an answer.",
        GATEWAY,
        away,
    )
    yield Alert(
        "JobMissing",
        " or ".join(f'absent(up{{job="{job}"}})' for job in settings.jobs),
        TICKET,
        "Nothing of the job {{ $labels.job }} is scraped at all",
        "Prometheus' configuration lost it. What it would tell, including its alarms, is missing.",
        ON_CALL,
        FIVE_MINUTES_S,
    )
    yield Alert(
        "UnitRestarted",
        f"increase(node_systemd_service_restart_total[{settings.window_s}s]) > 0",
        TICKET,
        "systemd restarted {{ $labels.name }} on {{ $labels.host }}",
        "It died and is back. Once is a note for the day; several times in an hour is a fault.",
        ON_CALL,
    )
    yield Alert(
        "DiskFillsUp",
        'node_filesystem_avail_bytes{fstype!~"tmpfs|overlay|ramfs|squashfs"} / node_filesystem_size_bytes < 0.1',
        TICKET,
        "{{ $labels.mountpoint }} on {{ $labels.host }} is over 90 % full",
        "Request records and the ledger's copies grow. When a disk is full, records are lost and told as a gap.",
        ON_CALL,
        2 * FIVE_MINUTES_S,
    )
    yield Alert(
        "RulesBroken",
        "increase(prometheus_rule_evaluation_failures_total[5m]) > 0",
        TICKET,
        "A rule of {{ $labels.rule_group }} cannot be evaluated",
        "Its alarm would not come. Usually two series where one was expected.",
        ON_CALL,
    )
    yield Alert(
        "AlertsNotSent",
        "rate(alertmanager_notifications_failed_total[5m]) > 0 or rate(prometheus_notifications_dropped_total[5m]) > 0",
        PAGE,
        "Alerts do not get out{{ with $labels.integration }} by {{ . }}{{ end }}",
        "One way of telling people fails; this comes over the others.",
        ON_CALL,
        FIVE_MINUTES_S,
    )
    yield Alert(
        "MonitorSilent",
        "gpu_cutover_alarms_silent == 1",
        PAGE,
        "{{ $labels.host }} hears no watchdog",
        "Alerts of this monitor do not reach the listener on that gateway; it has told the site's receivers by itself.",
        ON_CALL,
        away,
    )


def _service(settings: Settings) -> Iterable[Alert]:
    away = settings.missed_scrapes_s
    yield Alert(
        "EdgeWithoutRouter",
        'haproxy_backend_active_servers{proxy=~"router_.*"} == 0',
        PAGE,
        "The edge on {{ $labels.host }} has no {{ $labels.proxy }}",
        "That router does not answer its health check. With two gateways the address moves to the whole one.",
        GATEWAY,
        away,
    )
    yield Alert(
        "SealBroken",
        "gpu_cutover_router_sealed == 0",
        PAGE,
        "The sealed router on {{ $labels.host }} is not sealed and takes no requests",
        "The kernel would let it reach the cloud. It refuses everything: sensitive clinics wait, nothing leaks.",
        ON_CALL,
    )
    yield Alert(
        "BreakerOpen",
        "gpu_cutover_router_breaker_open == 1",
        TICKET,
        "{{ $labels.host }} sends {{ $labels.model }} elsewhere: too many errors",
        "Permitted clinics are answered by the cloud. It tries again by itself.",
        ON_CALL,
        away,
    )
    yield Alert(
        "CloudFails",
        'sum by (host) (rate(gpu_cutover_router_attempts_total{leg="cloud",outcome=~"error|timeout"}[5m]))'
        ' > 0.05 * sum by (host) (rate(gpu_cutover_router_attempts_total{leg="cloud"}[5m]))',
        TICKET,
        "Over 5 % of the questions to the cloud fail on {{ $labels.host }}",
        "The provider or the way to it. Clinics on-prem are not touched, but have no second leg.",
        CLOUD,
        FIVE_MINUTES_S,
    )
    yield Alert(
        "RequestsTurnedAway",
        "sum by (host, reason) (rate(gpu_cutover_router_turned_away_total[5m])) > 0",
        TICKET,
        "{{ $labels.host }} turns requests away: {{ $labels.reason }}",
        "More is under way than the router takes; callers are told to come again.",
        ON_CALL,
        FIVE_MINUTES_S,
    )
    yield Alert(
        "TableWrong",
        "gpu_cutover_router_table_bad == 1",
        PAGE,
        "The route table on {{ $labels.host }} cannot be used",
        "The router goes on with the last good one; a rollback would not be taken up.",
        GATEWAY,
        away,
    )
    yield Alert(
        "PlacementUnknown",
        "gpu_cutover_router_placement_age_seconds > 30",
        TICKET,
        "{{ $labels.job }} on {{ $labels.host }} has not heard the guard for {{ $value | humanizeDuration }}",
        "A de-rate would not reach this router by itself. The guard or the way to it is down.",
        ON_CALL,
        away,
    )
    # Renewed 30 days before the end by the next run of day 4 or of `play certificates`: nobody ran one for nine days.
    yield Alert(
        "CertificateEnds",
        f"min by (certificate) (gpu_cutover_certificate_not_after_seconds) - time() < {CERTIFICATE_DAYS} * 86400",
        PAGE,
        "{{ $labels.certificate }} ends in {{ $value | humanizeDuration }}",
        "From then on connections with it are refused.",
        CERTIFICATES,
    )


def _routes() -> Iterable[Alert]:
    # They agree by themselves within seconds (role peers). Longer: neither has it later, or one cannot write.
    yield Alert(
        "GatewaysDisagree",
        "min by (host, peer) (gpu_cutover_peer_agrees) == 0",
        PAGE,
        "{{ $labels.host }} and {{ $labels.peer }} send clinics different ways",
        "A change reached one gateway only and the other does not take it over: gpu-cutover route show.",
        GATEWAY,
        60,
    )
    yield Alert(
        "RouteChangeUnrecorded",
        f"time() - gpu_cutover_route_change_unrecorded_since_seconds > {HOUR_S}",
        TICKET,
        "A change of routes on {{ $labels.host }} is not in the ledger for {{ $value | humanizeDuration }}",
        "It is in force and in the gateway's journal. Recorded by the next command that asks: gpu-cutover route show.",
        ON_CALL,
    )
    yield Alert(
        "TenantTakenBack",
        'gpu_cutover_watch{verdict="rolled_back"} == 1',
        PAGE,
        "The watch on {{ $labels.host }} took {{ $labels.tenant }} back",
        "Too many of its requests failed on-prem. It is served by the cloud as before its cutover.",
        "runbooks/tenant-rollback.md",
    )
    # Bad, and nowhere to go: the cloud does not answer either, or the tenant may not go there.
    yield Alert(
        "TenantNotTakenBack",
        'gpu_cutover_watch{verdict="bad"} == 1',
        PAGE,
        "{{ $labels.tenant }} fares badly on {{ $labels.host }} and was not taken back",
        "Neither leg is healthy, or the tenant may not leave: a person decides.",
        "runbooks/tenant-rollback.md",
    )


def _engines(settings: Settings) -> Iterable[Alert]:
    away = settings.missed_scrapes_s
    yield Alert(
        "EngineDown",
        "gpu_guard_engine_up == 0",
        PAGE,
        "The engine {{ $labels.model }} does not answer",
        "systemd starts it again; loading takes minutes. Permitted clinics go to the cloud, sensitive ones wait.",
        ON_CALL,
        away,
    )
    yield Alert(
        "EngineNotScraped",
        f'up{{job=~"vllm|triton"}} == 0 and {BELONGS} == 1',
        TICKET,
        "The engine {{ $labels.engine_model }} answers but tells no figures",
        "Its queue and cache alarms would not come.",
        ON_CALL,
        2 * away,
    )
    yield Alert(
        "RequestsWaiting",
        "sum by (model_name) (vllm:num_requests_waiting) > 10",
        TICKET,
        "{{ $value }} requests wait for {{ $labels.model_name }}",
        "More comes than it answers. Another node shortens the queue; it does not make one answer faster.",
        ON_CALL,
        FIVE_MINUTES_S,
    )
    # The engine reserves its memory at the start, so memory in use says nothing; the cache's use and preemptions do.
    yield Alert(
        "CacheFull",
        "vllm:kv_cache_usage_perc > 0.9 and rate(vllm:num_preemptions_total[5m]) > 0",
        TICKET,
        "{{ $labels.model_name }} preempts requests: its cache is full",
        "Requests are thrown out and done again, so that all get slower.",
        ON_CALL,
        FIVE_MINUTES_S,
    )
    yield Alert(
        "FirstTokenSlow",
        "histogram_quantile(0.95, sum by (le, model_name) (rate(vllm:time_to_first_token_seconds_bucket[5m])))"
        f" > {settings.first_token_s:g}",
        TICKET,
        "First token of {{ $labels.model_name }} after {{ $value | humanizeDuration }} (p95)",
        "What a doctor waits for before text appears. A longer queue or longer prompts than planned.",
        ON_CALL,
        FIVE_MINUTES_S,
    )
    yield Alert(
        "QueueSlow",
        "histogram_quantile(0.95, sum by (le, model_name) (rate(vllm:request_queue_time_seconds_bucket[5m]))) > 2",
        TICKET,
        "Requests wait {{ $value | humanizeDuration }} (p95) before {{ $labels.model_name }} begins",
        "The part of a slow answer that another node would take away: scale out.",
        ON_CALL,
        FIVE_MINUTES_S,
    )
    yield Alert(
        "TrainingLong",
        f'time() - node_systemd_unit_start_time_seconds{{name=~"{TRAINING_UNITS}"}} > {TRAINING_HOURS} * 3600'
        f' and on (host, name) node_systemd_unit_state{{name=~"{TRAINING_UNITS}",state="active"}} == 1',
        TICKET,
        "{{ $labels.name }} on {{ $labels.host }} trains for {{ $value | humanizeDuration }}",
        "Beyond a day of training more GPUs are cheaper than waiting.",
        ON_CALL,
    )


def _gpus(settings: Settings) -> Iterable[Alert]:
    away = settings.missed_scrapes_s
    yield Alert(
        "GpuMarginSmall",
        f"gpu_guard_margin_celsius < {settings.margin_celsius:g}",
        PAGE,
        "GPU {{ $labels.gpu }} on {{ $labels.host }} has {{ $value }} °C left",
        "The guard lowers its power and, if that is not enough, takes it out of service.",
        THERMAL,
        5 * settings.interval_s,
    )
    yield Alert(
        "GpuDerated",
        'gpu_guard_level{level="derated"} == 1',
        PAGE,
        "GPU {{ $labels.gpu }} on {{ $labels.host }} is out of service",
        "Three GPUs serve. Models without a place are answered by the cloud where permitted.",
        THERMAL,
    )
    yield Alert(
        "GpuLost",
        "gpu_guard_lost == 1",
        PAGE,
        "GPU {{ $labels.gpu }} on {{ $labels.host }} is gone",
        "It does not answer the driver. The guard de-rates; a reboot or a technician brings it back.",
        THERMAL,
        away,
    )
    yield Alert(
        "GuardPages",
        "gpu_guard_page == 1",
        PAGE,
        "The guard on {{ $labels.host }} calls: {{ $labels.reason }}",
        "Something that no automatic action can settle, or the guard has used up its actions.",
        THERMAL,
    )
    yield Alert(
        "GuardBlind",
        "gpu_guard_sample_ok == 0 or gpu_guard_sample_age_seconds > 30",
        PAGE,
        "The guard on {{ $labels.host }} cannot read the GPUs",
        "The driver hangs or is gone. Engines may still answer; nobody watches their heat.",
        THERMAL,
        5 * settings.interval_s,
    )
    yield Alert(
        "GuardObserveOnly",
        "gpu_guard_observe_only == 1",
        TICKET,
        "The guard on {{ $labels.host }} only observes",
        "Somebody switched its actions off for more than an hour.",
        THERMAL,
        HOUR_S,
    )
    # A gauge that NVML counts since the driver was loaded: `increase` would take a reload for a new error.
    yield Alert(
        "EccUncorrected",
        "delta(gpu_guard_ecc_uncorrected[1h]) > 0",
        PAGE,
        "Uncorrectable memory error on GPU {{ $labels.gpu }} of {{ $labels.host }}",
        "An engine that used that page has failed or been restarted. Remapped at the next reset of the GPU.",
        THERMAL,
    )
    yield Alert(
        "RemapPending",
        "gpu_guard_remap_pending == 1",
        TICKET,
        "GPU {{ $labels.gpu }} of {{ $labels.host }} waits for a reset to remap memory",
        "Plan the reset for an hour without clinics.",
        THERMAL,
        away,
    )


def _records(settings: Settings) -> Iterable[Alert]:
    yield Alert(
        "RecordsLost",
        "delta(gpu_cutover_router_records_lost[5m]) > 0",
        PAGE,
        "{{ $labels.job }} on {{ $labels.host }} cannot keep request records",
        "Its disk is full or too slow. The gap is in the log itself and counts in every audit.",
        HISTORY,
    )
    yield Alert(
        "MirrorDrops",
        "rate(gpu_cutover_router_mirror_dropped_total[5m]) > 0",
        TICKET,
        "{{ $labels.host }} drops copies for the comparison of {{ $labels.route }}",
        "Answers to clinics are not touched; day 8's coverage shrinks.",
        ON_CALL,
        FIVE_MINUTES_S,
    )
    yield Alert(
        "GateNotPassed",
        "gpu_cutover_gate_promoted == 0",
        TICKET,
        "The last run of day {{ $labels.day }} ended with {{ $labels.verdict }}",
        "The next day does not begin before it is promoted or waived.",
        ON_CALL,
        HOUR_S,
    )
