#!/bin/sh
# In place of the agent: a shell for a person, on a disk that is behind the IOMMU.
stty echo onlcr
mkdir -p /mnt
mke2fs /dev/vda > /dev/null 2>&1
mount -t ext2 /dev/vda /mnt
cat <<'TEXT'

A Linux guest. Its DMA goes through page tables of viommu.
  /dev/vda      a disk (00:06.0), mounted on /mnt
  /dev/hwrng    an entropy source (00:03.0)
Try:
  dmesg | grep -i iommu
  dd if=/dev/hwrng bs=16 count=1 2>/dev/null | hexdump -C
  dd if=/dev/zero of=/mnt/file bs=1M count=20; sync
  poweroff -f
TEXT
cd /mnt || exit 1
setsid cttyhack sh
poweroff -f
