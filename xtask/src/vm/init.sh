#!/bin/busybox sh
# The first process of a guest: makes it a system, runs /flannel/command, says how that ended, and ends the guest.
# It speaks through ports of virtio-serial: "stdout" and "stderr" are the command's, "status" is ours.
export PATH=/flannel/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb

fail() {
    echo "<0>flannel-vm: $*" > /dev/kmsg
    poweroff -f
}

mount -t devtmpfs devtmpfs /dev
exec < /dev/null > /dev/kmsg 2>&1
mkdir -p /dev/pts /dev/shm
mount -t proc proc /proc || fail "no /proc"
mount -t sysfs sysfs /sys || fail "no /sys"
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run || fail "no tmpfs"
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup || fail "no cgroup2"
mount -t bpf bpf /sys/fs/bpf || fail "no bpffs"
mount -t tracefs tracefs /sys/kernel/tracing
mkdir -p /run/lock /run/netns
hostname flannel-vm
ip link set lo up

# Opening it loads the module, as where kmod has made the node.
mkdir -p /dev/net
[ -c /dev/net/tun ] || mknod /dev/net/tun c 10 200

modprobe -a virtio_pci virtio_console virtio_rng || fail "no modules for the ports"

port() {
    # The kernel makes a port known some time after its driver.
    for try in $(seq 100); do
        for found in /sys/class/virtio-ports/*; do
            if [ "$(cat "$found/name" 2> /dev/null)" = "$1" ]; then
                port="/dev/${found##*/}"
                [ -c "$port" ] && return
            fi
        done
        sleep 0.1
    done
    fail "no port $1"
}
port status; exec 3> "$port"
port stdout; out="$port"
port stderr; err="$port"

# What the kernel says from here on belongs to the command.
dmesg -c > /run/boot.log
echo started >&3
/flannel/command 3>&- > "$out" 2> "$err"
code=$?
if [ "$code" != 0 ]; then
    dmesg | tail -n 40 > /dev/ttyS0
fi
echo "exit $code" >&3
poweroff -f
