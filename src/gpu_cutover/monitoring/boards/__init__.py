"""Grafana dashboards, made from code: one file per subject, equal code gives equal bytes."""
