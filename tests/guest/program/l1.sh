#!/bin/busybox sh
# Second program of an L1 guest: programs in TypeScript, one after the other until one fails, and the end.
export HOME=/tmp NO_COLOR=1 DENO_NO_UPDATE_CHECK=1
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
while read -r program; do
    echo "@program $program"
    deno run --quiet --allow-all --no-config "/programs/$program.js" < /dev/null
    status=$?
    echo "@ended $status"
    [ "$status" = 0 ] || break
done < /programs/order
poweroff -f
