//! Builds the eBPF object, or says in one line which command sets up what it needs.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    if let Err(error) = build() {
        println!("cargo::error={error:#}");
    }
}

fn build() -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed=HEADROOM_CACHE");
    println!("cargo::rerun-if-changed=../tracer-common/src");
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".to_owned());
    let Some(path) = path_with_linker() else {
        anyhow::bail!("the eBPF object needs bpf-linker and rust-src: run `cargo xtask setup`");
    };
    // SAFETY: a build script has a single thread here.
    unsafe { env::set_var("PATH", path) };
    // build-std is behind a nightly switch; the object is the only thing built with it.
    // SAFETY: as above.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    // The object's type information names source files, which the kernel shows: not those of the machine that built it.
    for (name, value) in [
        ("CARGO_UNSTABLE_TRIM_PATHS", "true"),
        ("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all"),
    ] {
        // SAFETY: as above.
        unsafe { env::set_var(name, value) };
    }
    // aya-build turns each line that cargo writes into a warning: let only warnings and errors be written.
    // SAFETY: as above.
    unsafe { env::set_var("CARGO_TERM_QUIET", "true") };
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "tracer-ebpf",
            root_dir: "../tracer-ebpf",
            ..Default::default()
        }],
        aya_build::Toolchain::Custom(&toolchain),
    )?;
    strip(&PathBuf::from(env::var("OUT_DIR")?).join("headroom-ebpf"))
}

/// Removes what only a debugger reads: it is nine tenths of the object, and would be in memory for good. Type
/// information (BTF) is none of it.
fn strip(path: &Path) -> anyhow::Result<()> {
    let data = fs::read(path)?;
    let mut object = object::build::elf::Builder::read(data.as_slice())?;
    let is_debug = |name: &[u8]| name.strip_prefix(b".rel").unwrap_or(name).starts_with(b".debug_");
    for section in &mut object.sections {
        section.delete = is_debug(&section.name);
    }
    // Symbols of sections that are gone.
    object.delete_orphans();
    // The linker keeps the names of sections among those of symbols, which the writer does not.
    let names = object.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = object::build::elf::SectionData::SectionString;
    let mut stripped = Vec::new();
    object.write(&mut stripped)?;
    Ok(fs::write(path, stripped)?)
}

/// `PATH` with the linker that `cargo xtask setup` built in front, or `None` where that has not run.
fn path_with_linker() -> Option<std::ffi::OsString> {
    let sysroot = std::process::Command::new(env::var_os("RUSTC")?)
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout).ok()?.trim());
    let std_source = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
    let old = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = cache_linkers().collect();
    directories.extend(env::split_paths(&old));
    let linker = directories
        .iter()
        .any(|directory| directory.join("bpf-linker").is_file());
    (linker && std_source.is_file()).then(|| env::join_paths(directories).ok())?
}

/// Directories in headroom's cache that hold a bpf-linker.
fn cache_linkers() -> impl Iterator<Item = PathBuf> {
    let cache = env::var_os("HEADROOM_CACHE").map(PathBuf::from).or_else(|| {
        let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        Some(
            base.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache")))?
                .join("headroom"),
        )
    });
    cache
        .and_then(|cache| fs::read_dir(cache).ok())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("bpf-linker-"))
        .map(|entry| entry.path().join("bin"))
}
