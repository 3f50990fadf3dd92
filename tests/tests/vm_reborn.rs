//! Memory cgroups at addresses where others were.

use std::time::Duration;

use anyhow::{Result, ensure};
use xtask::vm::Vm;

#[test]
fn who_was_at_an_address_before_is_forgotten() -> Result<()> {
    for kernel in ["6.12", "5.10"] {
        let backends = ["fentry", "kprobe"];
        let mut vm = Vm::new(&format!("reborn-{kernel}"))
            .kernel(kernel)
            .file(env!("CARGO_BIN_EXE_reborn"), "/bin/reborn")
            .env("HEADROOM_BINARIES", "/bin")
            .timeout(Duration::from_secs(420));
        for backend in backends {
            vm = vm.command(["/bin/reborn", backend]);
        }
        let run = vm.boot()?;
        run.expect_success()?;
        for (backend, command) in backends.iter().zip(&run.commands) {
            let said = command.stdout();
            ensure!(
                said.contains(&format!("groups by {backend}")),
                "{}: {said}",
                run.release
            );
        }
    }
    Ok(())
}
