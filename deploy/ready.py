"""Health check of a container with Python: exit with 0 if /readyz on the given local port answers 200."""

import http.client
import sys


def main() -> str | None:
    """Return why the process is not ready, or None if it is."""
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(4096).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer on port {sys.argv[1]} ({error})"
    return None if answer.status == http.client.OK else f"{answer.status}: {text}"


if __name__ == "__main__":
    sys.exit(main())
