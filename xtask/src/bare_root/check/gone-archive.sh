echo 'deb http://gone.invalid/debian gone main' > /etc/apt/sources.list.d/gone.list
apt-get purge --yes --quiet etcd-client
cargo xtask setup 2>&1 | tee /tmp/gone.log
grep --quiet '^warning: what follows goes by lists of packages that may be old' /tmp/gone.log
etcdctl version
rm /etc/apt/sources.list.d/gone.list
