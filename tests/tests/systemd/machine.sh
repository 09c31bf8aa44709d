#!/bin/sh
# A machine whose first process is systemd: this system's files beneath a layer that goes away with it, and none of its
# services. Started in new namespaces of each kind; the folder $1 is /exchange there, and its run.sh is run.
set -eu
mount --make-rprivate /
exchange=$1
machine=$exchange/machine
mkdir "$machine"
mount -t tmpfs machine "$machine"
mkdir "$machine/upper" "$machine/work" "$machine/root"
cd "$machine/root"
mount -t overlay machine -o "lowerdir=/,upperdir=$machine/upper,workdir=$machine/work" "$machine/root"
cd "$machine/root"
mount -t proc proc proc
echo 1 > proc/sys/net/ipv4/ip_forward
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf -o mode=0700 bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs var/log
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
touch dev/console
mount --bind /dev/null dev/console
mkdir -p exchange
mount --bind "$exchange" exchange
rm -rf etc/systemd/system etc/default/flanneld usr/local/bin
mkdir -p etc/systemd/system etc/default usr/local/bin
cp exchange/*.service etc/systemd/system/
cp exchange/flanneld exchange/flannelctl usr/local/bin/
cat > etc/systemd/system/run.service <<'UNIT'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh /exchange/run.sh
StandardOutput=file:/exchange/output
StandardError=file:/exchange/output
UNIT
mkdir -p old
pivot_root . old
umount -l /old
exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=run.service --log-target=journal --show-status=no
