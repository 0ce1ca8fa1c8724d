"""Certificates for a Redis with TLS, made for one test."""

import subprocess
from pathlib import Path

import redis.asyncio

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def authority(folder: Path, name: str) -> Path:
    """Make a certificate authority; return its certificate. Its key is next to it, as `<name>.key`."""
    certificate = folder / f"{name}.crt"
    key = certificate.with_suffix(".key")
    _openssl("req", "-x509", *_EC, "-keyout", key, "-out", certificate, "-days", "2", "-subj", f"/CN={name}")
    return certificate


async def serve_tls(client: redis.asyncio.Redis, ca: Path, port: int) -> None:
    """Let the server listen on a port with TLS as well, with a certificate for 127.0.0.1 that `ca` has signed."""
    key, request, certificate = (ca.parent / f"server.{kind}" for kind in ("key", "csr", "crt"))
    names = ca.parent / "names"
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    _openssl("req", *_EC, "-keyout", key, "-out", request, "-subj", "/CN=server")
    signed = ("-in", request, "-out", certificate, "-days", "2", "-extfile", names)
    _openssl("x509", "-req", "-CA", ca, "-CAkey", ca.with_suffix(".key"), *signed)
    settings = {"ca-cert-file": ca, "cert-file": certificate, "key-file": key, "auth-clients": "no", "port": port}
    words = [word for name, value in settings.items() for word in (f"tls-{name}", str(value))]
    await client.execute_command("CONFIG", "SET", *words)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
