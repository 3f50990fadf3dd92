//! What the threads of a process are at that is waited for in vain.

use std::fs::{self, read_to_string};
use std::path::Path;

/// `NAME STATE TIME [WHERE]` of each thread, below a root such as `/proc`: its state's letter (`R` runs, `S` and `D` wait), the
/// clock ticks that it has run for, of a vCPU also those in the guest, and where in the kernel it waits.
#[must_use]
pub fn threads(root: &Path, pid: u32) -> String {
    let Ok(tasks) = fs::read_dir(root.join(format!("{pid}/task"))) else {
        return "gone".to_owned();
    };
    let mut threads: Vec<String> = tasks.flatten().filter_map(|task| thread(&task.path())).collect();
    threads.sort_unstable();
    threads.join(", ")
}

fn thread(task: &Path) -> Option<String> {
    let comm = read_to_string(task.join("comm")).ok()?;
    let stat = read_to_string(task.join("stat")).ok()?;
    // The name before it may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    // kernel: proc(5), fields 3, 14, 15 and 43 of stat; what ran in the guest is part of the second
    let count = |word: usize| words.get(word).and_then(|text| text.parse::<u64>().ok());
    let ticks = count(11)?.saturating_add(count(12)?);
    let guest = match count(40) {
        None | Some(0) => String::new(),
        Some(ticks) => format!(" ({ticks} in the guest)"),
    };
    let state = words.first()?;
    let place = read_to_string(task.join("wchan")).unwrap_or_default();
    let place = match place.trim() {
        "" | "0" => String::new(),
        place => format!(" {place}"),
    };
    Some(format!("{} {state} {ticks}{guest}{place}", comm.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_state_time_and_place_whatever_the_name() {
        let root = tempfile::tempdir().unwrap();
        let task = |tid: u32, comm: &str, stat: &str, place: &str| {
            let task = root.path().join(format!("7/task/{tid}"));
            fs::create_dir_all(&task).unwrap();
            for (file, text) in [("comm", comm), ("stat", stat), ("wchan", place)] {
                fs::write(task.join(file), text).unwrap();
            }
        };
        let stat = |comm: &str, state: &str, user: u32, system: u32| {
            format!("7 ({comm}) {state} 1 7 7 0 -1 4194304 100 0 0 0 {user} {system} 0 0 20 0 9 0")
        };
        let vcpu = format!("{}{} 25 0", stat("CPU 0/KVM", "R", 30, 12), " 0".repeat(21));
        task(8, "CPU 0/KVM\n", &vcpu, "0");
        task(9, "a) S 1\n", &stat("a) S 1", "D", 0, 1), "kvm_vcpu_block");
        assert_eq!(
            threads(root.path(), 7),
            "CPU 0/KVM R 42 (25 in the guest), a) S 1 D 1 kvm_vcpu_block"
        );
        assert_eq!(threads(root.path(), 1), "gone");
    }
}
