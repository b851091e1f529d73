"""Gateways and edge: connections, routers behind it, agreement, hosts."""

from __future__ import annotations

from .panel import RATE, Dashboard, Panel, per_second

EDGE = 'proxy="edge"'


def dashboard() -> Dashboard:
    """Gateways and edge."""
    return Dashboard(
        "gateways",
        "Gateways, edge and hosts",
        [
            Panel(
                "Requests",
                [(per_second("haproxy_frontend_http_requests_total", "host", EDGE), "{{host}}")],
                "reqps",
                "One gateway holds the address at a time; either serves.",
            ),
            Panel(
                "Answers by class",
                [(per_second("haproxy_frontend_http_responses_total", "host, code", EDGE), "{{host}} {{code}}")],
                "reqps",
            ),
            Panel("Connections", [('haproxy_frontend_current_sessions{proxy="edge"}', "{{host}}")], "short"),
            Panel(
                "Bytes",
                [
                    (per_second("haproxy_frontend_bytes_in_total", "host", EDGE), "{{host}} in"),
                    (per_second("haproxy_frontend_bytes_out_total", "host", EDGE), "{{host}} out"),
                ],
                "Bps",
            ),
            Panel(
                "Servers behind the edge",
                [('haproxy_backend_active_servers{proxy=~"router_.*|provider_.*"}', "{{host}} {{proxy}}")],
                "short",
                "0 is an alarm.",
            ),
            Panel(
                "Requests denied",
                [('haproxy_frontend_requests_denied_total{proxy="edge"}', "{{host}}")],
                "short",
                "Wrong path, method, size or form.",
            ),
            Panel(
                "Gateways agree",
                [("gpu_cutover_peer_agrees", "{{host}} with {{peer}}")],
                "bool_yes_no",
                "0 for a minute is a page.",
            ),
            Panel(
                "Changes not in the ledger",
                [("gpu_cutover_route_changes_unrecorded", "{{host}}")],
                "short",
                "`gpu-cutover route show` records them.",
            ),
            Panel(
                "Seconds since the watchdog was heard",
                [("gpu_cutover_alarms_watchdog_age_seconds", "{{host}}")],
                "s",
                "Told by the listeners on the gateways.",
            ),
            Panel("Restarts by systemd", [("node_systemd_service_restart_total", "{{host}} {{name}}")], "short"),
            Panel(
                "Processor in use",
                [(f'1 - avg by (host) (rate(node_cpu_seconds_total{{mode="idle"}}[{RATE}]))', "{{host}}")],
                "percentunit",
            ),
            Panel(
                "Memory in use",
                [("1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "{{host}}")],
                "percentunit",
            ),
            Panel(
                "Fullest disk",
                [("max by (host) (1 - node_filesystem_avail_bytes / node_filesystem_size_bytes)", "{{host}}")],
                "percentunit",
                "90 % is a ticket.",
                limit=0.9,
            ),
            Panel(
                "Network",
                [
                    (per_second("node_network_receive_bytes_total", "host", 'device!="lo"'), "{{host}} in"),
                    (per_second("node_network_transmit_bytes_total", "host", 'device!="lo"'), "{{host}} out"),
                ],
                "Bps",
            ),
        ],
    )
