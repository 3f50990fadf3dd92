//! The system call bpf(2), for what aya does not offer.

use std::io;

/// kernel: include/uapi/linux/bpf.h enum bpf_cmd (4.13 to 7.3)
pub(super) const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// Calls it.
///
/// # Errors
/// What the kernel says.
///
/// # Safety
/// The attributes are as the kernel knows them for this command, and what they point to is as large as they tell.
pub(super) unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<()> {
    // SAFETY: the caller's.
    let status = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
