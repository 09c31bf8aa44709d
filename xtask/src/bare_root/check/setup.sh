cargo xtask setup 2>&1 | tee /tmp/setup.log
grep --quiet "^Kernel programs are compiled by $COMPILER" /tmp/setup.log
# This shell is the first process, and there should be no other.
for process in /proc/[0-9]*; do
    if [ "$process" != /proc/1 ]; then
        echo "setup has left this running: $(tr '\0' ' ' < "$process/cmdline")"
        exit 1
    fi
done
