#!/usr/bin/env bash
# Make a stand-in for the image python:3.11-slim, where the registry that has it cannot be reached.
# Needs root, debootstrap and buildah. Debian's own Python 3.11, without documentation and caches.
set -euo pipefail

name=${1:-docker.io/library/python:3.11-slim}
root=$(mktemp --directory)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$root" >/dev/null
# Where TLS is inspected on the way, the packages' index is known by this machine's certificates only.
cp --dereference /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
# Like the official image: `python`, and a pip that may install.
ln --symbolic python3 "$root/usr/bin/python"
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
rm -rf "$root"/var/{cache,lib}/apt/* "$root"/usr/share/{doc,man,locale,info,i18n} "$root"/var/log/*
find "$root/usr" -name __pycache__ -prune -exec rm -rf {} +

container=$(buildah from scratch)
buildah copy --quiet "$container" "$root" / >/dev/null
certificates=/etc/ssl/certs/ca-certificates.crt
buildah config --env SSL_CERT_FILE=$certificates --env PIP_CERT=$certificates --cmd python3 "$container"
buildah commit --quiet --rm "$container" "$name" >/dev/null
echo "Made $name"
