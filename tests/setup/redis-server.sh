#!/usr/bin/env bash
# Puts a redis-server at .tidemill/bin/redis-server: the one on PATH, else the Debian package's with the libraries it
# needs, unpacked beside the system. Does nothing when it is there already.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/debian-package.sh"
home="$(cd "$here/../.." && pwd)/.tidemill"
target="$home/bin/redis-server"

works() { "$target" --version >/dev/null 2>&1; }

if works; then
    exit 0
fi
mkdir -p "$home/bin"
if found=$(command -v redis-server); then
    ln -sf "$found" "$target"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
if ! unpack_packages "$suite" "$work" redis-server redis-tools libjemalloc2 liblzf1 libatomic1; then
    echo "redis-server.sh: no Debian package of redis-server could be unpacked here; install redis-server on PATH and run this again" >&2
    exit 1
fi
rm -rf "$home/redis"
mv "$work/root" "$home/redis"
# The program's place within the unpacked tree, and its libraries beside it.
program=$(find "$home/redis/usr/bin" -name redis-server | head -n 1)
libraries=$(find "$home/redis/usr/lib" -name 'libjemalloc.so*' -printf '%h\n' | head -n 1)
cat >"$target" <<WRAPPER
#!/usr/bin/env bash
export LD_LIBRARY_PATH="$libraries\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
exec -a redis-server "$program" "\$@"
WRAPPER
chmod 755 "$target"
if ! works; then
    rm -f "$target"
    echo "redis-server.sh: the packaged redis-server does not run here; install redis-server on PATH and run this again" >&2
    exit 1
fi
