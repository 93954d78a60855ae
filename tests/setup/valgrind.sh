#!/usr/bin/env bash
# Puts a valgrind at .tidemill/bin/valgrind, where none is on PATH: the Debian package's, unpacked beside the system. Only
# tests/counts needs it, and does without where it is not to be had.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/debian-package.sh"
home="$(cd "$here/../.." && pwd)/.tidemill"
target="$home/bin/valgrind"

works() { "$1" --tool=callgrind --callgrind-out-file=/dev/null true >/dev/null 2>&1; }

if works valgrind || works "$target"; then
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
if ! unpack_packages "$suite" "$work" valgrind; then
    echo "valgrind.sh: no Debian package of valgrind could be unpacked here; install valgrind on PATH to have instructions counted" >&2
    exit 1
fi
mkdir -p "$home/bin"
rm -rf "$home/valgrind"
mv "$work/root" "$home/valgrind"
cat >"$target" <<WRAPPER
#!/usr/bin/env bash
export VALGRIND_LIB="$home/valgrind/usr/libexec/valgrind"
exec "$home/valgrind/usr/bin/valgrind.bin" "\$@"
WRAPPER
chmod 755 "$target"
if ! works "$target"; then
    rm -f "$target"
    echo "valgrind.sh: the packaged valgrind does not run here; install valgrind on PATH to have instructions counted" >&2
    exit 1
fi
