# What is done on the machine. Each answer is a line "name=value".
ip link set lo up
ip link add eth0 type veth peer name far
ip address add 192.168.77.11/24 dev eth0
ip link set eth0 up
ip link set far up
ip route add default via 192.168.77.1
systemctl start systemd-journald.socket systemd-journald.service
export ETCDCTL_API=3
config=/coreos.com/network/config
start_etcd() {
    etcd --data-dir /tmp/etcd > /tmp/etcd.log 2>&1 &
    etcd=$!
    for _ in $(seq 100); do
        etcdctl endpoint health > /tmp/health 2>&1 && return
        sleep 0.2
    done
    echo "etcd=$(tail -1 /tmp/etcd.log)"
}
show() {
    systemctl show flanneld --property="$1" --value
}
wait_for() {
    for _ in $(seq 150); do
        [ "$(show "$1")" = "$2" ] && return
        sleep 0.2
    done
}
start_etcd
printf 'FLANNELD_IP_MASQ=true\nFLANNELD_ETCD_ENDPOINTS=http://127.0.0.1:2379\n' > /etc/default/flanneld

systemctl start --no-block flanneld
wait_for ActiveState activating
sleep 3
echo "waiting_state=$(show ActiveState)"
echo "waiting_status=$(show StatusText)"
etcdctl put $config "{\"Network\":\"10.5.0.0/16\",\"Backend\":{\"Type\":\"$BACKEND\"}}" > /tmp/put
wait_for ActiveState active
echo "state=$(show ActiveState)"
echo "status=$(show StatusText)"
echo "restarts=$(show NRestarts)"
echo "watchdog=$(show WatchdogUSec)"
echo "oom=$(show OOMScoreAdjust)"
echo "seccomp=$(grep ^Seccomp: "/proc/$(show MainPID)/status" | cut -f 2)"
echo "rules=$(iptables-save | grep -c FLANNEL)"
# The state file is written a second later.
sleep 3
flannelctl verify > /tmp/verify
echo "verify=$?"
systemctl reload flanneld
echo "reload=$?"
kill $etcd
wait $etcd
systemctl reload flanneld
echo "reload_without_etcd=$?"
start_etcd

etcdctl put $config "{\"Network\":\"10.5.0.0/16\",\"EnableNFTables\":true,\"Backend\":{\"Type\":\"$BACKEND\"}}" > /tmp/put
sleep 8
echo "tables=$(nft list tables | grep -c flannel)"
ip link delete "$DEVICE"
sleep 4
echo "device=$(ip -brief link | grep -c "^$DEVICE[@ ]")"

sleep 3
pid=$(show MainPID)
kill -STOP "$pid"
wait_for NRestarts 1
wait_for ActiveState active
echo "restarts_after_a_stop=$(show NRestarts)"
echo "result=$(journalctl --unit flanneld --output cat | grep -c "Failed with result 'watchdog'")"
flannelctl leave --yes > /tmp/leave
echo "leave=$?"
wait_for ActiveState inactive
sleep 3
echo "state_after_leave=$(show ActiveState)"
echo "leases=$(etcdctl get --prefix /coreos.com/network/subnets/ | grep -c .)"
echo "errors=$(journalctl --unit flanneld --priority err --output cat | grep -c "Couldn't fetch network config")"
echo "infos=$(journalctl --unit flanneld --output cat | grep -c '^ INFO ready')"
echo "refused=$(journalctl --unit flanneld --output cat | grep -c 'Operation not permitted')"
journalctl --unit flanneld --output short > /exchange/journal
echo end=1
