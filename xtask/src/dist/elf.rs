//! Whether a program is one file that needs no other.

use anyhow::{Context as _, Result, bail, ensure};
use object::Endianness;
use object::elf::{DT_NEEDED, EM_BPF, EM_X86_64, FileHeader64, PT_DYNAMIC, PT_INTERP};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

/// Makes sure that a program is static and has eBPF programs inside.
///
/// # Errors
/// Says what it needs, or lacks.
pub fn check(program: &[u8]) -> Result<()> {
    let header = FileHeader64::<Endianness>::parse(program).context("it is no ELF file of 64 bits")?;
    let endian = header.endian()?;
    ensure!(header.e_machine(endian) == EM_X86_64, "it is not for x86-64");
    for segment in header.program_headers(endian, program)? {
        match segment.p_type(endian) {
            PT_INTERP => bail!("it needs a dynamic linker (PT_INTERP)"),
            PT_DYNAMIC => {
                let entries = segment.dynamic(endian, program)?.unwrap_or_default();
                let needed = entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED).count();
                ensure!(needed == 0, "it needs {needed} shared libraries (DT_NEEDED)");
            }
            _ => {}
        }
    }
    ensure!(holds_ebpf(program), "it has no eBPF object inside");
    Ok(())
}

/// An ELF header for the eBPF machine stands somewhere in it, aligned as aya wants it.
fn holds_ebpf(program: &[u8]) -> bool {
    let inside = program.get(8..).unwrap_or_default();
    inside.chunks_exact(8).enumerate().any(|(index, word)| {
        word.starts_with(&object::elf::ELFMAG)
            && inside
                .get(index * 8..)
                .and_then(|object| FileHeader64::<Endianness>::parse(object).ok())
                .is_some_and(|header| header.endian().is_ok_and(|endian| header.e_machine(endian) == EM_BPF))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_dynamic_linker_is_refused() {
        let shell = std::fs::read("/bin/sh").unwrap();
        let error = check(&shell).unwrap_err().to_string();
        assert!(error.contains("PT_INTERP"), "{error}");
    }

    #[test]
    fn a_static_program_without_ebpf_is_refused() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = check(&own).unwrap_err().to_string();
        assert!(error.contains("no eBPF"), "{error}");
        assert!(check(b"#!/bin/sh\n").is_err());
    }
}
