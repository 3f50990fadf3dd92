//! A memory cgroup of one's own.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long a group may take to become empty once its processes are dead.
const EMPTY: Duration = Duration::from_secs(10);

/// Where the memory controller is: v1 has a hierarchy of its own, on v2 it is one of many.
const ROOTS: [(&str, &str); 2] = [
    ("/sys/fs/cgroup/memory", "memory.usage_in_bytes"),
    ("/sys/fs/cgroup", "memory.current"),
];

/// A memory cgroup below the controller's root, removed when dropped, with whatever still runs in it.
#[derive(Debug)]
pub struct Memcg {
    path: PathBuf,
    name: String,
    usage: &'static str,
}

impl Memcg {
    /// Makes an empty group.
    ///
    /// # Errors
    /// When there is no memory controller, or no permission.
    pub fn create() -> Result<Self> {
        Self::named("")
    }

    /// Makes an empty group whose name ends so.
    ///
    /// # Errors
    /// When there is no memory controller, or no permission.
    pub fn named(end: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("headroom-test-{}-{number}{end}", std::process::id());
        for (root, usage) in ROOTS {
            let path = Path::new(root).join(&name);
            if fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self {
                path,
                name: name.clone(),
                usage,
            };
            // On v2 the root has no file of this name, but every group with the controller has.
            if group.path.join(usage).exists() {
                return Ok(group);
            }
        }
        bail!("no memory cgroup can be made: is this root on a system with the memory controller?");
    }

    /// The TARGET that stands for it.
    #[must_use]
    pub fn target(&self) -> String {
        format!("cgroup:/{}", self.name)
    }

    /// Makes a group below this one, and lets it have the memory controller. This one can then hold no processes on v2.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn child(&self, name: &str) -> Result<Self> {
        let path = self.path.join(name);
        if self.is_v2() {
            self.write("cgroup.subtree_control", "+memory")?;
        }
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            path,
            name: format!("{}/{name}", self.name),
            usage: self.usage,
        })
    }

    /// Whether the memory controller is of version 2.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        self.usage == ROOTS[1].1
    }

    /// Writes a file of the group.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value).with_context(|| format!("cannot write '{value}' to {}", path.display()))
    }

    /// Reads a file of the group.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// A count of a file such as memory.events; 0 where this kernel does not count it.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn count(&self, file: &str, name: &str) -> Result<u64> {
        let text = self.read(file)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.map_or(Ok(0), |value| value.trim().parse())?)
    }

    /// The group's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its id, as events tell it.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn id(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(fs::metadata(&self.path)?.ino())
    }

    /// Has `command` join the group before it runs, so that all its memory is charged here.
    ///
    /// # Errors
    /// When the group cannot be joined.
    pub fn join(&self, command: &mut Command) -> Result<()> {
        use std::os::unix::process::CommandExt as _;
        let procs = File::options().write(true).open(self.path.join("cgroup.procs"))?;
        // SAFETY: between fork and exec only write is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(move || (&procs).write_all(b"0"));
        }
        Ok(())
    }

    /// Sets the hard limit, bytes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_limit(&self, bytes: u64) -> Result<()> {
        let v2 = self.path.join("memory.max");
        let file = if v2.exists() {
            v2
        } else {
            self.path.join("memory.limit_in_bytes")
        };
        fs::write(&file, bytes.to_string()).with_context(|| format!("cannot write {}", file.display()))
    }

    /// What the kernel counts as used, bytes.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn usage(&self) -> Result<u64> {
        let text = fs::read_to_string(self.path.join(self.usage))?;
        text.trim().parse().context("usage is a number")
    }

    /// Limits it, bytes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        let file = match self.usage {
            "memory.current" => "memory.max",
            _ => "memory.limit_in_bytes",
        };
        fs::write(self.path.join(file), bytes.to_string()).context("cannot limit the group")
    }

    /// A figure of memory.stat, bytes.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let text = fs::read_to_string(self.path.join("memory.stat"))?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .with_context(|| format!("no {name} in memory.stat"))?;
        value.trim().parse().context("memory.stat has numbers")
    }

    /// Anonymous memory, bytes.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn anon(&self) -> Result<u64> {
        // v1 calls it rss.
        self.stat("anon").or_else(|_| self.stat("rss"))
    }

    /// Removes the group, which must be empty of processes soon.
    ///
    /// # Errors
    /// When processes stay in it.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + EMPTY;
        loop {
            match fs::remove_dir(&self.path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("cannot remove {}", self.path.display()));
                }
                Err(_) => sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Kills what is in it: all of it was started by the test.
    pub fn kill(&self) {
        let procs = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|line| line.parse().ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

impl Drop for Memcg {
    fn drop(&mut self) {
        self.kill();
        if let Err(error) = self.remove() {
            eprintln!("{error:#}");
        }
    }
}
