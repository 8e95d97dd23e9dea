#!/bin/busybox sh
# First and only process of the virtual machine: runs the lines of /suites ("NAME<tab>COMMAND") and says how each ended.
/bin/busybox mkdir -p /sbin
/bin/busybox --install -s /sbin
export PATH=/bin:/sbin HOME=/root
. /environment
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
while read -r module; do
    insmod "/modules/$module" || echo "kernels: module $module is refused"
done < /modules/order
ip link set lo up
tab="$(printf '\t')"
while IFS="$tab" read -r name command; do
    echo "kernels: begin $name"
    $command < /dev/null 2>&1
    echo "kernels: end $name $?"
done < /suites
poweroff -f
