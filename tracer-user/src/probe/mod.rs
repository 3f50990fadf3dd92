//! Kernel features, backends, loading and draining of the eBPF programs. The only room that touches aya.
