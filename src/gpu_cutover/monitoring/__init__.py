"""What the monitor asks, shows and sends: alert rules, objectives, routes of alerts, dashboards, and who hears of it.

Everything here is made from the site's own figures by pure functions; the role `monitoring` only writes it down.
`listener` is the daemon on the gateways that takes alerts and notices when none come any more.
"""
