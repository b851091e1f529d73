"""Changes of traffic from the controller: cutover, rollback, route; over Ansible or straight to the gateways."""
