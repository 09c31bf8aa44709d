# A machine of its own for kubelet and its containers, in the network namespace this is started in.
#
#   machine.sh DIRECTORY CGROUP NAME
#
# It has processes, mounts, a host name and cgroups of its own; what it writes below /etc, /opt and /var goes to DIRECTORY.
# Everything in it ends with its first process, which ends with this one.
set -eu

if [ "${4:-}" != inside ]; then
    while read -r _ path kind _; do
        case $kind in cgroup | cgroup2) ;; *) continue ;; esac
        mkdir -p "$path/$2"
        # A cpuset of cgroup v1 takes no process before it is told its processors.
        for setting in cpuset.cpus cpuset.mems; do
            [ ! -e "$path/$setting" ] || cat "$path/$setting" > "$path/$2/$setting"
        done
        echo $$ > "$path/$2/cgroup.procs"
    done < /proc/mounts
    exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child -- sh "$0" "$1" "$2" "$3" inside
fi

directory=$1
hostname "$3"
mount -t proc proc /proc
groups=$(awk '$3 == "cgroup" || $3 == "cgroup2" { print $2, $3, $4 }' /proc/mounts)
for tree in etc opt var; do
    mkdir -p "$directory/$tree" "$directory/$tree.work"
    mount -t overlay -o "lowerdir=/$tree,upperdir=$directory/$tree,workdir=$directory/$tree.work" overlay "/$tree"
done
# The layers of containers cannot lie on an overlay, and kubelet asks for the device below its folder.
for folder in containerd kubelet; do
    mkdir -p "$directory/$folder" "/var/lib/$folder"
    mount --bind "$directory/$folder" "/var/lib/$folder"
done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock /run/netns

# That of this network namespace, and below it the cgroups of this machine alone.
mount -t sysfs sysfs /sys
mount -t bpf -o mode=700 bpf /sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
echo "$groups" | while read -r path kind options; do
    if [ "$kind" = cgroup2 ] && [ "$path" = /sys/fs/cgroup ]; then
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        continue
    fi
    mkdir -p "$path"
    # Of the options, those that name the controllers.
    controllers=$(echo "$options" | tr , '\n' | grep -v -x -e rw -e nosuid -e nodev -e noexec -e relatime | paste -s -d ,)
    [ "${controllers#name=}" = "$controllers" ] || controllers="none,$controllers"
    mount -t "$kind" ${controllers:+-o "$controllers"} "$kind" "$path"
done

# Kubelet would set these for the whole kernel, which is that of other people.
mkdir "$directory/sysctl" 2>/dev/null || true
while read -r setting value; do
    file="$directory/sysctl/$(echo "$setting" | tr / .)"
    echo "$value" > "$file"
    mount --bind "$file" "/proc/sys/$setting"
done <<SETTINGS
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SETTINGS

echo "$3-$2" | sha256sum | cut -c 1-32 > /etc/machine-id
mkdir -p /opt/cni/bin /etc/cni/net.d /etc/containerd
cp /usr/lib/cni/* /opt/cni/bin/
touch "$directory/ready"
sleep infinity &
# The first process also waits for those whose parents have gone.
while :; do wait; done
