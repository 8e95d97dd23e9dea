#!/bin/bash
# Routes from this node to the pods of the others, at each start of the node. Its address may be another one then, so
# routes lead by addresses that are the node's for good: 169.254.77.N and fe80::77:N, N from /kind/pod-routes.conf, whose
# lines are "N IPV4-RANGE IPV6-RANGE", this node's first. They are of link scope: nothing is sent from them. Its link
# address is its own for good too, since others would send to the old one for seconds; they are told when it changes.
set -e
[[ -e /kind/pod-routes.conf ]] || exit 0
# The CNI plug-in does so too, with the first pod: too late for a NodePort whose backends are elsewhere.
echo 1 > /proc/sys/net/ipv4/ip_forward
{
    read -r own _
    echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify
    echo 1 > /proc/sys/net/ipv6/conf/eth0/ndisc_notify
    ip link set eth0 address "$(printf '02:00:a9:fe:4d:%02x' "$own")"
    ip address replace "169.254.77.$own/24" dev eth0 scope link
    ip address replace "fe80::77:$own/64" dev eth0 nodad
    while read -r number range4 range6; do
        ip route replace "$range4" via "169.254.77.$number" dev eth0
        ip -6 route replace "$range6" via "fe80::77:$number" dev eth0
    done
} < /kind/pod-routes.conf
