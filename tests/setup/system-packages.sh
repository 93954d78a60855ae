#!/usr/bin/env bash
# Installs, where apt-get can, the system's programs that the tests call and that are missing: Python's venv, Node, curl.
set -euo pipefail

missing=()
command -v curl >/dev/null || missing+=(curl)
command -v node >/dev/null && command -v npm >/dev/null || missing+=(nodejs npm)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo -n)
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
    echo "system-packages.sh: install these and run this again: ${missing[*]}" >&2
    exit 1
fi
"${as_root[@]}" apt-get -qq update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "${missing[@]}" >/dev/null
