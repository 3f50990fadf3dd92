//! Kernel OOM reports, parsed.
