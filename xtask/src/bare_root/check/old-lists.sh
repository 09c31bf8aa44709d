# Lists as on a machine that has not asked for a week: versions that are too old, files that are gone.
for list in /var/lib/apt/lists/*_Packages; do
    sed -i -e 's/^Version: .*/Version: 0/' -e 's/^Filename: .*/Filename: gone/' "$list"
done
rm /var/lib/apt/lists/*Release
find /var/lib/apt/lists -type f -exec touch --date='-7 days' {} +
[[ $(apt-cache policy etcd-server) == *'Candidate: 0'* ]]
cargo build --quiet --locked --package xtask
