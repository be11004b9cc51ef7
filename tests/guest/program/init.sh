#!/bin/busybox sh
# First program of a lab guest: file systems, modules in the order the host wrote down, then the agent, or what the
# kernel's command line names instead.
/bin/busybox mkdir -p /proc /sys /dev /tmp /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
stty -echo -onlcr
# From here the console carries only what the agent says, save a panic.
dmesg -n 1
while read -r module arguments; do
    insmod "/modules/$module.ko" $arguments || echo "init: cannot load $module"
done < /modules/order
exec "${program:-/bin/agent}"
