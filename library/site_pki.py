"""Documentation of the action plugin site_pki, which runs on the controller and never reaches a host."""

DOCUMENTATION = r"""
module: site_pki
short_description: The site's own certificate authority, the edge's certificate and one per tenant
description:
  - Keeps a register of everything ever issued (C(issued.json)) and the signed list of what is revoked (C(revoked.pem)).
  - Keeps C(ca.pem), C(ca.key), C(server.pem) and C(tenants/<name>.{crt,key}) in C(.state/pki) of the site, all 0600.
  - Makes what is missing, renews leaves 30 days before they expire or when their names changed, touches nothing else.
author: gpu-cutover
options:
  site:
    description: The site's name, for the authority's own name.
    type: str
    required: true
  server:
    description: Common name of the edge's certificate.
    type: str
    required: true
  names:
    description: DNS names and addresses under which the edge is reached.
    type: list
    elements: str
    default: []
  tenants:
    description: Name to common name of each tenant.
    type: dict
    required: true
  gateways:
    description: Name to common name of each gateway, for reading the other gateways' route tables.
    type: dict
    default: {}
  rotate:
    description: Tenants that get a new certificate now. The old one counts until it is retired or expires.
    type: list
    elements: str
    default: []
  retire:
    description: Tenants whose certificates before the current one count no more.
    type: list
    elements: str
    default: []
  revoke:
    description: Tenants none of whose certificates counts any more; they get no new one before O(rotate) asks for it.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: The site's certificates
  site_pki:
    site: twin
    server: edge.clinic.test
    names: [edge.clinic.test, 10.87.0.11]
    tenants: {doc-zam: doc-zam.clinic.test}
"""

RETURN = r"""
written:
  description: Files that were (or would be) written, relative to C(directory).
  type: list
  returned: always
ends:
  description: File to epoch seconds when each current certificate ends; the authority's own as C(ca.pem).
  type: dict
  returned: always
directory:
  description: Where they are, on the controller.
  type: str
  returned: always
"""
