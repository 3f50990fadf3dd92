//! Nodes that cannot be traced: exit status 3, and the cause in one line, from `doctor` and `record` alike.

use anyhow::Result;
use headroom_tests::{Run, headroom};
use std::process::Command;

/// Runs `doctor` and `record` behind `wrapper`, and expects both to be refused for this reason.
fn refused(wrapper: &[&str], words: &[&str]) -> Result<()> {
    for command in ["doctor", "record"] {
        let program = headroom()?;
        let mut wrapped = Command::new(wrapper[0]);
        wrapped
            .args(&wrapper[1..])
            .arg(program.get_program())
            .arg(command)
            .env("NO_COLOR", "1");
        Run::of(wrapped.current_dir(std::env::temp_dir()))?.expect_one_line(3, words)?;
    }
    Ok(())
}

/// `unshare` gives the command mounts of its own; `hidden` is covered in there alone.
fn hiding(hidden: &str) -> [String; 5] {
    let script = format!("mount -t tmpfs none {hidden} && exec \"$@\"");
    ["unshare", "--mount", "sh", "-c", &script].map(str::to_owned)
}

#[test]
fn a_kernel_that_shows_no_types_is_named() -> Result<()> {
    let wrapper = hiding("/sys/kernel/btf");
    let mut words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    words.push("sh");
    refused(&words, &["/sys/kernel/btf/vmlinux", "BTF"])
}

#[test]
fn a_missing_capability_is_named() -> Result<()> {
    refused(
        &["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-all"],
        &["CAP_BPF"],
    )
}

#[test]
fn a_node_whose_cgroups_are_hidden_is_refused() -> Result<()> {
    let wrapper = hiding("/sys/fs/cgroup");
    let mut words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    words.push("sh");
    refused(&words, &["memory controller"])
}
