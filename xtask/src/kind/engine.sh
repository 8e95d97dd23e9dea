#!/bin/bash
# First process of the container engine's namespaces: prepares them, says so by the file $1, and waits. Whatever runs in
# them ends with it.
set -e
mount --make-rprivate /

# The sysfs of this network namespace. It covers the control groups, which are mounted again: rooted at the cluster's group,
# since this is another namespace of control groups.
groups=$(awk '$3 == "cgroup" || $3 == "cgroup2" { print $2, $3, $4 }' /proc/self/mounts | sort -u)
mount -t sysfs sysfs /sys
if [[ ! $groups =~ ^/sys/fs/cgroup\ cgroup2 ]]; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
fi
while read -r folder type options; do
    mkdir -p "$folder"
    if [[ $type == cgroup2 ]]; then
        mount -t cgroup2 cgroup2 "$folder"
    else
        # Of the options only the controllers, or the name, say which hierarchy it is.
        named=$(tr ',' '\n' <<< "$options" | grep -vxE 'ro|rw|relatime|nosuid|nodev|noexec|xattr|clone_children|release_agent=.*' | paste -sd,)
        mount -t cgroup -o "$named" cgroup "$folder"
    fi
done <<< "$groups"
if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    # Version 2: a group with processes has no groups with controllers in it.
    mkdir -p /sys/fs/cgroup/engine
    echo $$ > /sys/fs/cgroup/engine/cgroup.procs
fi

# Locks, sockets and leases of the engine.
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ip link set lo up

# kind binds the machine's modules into nodes; a kernel without any needs no folder for them.
if [[ ! -e /lib/modules ]]; then
    libraries=$(readlink -f /lib)
    mkdir -p /run/libraries/{upper/modules,work}
    mount -t overlay overlay -o "lowerdir=$libraries,upperdir=/run/libraries/upper,workdir=/run/libraries/work" "$libraries"
fi

touch "$1"
# Waiting for a child, bash takes leave of those that containers leave to the first process, too.
while :; do
    sleep infinity &
    wait $!
done
