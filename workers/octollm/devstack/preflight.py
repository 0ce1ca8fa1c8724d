"""Checks settings before an embedded stack starts anything.

Without it a program would refuse them only when its turn comes.

The programs refuse the same by themselves, in the same words.
"""

import ipaddress
import socket
from pathlib import Path

from octollm.errors import SettingsError
from octollm.settings.loader import Settings, variable
from octollm.settings.sections import split_listen


def check(settings: Settings) -> None:
    """Raises SettingsError that names the setting and says what to change."""
    _is_address(settings.reflex.listen)
    for section, key, listen in (
        ("reflex", "listen", settings.reflex.listen),
        ("api", "listen", settings.api.listen),
        ("worker", "metrics_listen", settings.worker.metrics_listen),
        ("executor", "metrics_listen", settings.executor.metrics_listen),
    ):
        _bindable(section, key, listen)
    folder = settings.executor.workspace_dir
    if folder and not Path(folder).is_dir():
        raise SettingsError(
            f"the workspace folder {folder} is no folder; make it, or set OCTOLLM_EXECUTOR_WORKSPACE_DIR to one that is"
        )


def _is_address(listen: str) -> None:
    """Whether the reflex can parse its address: it takes no host names."""
    host, _ = split_listen(listen)
    try:
        ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise SettingsError(
            "setting reflex.listen is refused: must be an IP address and a port, like 127.0.0.1:8080"
        ) from None


def _bindable(section: str, key: str, listen: str) -> None:
    """Whether this machine has the address; its port is chosen later."""
    host, _ = split_listen(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        raise SettingsError(
            f"setting {section}.{key} is refused: nothing can listen on {host} here ({error.strerror}); set "
            f"{variable(section, key)} to an address of this machine, like 127.0.0.1:0"
        ) from error
