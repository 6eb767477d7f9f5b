#!/usr/bin/env bash
# Programs beside Python that tests use: ssh servers and pdsh (two nodes), ip (network namespaces), Chromium (reports).
# Installed where apt and the right to use it are there; a test whose program is missing fails and says so.
set -euo pipefail
missing=()
for pair in chromium:chromium pdsh:pdsh sshd:openssh-server ssh:openssh-client ip:iproute2; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed: ${missing[*]}; tests that need them will fail" >&2
    exit 0
fi
apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null || { apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null; } \
    || echo "could not install ${missing[*]}; tests that need them will fail" >&2
