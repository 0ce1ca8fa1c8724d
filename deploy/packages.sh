#!/bin/sh
# Fill a folder with the content of the images: octollm with both Rust programs (bin/), its shared files (share/), and
# the locked packages that it needs in a container. Runs on a build machine and in the Dockerfile's stage alike.
#
# Usage: deploy/packages.sh FOLDER PYTHON_VERSION    PYTHON_VERSION is that of the images, like 3.12; UV names another uv
set -eu
[ $# -eq 2 ] || { echo "usage: deploy/packages.sh FOLDER PYTHON_VERSION" >&2; exit 2; }
folder=$1 version=$2 uv=${UV:-uv}
wheels=$folder.wheel  # always the same place: it is written into the packages, and an image is built anew when they change
cd "$(dirname "$0")/.."
rm -rf "$wheels"
"$uv" build --quiet --wheel --out-dir "$wheels" .
rm -rf "$folder"
# The lock file gives versions and hashes; a package that is missing there or has another hash is refused.
"$uv" pip install --quiet --target "$folder" --python-version "$version" --only-binary :all: \
    --constraints requirements.lock --excludes deploy/excludes.txt "$(echo "$wheels"/octollm-*.whl)[minilm]"
