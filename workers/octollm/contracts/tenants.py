"""Names of tenants, and which tenant a dead letter belongs to.

A message without a valid tenant belongs to none.
"""

import re

NO_TENANT = ""
_OPERATOR = "default"
"""The tenant of callers without a credential; it operates the deployment."""
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def is_tenant(name: str) -> bool:
    """Whether `name` may be a tenant's."""
    return _TENANT.fullmatch(name) is not None


def claimed_tenant(name: str) -> str:
    """Return the tenant that a dead-lettered message claims, or NO_TENANT if the name is invalid."""
    return name if is_tenant(name) else NO_TENANT


def dead_letter_tenants(tenant: str) -> list[str]:
    """Return the tenants whose dead letters `tenant` may see and drop.

    Those of no tenant belong to the operator.
    """
    return [tenant, NO_TENANT] if tenant == _OPERATOR else [tenant]
