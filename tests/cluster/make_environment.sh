#!/usr/bin/env bash
# Makes .venv-sky, the launcher's environment, with what tests/cluster needs; does nothing where it is ready.
# As root it also installs the Debian packages of the one-machine Slurm.
# SkyPilot needs click<8.2 and transformers' hub client needs a newer one: hence an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-$(command -v python3.11 || command -v python3)}
packages=(slurm-wlm munge openssh-server openssh-client rsync netcat-openbsd)

absent=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || absent+=("$package")
done
if [ ${#absent[@]} -gt 0 ] && [ "$(id -u)" = 0 ]; then
    # Debian would start its own sshd, slurmctld and munged, which nobody here asked for.
    policy=/usr/sbin/policy-rc.d
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; trap 'rm -f $policy' EXIT; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${absent[@]}" >/dev/null
elif [ ${#absent[@]} -gt 0 ]; then
    echo "not root: ${absent[*]} are missing, so tests/cluster will be skipped" >&2
fi

ready=.venv-sky/.ready
if [ ! -e $ready ] || [ constraints-sky.txt -nt $ready ]; then
    [ -x .venv-sky/bin/python ] || "$python" -m venv .venv-sky
    .venv-sky/bin/python -m pip install --quiet -c constraints-sky.txt \
        'skypilot[slurm]' uv 'moto[s3]' flask flask-cors boto3
    touch $ready
fi
