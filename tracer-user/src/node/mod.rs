//! What runs on this node: cgroups, VM pods, processes, threads, guest RAM. The only room that reads /proc and /sys/fs/cgroup.
