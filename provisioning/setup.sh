#!/bin/sh
# Makes a fresh Debian 12 or 13 or Ubuntu 24.04 able to run everything of this repository: system packages (as root),
# a virtual environment in .venv from the locks with hashes, llama.cpp built for this machine's processor.
# A second run does nothing that was done before. Arguments are further system packages.
set -eu
cd "$(dirname "$0")/.."

packages="python3 python3-venv python3-dev gcc g++ make cmake ninja-build iproute2 nftables conntrack wireguard-tools
          wireguard-go nginx openssh-server openssl e2fsprogs util-linux procps $*"

missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "setup: not installed:$missing" >&2
        echo "hint: sudo make setup installs them; without them \`appliance demo --local\` still works" >&2
    else
        echo "setup: installing$missing"
        # Packages must not start their daemons here: nothing may listen on this machine because of a demo.
        # invoke-rc.d asks /usr/sbin/policy-rc.d; 101 means: do not.
        policy=""
        if [ ! -e /usr/sbin/policy-rc.d ]; then
            policy=/usr/sbin/policy-rc.d
            printf '#!/bin/sh\nexit 101\n' > "$policy"
            chmod 755 "$policy"
            trap 'rm -f "$policy"' EXIT
        fi
        apt-get update -q
        # shellcheck disable=SC2086  # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
        if [ -n "$policy" ]; then
            rm -f "$policy"
            trap - EXIT
        fi
    fi
fi

python=${PYTHON:-python3}
[ -x .venv/bin/python ] || "$python" -m venv .venv

# The environment is as the locks and the project say when the stamp holds their digest.
wanted=$(cat provisioning/locks/*.txt pyproject.toml | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/.setup 2>/dev/null || true)" != "$wanted" ]; then
    .venv/bin/python provisioning/build_llama.py
    echo "setup: installing Python packages"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r provisioning/locks/all.txt
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
    echo "$wanted" > .venv/.setup
fi
echo "setup: done"
