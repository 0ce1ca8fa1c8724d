"""Whose letters are whose. A message that names no tenant, or nothing that could be one, is nobody's."""

import re

NOBODY = ""
_OPERATOR = "default"
"""Until there are credentials, whoever is at the loopback door is this tenant, and runs the place."""
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def tenant_of(claimed: str) -> str:
    """The tenant that a given-up message claims, where it can be one."""
    return claimed if _TENANT.fullmatch(claimed) else NOBODY


def letters_of(tenant: str) -> list[str]:
    """Under which tenants the letters are stored that `tenant` may see and drop: what is nobody's is the operator's."""
    return [tenant, NOBODY] if tenant == _OPERATOR else [tenant]
