#!/bin/sh
# Pins every dependency with hashes. Run by a developer; the locks are committed.
#   node.txt, control.txt   what a node and the management machine install
#   llama.txt               the engine's source, built by build_llama.py
#   all.txt                 everything that demo and tests need, without the engine
set -eu
cd "$(dirname "$0")/.."
compile() {
    .venv/bin/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-header \
        --no-emit-index-url --no-emit-trusted-host --no-emit-find-links "$@"
}
compile --extra node --output-file provisioning/locks/node.txt pyproject.toml
compile --extra control --output-file provisioning/locks/control.txt pyproject.toml
.venv/bin/python - <<'PY'
import re
from pathlib import Path

locks = Path("provisioning/locks")
entry = re.compile(r"^llama-cpp-python==.*?(?=^\S)", re.MULTILINE | re.DOTALL)
(locks / "llama.txt").write_text(entry.search((locks / "node.txt").read_text() + "\nend")[0])
PY
.venv/bin/python - > provisioning/locks/groups.in <<'PY'
import tomllib
from pathlib import Path

groups = tomllib.loads(Path("pyproject.toml").read_text())["dependency-groups"]
print("\n".join([*groups["lab"], *groups["dev"]]))
PY
compile --no-annotate --all-extras --output-file provisioning/locks/all.txt pyproject.toml provisioning/locks/groups.in
rm provisioning/locks/groups.in
.venv/bin/python - <<'PY'
import re
from pathlib import Path

path = Path("provisioning/locks/all.txt")
text = re.sub(r"^llama-cpp-python==.*?(?=^\S)", "", path.read_text() + "\nend", flags=re.MULTILINE | re.DOTALL)
path.write_text(text.removesuffix("\nend"))
PY
