cargo xtask build-ebpf
test -s target/ebpf/flannel-datapath.o
