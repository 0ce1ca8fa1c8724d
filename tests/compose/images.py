"""The images of the proof, made without a registry: a Debian base, stand-ins for Python, Redis and Postgres, ours."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.compose.engine import BUILD, ROOT, Engine, UnavailableError, call

SUITE = "bookworm"
BASE = f"octollm/debian:{SUITE}"
STAND_INS = ("python", "redis", "postgres")
OWN = ("reflex", "executor", "worker")
# Documentation and translations, package lists and downloads: Debian's own slim images leave them out too.
_SURPLUS = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "var/cache/apt",
    "var/lib/apt/lists",
)

Progress = Callable[[str], None]


def variables() -> dict[str, str]:
    """The environment that makes compose.yaml use these images."""
    return {
        "BASE_IMAGE": BASE,
        "PYTHON_IMAGE": _stand_in("python"),
        "REDIS_IMAGE": _stand_in("redis"),
        "POSTGRES_IMAGE": _stand_in("postgres"),
        "PACKAGES": "given",
        "QDRANT_URL": "",
        "IMAGE_TAG": "demo",
    }


def make_stand_ins(engine: Engine, tell: Progress) -> None:
    """The base and what is built on it. What is there already is taken."""
    if not engine.run("images", "--quiet", BASE).strip():
        tell("importing the base image")
        engine.run("import", str(_base_archive(tell)), BASE)
    for name in STAND_INS:
        tell(f"building {_stand_in(name)}")
        arguments = ("--quiet", "--build-arg", f"BASE_IMAGE={BASE}", "--target", name, "--tag", _stand_in(name))
        engine.run("build", *arguments, str(ROOT / "deploy" / "demo"))


def make_packages(engine: Engine) -> None:
    """Fills build/compose/packages for the Python of the stand-in."""
    asked = ("-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    version = engine.run("run", "--rm", "--network", "none", _stand_in("python"), "python3", *asked).strip()
    own = ROOT / "build" / "uv" / "bin" / "uv"
    environment = {**os.environ, "UV": str(own) if own.exists() else "uv", "UV_PYTHON_DOWNLOADS": "never"}
    call("deploy/packages.sh", str(BUILD / "packages"), version, environment=environment)


def sizes(engine: Engine) -> dict[str, int]:
    """Uncompressed size of every image in bytes."""
    names = [BASE, *map(_stand_in, STAND_INS), *(f"octollm/{name}:demo" for name in OWN)]
    return {name: int(engine.run("image", "inspect", "--format", "{{.Size}}", name)) for name in names}


def remove(engine: Engine) -> None:
    """All of them, where they lie in somebody else's engine."""
    names = [*(f"octollm/{name}:demo" for name in OWN), *map(_stand_in, STAND_INS), BASE]
    subprocess.run([engine.docker, "rmi", "--force", *names], env=engine.environment, capture_output=True, check=False)


def _stand_in(name: str) -> str:
    return f"octollm/{name}:{SUITE}"


def _base_archive(tell: Progress) -> Path:
    """A minimal Debian; made once, kept in build/compose."""
    archive = BUILD / f"{SUITE}.tar"
    if archive.exists():
        return archive
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise UnavailableError("making a base image takes root and debootstrap")
    tell("making a minimal Debian with debootstrap")
    tree = Path(tempfile.mkdtemp(prefix="debian-", dir=BUILD))
    try:
        call("debootstrap", "--variant=minbase", SUITE, str(tree), environment=dict(os.environ))
        for name in _SURPLUS:
            for one in (tree / name).iterdir():
                shutil.rmtree(one) if one.is_dir() else one.unlink()
        tree.chmod(0o755)
        part = archive.with_suffix(".part")
        call("tar", "-C", str(tree), "-cf", str(part), ".", environment=dict(os.environ))
        part.rename(archive)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    return archive
