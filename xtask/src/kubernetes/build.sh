# Builds kube-apiserver 1.20.2, the last of which Debian packages the source, and moves it to $1.
set -eux
place=$(dirname "$1")
mkdir -p "$place"
work=$(mktemp -d "$place/build.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

# Lists of its own: the machine's need not know of sources, or of this release.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir lists partial
echo "deb-src [signed-by=$keyring] http://deb.debian.org/debian bookworm main" > sources.list
apt="-o Dir::Etc::SourceList=$work/sources.list -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$work/lists
     -o APT::Sandbox::User=root"
# shellcheck disable=SC2086
apt-get $apt update
# shellcheck disable=SC2086
apt-get $apt source kubernetes=1.20.5+really1.20.2-1.1+deb12u1
mv kubernetes-*/ source
cd source

# The packaged copy reads maps of Go in a way that Go 1.18 ended.
reflect=vendor/github.com/modern-go/reflect2
rm $reflect/*.go $reflect/*.s
cp -L /usr/share/gocode/src/github.com/modern-go/reflect2/*.go $reflect/
cp -L /usr/share/gocode/src/github.com/modern-go/reflect2/*.s $reflect/
rm -f $reflect/*_test.go

export HOME="$work" GOPATH="$work/source/.go" GOCACHE="$work/cache" CGO_ENABLED=0 KUBE_GIT_VERSION=v1.20.2
mkdir -p .go/src/k8s.io
ln -s ../../.. .go/src/k8s.io/kubernetes
nice make WHAT=cmd/kube-apiserver GOLDFLAGS="-s -w"
mv _output/local/bin/linux/amd64/kube-apiserver "$1.new"
mv "$1.new" "$1"
