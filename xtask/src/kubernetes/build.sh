# Builds programs of Kubernetes 1.20.2, the last whose servers Debian packages the source of.
#
#   build.sh PLACE NAME...
#
# Each goes to PLACE/NAME as soon as it is built, and a line "NAME VERSION SHA256" to PLACE/programs. What has such a
# line is not built again.
set -eu
place=$1
shift
version=1.20.2
package=kubernetes=1.20.5+really1.20.2-1.1+deb12u1

# Moves a program to its place and writes down what it is. $1: name, $2: the file
keep() {
    hash=$(sha256sum "$2" | cut -d ' ' -f 1)
    mv "$2" "$place/$1"
    { grep -v "^$1 " "$place/programs" 2>/dev/null || true; echo "$1 $version $hash"; } > "$place/programs.new"
    mv "$place/programs.new" "$place/programs"
}

is_kept() {
    hash=$(sed -n "s/^$1 $version //p" "$place/programs" 2>/dev/null)
    [ -n "$hash" ] && echo "$hash  $place/$1" | sha256sum --check --status
}

mkdir -p "$place"
# Who builds at the same time builds for us, too.
exec 9> "$place/lock"
flock 9
missing=
for name; do
    is_kept "$name" || missing="$missing $name"
done
[ -n "$missing" ] || exit 0
echo "To be built:$missing"

rm -rf "$place"/build.*
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
apt-get $apt source $package
mv kubernetes-*/ source
cd source

# The packaged copy reads maps of Go in a way that Go 1.18 ended.
reflect=vendor/github.com/modern-go/reflect2
rm $reflect/*.go $reflect/*.s
cp -L /usr/share/gocode/src/github.com/modern-go/reflect2/*.go $reflect/
cp -L /usr/share/gocode/src/github.com/modern-go/reflect2/*.s $reflect/
rm -f $reflect/*_test.go

export HOME="$work" GOPATH="$work/source/.go" GOCACHE="$work/cache" CGO_ENABLED=0 KUBE_GIT_VERSION=v$version
mkdir -p .go/src/k8s.io
ln -s ../../.. .go/src/k8s.io/kubernetes
echo "Generating code"
make generated_files

export GO111MODULE=off
cd .go/src/k8s.io/kubernetes
parts=k8s.io/kubernetes/vendor/k8s.io
symbols="-s -w"
for library in component-base/version client-go/pkg/version; do
    symbols="$symbols -X $parts/$library.gitVersion=v$version -X $parts/$library.gitMajor=1 -X $parts/$library.gitMinor=20"
done
for name in $missing; do
    echo "Building $name"
    case $name in
        pause) gcc -Os -static -DVERSION=v3.2 -o "$work/$name" build/pause/linux/pause.c ;;
        agnhost) go build -v -ldflags "$symbols" -o "$work/$name" ./test/images/agnhost ;;
        e2e.test) go test -v -c -vet=off -ldflags "$symbols" -o "$work/$name" ./test/e2e ;;
        *) go build -v -ldflags "$symbols" -o "$work/$name" "./cmd/$name" ;;
    esac
    keep "$name" "$work/$name"
done
