#!/bin/busybox sh
# Second program of an L1 guest: a program in TypeScript, and the end.
export HOME=/tmp NO_COLOR=1 DENO_NO_UPDATE_CHECK=1
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
deno run --quiet --allow-all --no-config /programs/main.js < /dev/null
echo "@end $?"
poweroff -f
