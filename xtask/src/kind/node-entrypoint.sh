#!/bin/bash
# First program of a node, before kind's own: keeps the machine's parameters out of the node's reach. systemd and kubelet
# would set some of them for the whole machine: file-max, protected_regular, panic_on_oops and others.
set -e
for folder in fs kernel vm; do
    mount --bind "/proc/sys/$folder" "/proc/sys/$folder"
    mount -o remount,bind,ro "/proc/sys/$folder"
done

# kubelet leaves a parameter alone that has the value which it wants, and gives up where it can set none
# (pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables).
mkdir -p /run/parameters
while read -r parameter value; do
    file="/run/parameters/${parameter//\//.}"
    echo "$value" > "$file"
    mount --bind "$file" "/proc/sys/$parameter"
done << 'END'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END

exec /usr/local/bin/entrypoint "$@"
