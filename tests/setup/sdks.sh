#!/usr/bin/env bash
# Puts the official OpenAI SDKs at .tidemill/venv (Python) and .tidemill/node, at the pinned versions. Quick when they are there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home="$(cd "$here/../.." && pwd)/.tidemill"
node_sdk=openai@7.57.0

mkdir -p "$home"
if ! cmp -s "$here/python-requirements.txt" "$home/venv/installed.txt" || ! "$home/venv/bin/python" -c '' 2>/dev/null; then
    rm -rf "$home/venv"
    python3 -m venv "$home/venv"
    "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/python-requirements.txt"
    cp "$here/python-requirements.txt" "$home/venv/installed.txt"
fi

if [ "$(cat "$home/node/installed.txt" 2>/dev/null)" != "$node_sdk" ]; then
    rm -rf "$home/node"
    mkdir -p "$home/node"
    echo '{ "private": true }' >"$home/node/package.json"
    npm install --prefix "$home/node" --no-save --no-audit --no-fund --loglevel=error "$node_sdk" >/dev/null
    echo "$node_sdk" >"$home/node/installed.txt"
fi
