#!/bin/sh
# Writes the options with which Docker's default bridge takes the subnet of flannel's subnet file: --bip, --mtu and
# --ip-masq. The flags are those of stock flannel's script of this name, and so is what is written.

set -eu

usage() {
	cat >&2 <<-END
	$0 [-f FLANNEL-ENV-FILE] [-d DOCKER-ENV-FILE] [-i] [-c] [-m] [-k COMBINED-KEY]

	Generate Docker daemon options based on flannel env file
	OPTIONS:
	  -f  Path to flannel env file. Defaults to /run/flannel/subnet.env
	  -d  Path to Docker env file to write to. Defaults to /run/docker_opts.env
	  -i  Output each Docker option as individual var, e.g. DOCKER_OPT_MTU="--mtu=1500"
	  -c  Output combined Docker options into one var. Without -i and -c: both
	  -k  Name of that var, DOCKER_OPTS by default. The options it has in the environment come first
	  -m  Do not output --ip-masq
	END
	exit 1
}

fail() {
	echo "$0: $*" >&2
	exit 1
}

# The value that the flannel env file gives a variable; of several, the last. The file is read, never run.
value() {
	sed -n "s/^[[:space:]]*$1=//p" "$flannel_env" | tail -n 1 | sed 's/[[:space:]]*$//; s/^"\(.*\)"$/\1/'
}

# Whether that is an address of IPv4 with a prefix length.
is_subnet() {
	byte='(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])'
	echo "$1" | grep -Eqx "($byte\.){3}$byte/(3[0-2]|[12]?[0-9])"
}

# The network that an address with a prefix length is of, as "ip route" writes it.
network_of() {
	address=${1%/*} length=${1#*/} number=0
	for byte in $(echo "$address" | tr . ' '); do
		number=$((number * 256 + byte))
	done
	number=$((number >> (32 - length) << (32 - length)))
	echo "$((number >> 24)).$((number >> 16 & 255)).$((number >> 8 & 255)).$((number & 255))/$length"
}

# A line of the Docker env file, as a shell and systemd read it.
line() {
	case $2 in
	*"
"*) fail "$1 has more than one line: an env file cannot hold that" ;;
	esac
	printf '%s="%s"\n' "$1" "$(printf %s "$2" | sed 's/[\\"]/\\&/g')"
}

flannel_env=/run/flannel/subnet.env
docker_env=/run/docker_opts.env
combined_key=DOCKER_OPTS
individual=false combined=false ip_masq=true

while getopts f:d:icmk:h option; do
	case $option in
	f) flannel_env=$OPTARG ;;
	d) docker_env=$OPTARG ;;
	i) individual=true ;;
	c) combined=true ;;
	m) ip_masq=false ;;
	k) combined_key=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# = 0 ] || { echo "$0: what is $1 for?" >&2; usage; }
[ $individual = true ] || [ $combined = true ] || { individual=true combined=true; }
echo "$combined_key" | grep -Eqx '[A-Za-z_][A-Za-z0-9_]*' ||
	fail "-k $combined_key: not the name of a variable"
[ -f "$flannel_env" ] ||
	fail "there is no flannel env file $flannel_env: start flanneld first, or name its --subnet-file with -f"

subnet=$(value FLANNEL_SUBNET) mtu=$(value FLANNEL_MTU) masquerades=$(value FLANNEL_IPMASQ)
is_subnet "$subnet" ||
	fail "$flannel_env: FLANNEL_SUBNET=\"$subnet\" is not an address with a prefix length, such as 10.5.18.1/24"
case $mtu in
*[!0-9]*) fail "$flannel_env: FLANNEL_MTU=\"$mtu\" is not a number" ;;
esac
# A subnet that is reached by a gateway is another host's: Docker would cut this host off from it.
if command -v ip >/dev/null; then
	taken=$(ip -4 route show | grep -F "$(network_of "$subnet") via " || true)
	[ -z "$taken" ] || fail "Your routing table already contains the subnet: $taken"
fi

DOCKER_OPT_BIP=--bip=$subnet
if [ -n "$mtu" ]; then
	DOCKER_OPT_MTU=--mtu=$mtu
fi
# Whoever masquerades, flanneld or Docker, does it alone.
case $ip_masq,$masquerades in
true,true) DOCKER_OPT_IPMASQ=--ip-masq=false ;;
true,false) DOCKER_OPT_IPMASQ=--ip-masq=true ;;
true,?*) fail "Invalid value of FLANNEL_IPMASQ: $masquerades" ;;
esac

# Also those of the environment, in the order of their names.
lines=
eval "all=\${$combined_key:-}"
all=${all:+$all }
for name in $(set | sed -n 's/^\(DOCKER_OPT_[A-Za-z0-9_]*\)=.*/\1/p' | LC_ALL=C sort -u); do
	eval "option=\${$name-}"
	all="$all $option"
	if [ $individual = true ]; then
		lines="$lines$(line "$name" "$option")
"
	fi
done
if [ $combined = true ]; then
	lines="$lines$(line "$combined_key" "$all")
"
fi

# There is nothing to replace in what is no file.
case $docker_env in
/dev/*)
	printf %s "$lines" >"$docker_env"
	exit
	;;
esac
[ ! -d "$docker_env" ] || fail "the Docker env file $docker_env is a directory: choose another -d"
[ ! -e "$docker_env" ] || docker_env=$(readlink -f "$docker_env")
new=$(mktemp "$docker_env.XXXXXX") ||
	fail "cannot write the Docker env file $docker_env: make its directory writable, or choose another -d"
trap 'rm -f "$new"' EXIT
# In the flannel env file itself, all but the options stays: flanneld and others read it.
if [ "$docker_env" = "$(readlink -f "$flannel_env")" ]; then
	grep -Ev "^($combined_key|DOCKER_OPT_[A-Za-z0-9_]*)=" "$docker_env" >"$new" || true
fi
printf %s "$lines" >>"$new"
chmod 644 "$new"
mv -f "$new" "$docker_env"
