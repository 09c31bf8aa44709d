# bpftool is where a test run has it on PATH.
for folder in /usr/lib/linux-tools/*; do
    PATH="$folder:$PATH"
done
cc --version
protoc --version
etcd --version
ETCDCTL_API=3 etcdctl version
ip -Version
tc -Version
bridge -Version
ss --version
ping -V
ethtool --version
iptables --version
iptables-legacy --version
iptables-save --version
nft --version
bpftool version
sysctl --version
/usr/lib/cni/bridge
prometheus --version
promtool --version
dockerd --version
/usr/bin/docker --version
podman --version
crun --version
iperf3 --version
busybox true
