#!/usr/bin/env bash
# Puts a nats-server >= 2.10 at .tidemill/bin/nats-server: the one on PATH if it is new enough, else Debian unstable's,
# unpacked beside the system. Does nothing when it is there already.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/debian-package.sh"
bin="$(cd "$here/../.." && pwd)/.tidemill/bin"
target="$bin/nats-server"

new_enough() {
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's/^nats-server: v\([0-9.]*\).*/\1/p')
    [ -n "$version" ] && printf '%s\n' 2.10 "$version" | sort --check=quiet --version-sort
}

if new_enough "$target"; then
    exit 0
fi
mkdir -p "$bin"
if found=$(command -v nats-server) && new_enough "$found"; then
    ln -sf "$found" "$target"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! unpack_packages unstable "$work" nats-server; then
    echo "nats-server.sh: no Debian package of nats-server could be unpacked here; install nats-server 2.10 or newer (https://nats.io) on PATH and run this again" >&2
    exit 1
fi
install -m 755 "$(find "$work/root/usr" -name nats-server -type f -path '*bin*' | head -n 1)" "$target"
if ! new_enough "$target"; then
    rm -f "$target"
    echo "nats-server.sh: the packaged nats-server is older than 2.10 or does not run here; install a newer one on PATH and run this again" >&2
    exit 1
fi
