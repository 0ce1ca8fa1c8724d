"""Which API key a client sends, and to which address.

The key is an argument, OCTOLLM_API_KEY, or `api_key` in the profile file, in this order. The profile's key is sent to
the profile's address only.
"""

import os
import re
import stat
import tomllib
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from octollm.errors import ParameterError, ProfileError

API_KEY = "OCTOLLM_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8080"
_SENDABLE = re.compile(r"[!-~]{1,8192}")
_VISIBLE = re.compile(r"(octo_[a-z2-7]{12})_[a-z2-7]{52}")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Credential:
    """An API key or a JSON Web Token. Its `repr` does not show it."""

    text: str = field(repr=False)
    source: str
    """Where it comes from, for people."""

    @property
    def visible(self) -> str:
        """The part that may be shown: of a key its prefix, of a token nothing."""
        found = _VISIBLE.fullmatch(self.text)
        return "a token" if found is None else found[1]


class Bearer(httpx2.Auth):
    """Adds the credential to requests. The HTTP client drops it when a redirect leads to another host."""

    def __init__(self, credential: Credential) -> None:
        """Send `credential`."""
        self._credential = credential

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Add the header; see httpx2."""
        request.headers["Authorization"] = f"Bearer {self._credential.text}"
        yield request


@dataclass(frozen=True, slots=True)
class Profile:
    """The content of a profile file."""

    path: Path
    url: str
    api_key: str | None = field(repr=False)


def resolve(url: str | None, api_key: str | None) -> tuple[str, Credential | None]:
    """Return the address to talk to and the credential to send there.

    `url`: None: that of the profile, else the local one. `api_key`: None: OCTOLLM_API_KEY, else that of the profile; an
    empty text: none. Raises ParameterError for a key that cannot be sent, and ProfileError.
    """
    profile = None
    if url is None or (api_key is None and not os.environ.get(API_KEY)):
        profile = load_profile(profile_path())
    found_url = (url or (DEFAULT_URL if profile is None else profile.url)).rstrip("/")
    if api_key is not None:
        return found_url, _credential(api_key, "the argument api_key") if api_key else None
    if from_environment := os.environ.get(API_KEY, ""):
        return found_url, _credential(from_environment, API_KEY)
    if profile is not None and profile.api_key and _origin(profile.url) == _origin(found_url):
        return found_url, _credential(profile.api_key, str(profile.path))
    return found_url, None


def profile_path() -> Path:
    """Return where the profile file of this user is looked for."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(folder) if folder else Path.home() / ".config") / "octollm" / "profile.toml"


def load_profile(path: Path) -> Profile | None:
    """Read the profile file; None if there is none.

    Raises ProfileError if it cannot be used, or if others than its owner may read or write it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ProfileError(f"the profile {path} cannot be read ({error.strerror})") from error
    if mode & _READABLE_BY_OTHERS:
        raise ProfileError(f"the profile {path} is open to other users; run `chmod 600 {path}`")
    try:
        values = tomllib.loads(content.decode())
    except ValueError as error:  # neither names the content of a line
        raise ProfileError(f"the profile {path} is not valid TOML: {error}") from error
    for name, value in values.items():
        if name not in {"url", "api_key"} or not isinstance(value, str):
            raise ProfileError(f"the profile {path} may have the texts url and api_key, and nothing like {name!r}")
    url = values.get("url", DEFAULT_URL)
    if _origin(url) is None:
        raise ProfileError(f"the url in the profile {path} must be like https://octollm.example.org")
    return Profile(path, url.rstrip("/"), values.get("api_key"))


def _credential(text: str, source: str) -> Credential:
    if _SENDABLE.fullmatch(text) is None:
        raise ParameterError(
            "api_key", f"the API key in {source} has spaces, line breaks or other characters that no key has"
        )
    return Credential(text, source)


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port; None if it is no address of HTTP."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port
