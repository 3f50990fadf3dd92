//! What every tracing command has in common: its targets, how it attaches, and what a signal means.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::doctor::{self, kernel_release};
use crate::cli::exit::{ExitError, Status};
use crate::cli::protect;
use crate::collect::{Collector, EventSink, Scope};
use crate::mark::{self, Answer, Marks};
use crate::node::privileges::{Attaching, Children, Code, give_up};
use crate::node::target::Target;
use crate::node::{CgroupVersion, GuestRam, Node};
use crate::probe::{BackendChoice, LiveChoice, LiveState, Options, Tracer, boot_ns, page_size, room};
use crate::recording::event::{FORMAT, Following, Header};
use crate::units::Bytes;

/// Arguments of every tracing command.
#[derive(Debug, clap::Args)]
pub struct AttachArgs {
    /// NAMESPACE/VM, VM name, pod uid, pid:N or cgroup:/path
    targets: Vec<String>,
    /// Count charges with this backend alone
    #[arg(long, value_enum, default_value_t)]
    backend: BackendChoice,
    /// Bytes that a thread charges before it is written down; what is less follows within a second
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    granularity: Bytes,
    /// Stay as likely to be killed as before, instead of being protected from the OOM killer
    #[arg(long)]
    no_protect: bool,
    /// What recordings call this node, instead of by its host name; a container has one of its own
    #[arg(long, value_name = "NAME", env = "HEADROOM_NODE", value_parser = node_name)]
    node: Option<String>,
    /// Keep every privilege, instead of giving up those that are not needed once the probes are attached
    #[arg(long)]
    keep_privileges: bool,
    /// Follow each page of overhead to the end of its charge, or fail: what threads still hold is then told from what was
    /// given back. Done anyway where it is possible, which takes function probes
    #[arg(long, conflicts_with = "no_live")]
    live: bool,
    /// Do not follow pages: charging overhead costs less
    #[arg(long)]
    no_live: bool,
    /// Most pages that are followed at a time
    #[arg(long, value_name = "PAGES", hide = true)]
    live_room: Option<u32>,
    /// Size of the ring buffer, a power of two
    #[arg(long, value_name = "SIZE", default_value = "4MiB", hide = true)]
    ring: Bytes,
}

/// Probes that count, for nobody yet.
pub struct Attached {
    node: Node,
    tracer: Tracer,
    scope: Scope,
    header: Header,
    protect: bool,
    keep_privileges: bool,
}

/// What is [`Attached`], in a process that is protected and has no more privileges than it needs.
pub struct Guarded(Attached);

/// A collector, and what wakes it.
pub type Collecting<S> = (Collector<S>, AsyncFd<OwnedFd>);

impl AttachArgs {
    /// The targets as they were given.
    #[must_use]
    pub fn targets_given(&self) -> &[String] {
        &self.targets
    }

    /// This node's name.
    #[must_use]
    pub fn host(&self) -> String {
        self.node.clone().unwrap_or_else(host_name)
    }

    /// Finds the targets and attaches. They are these pods and no others, however long it takes.
    ///
    /// # Errors
    /// Exit status 3 when this node cannot be traced, 4 when a target is not there.
    pub fn attach(&self) -> anyhow::Result<Attached> {
        self.attach_with(StackArgs::default())
    }

    /// The same, with stacks where they are asked for.
    ///
    /// # Errors
    /// As [`attach`](Self::attach); with stacks also where this kernel has none.
    pub fn attach_with(&self, stacks: StackArgs) -> anyhow::Result<Attached> {
        self.attach_to(stacks, |_, pods| Scope::Pods(pods))
    }

    /// Finds the targets and attaches. A VM that starts again in another pod is found again.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn attach_following(&self) -> anyhow::Result<Attached> {
        self.attach_to(StackArgs::default(), |targets, _| Scope::Targets(targets))
    }

    fn attach_to(
        &self,
        stacks: StackArgs,
        scope: impl FnOnce(Vec<Target>, Vec<crate::node::VmPod>) -> Scope,
    ) -> anyhow::Result<Attached> {
        let unsupported = |reason: String| ExitError::new(Status::Unsupported, format!("cannot trace here: {reason}"));
        let node = Node::new(Path::new("/")).map_err(|error| unsupported(error.to_string()))?;
        let scope = if self.targets.is_empty() {
            Scope::All
        } else {
            let targets = self.targets()?;
            let pods = node
                .resolve(&targets)
                .map_err(|error| ExitError::new(Status::NotFound, error.to_string()))?;
            scope(targets, pods)
        };
        let options = Options {
            backend: self.backend,
            granularity: u32::try_from(self.granularity.0.max(1)).unwrap_or(u32::MAX),
            ring_bytes: ring_bytes("--ring", self.ring)?,
            stack_ring_bytes: stacks.ring_bytes()?,
            cgroup_v1: node.hierarchy().version == CgroupVersion::V1,
            v1_accounts_swap: node.hierarchy().accounts_memory_and_swap(),
            live: self.live_choice(),
            live_pages: self.live_room.unwrap_or_else(|| live_room(&node, &scope)),
        };
        let tracer = Tracer::attach(Path::new("/"), options).map_err(|error| unsupported(doctor::reason(&error)))?;
        protect::warn_of_missing(&node, &["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
        let header = header(&node, &tracer, options, self.host());
        Ok(Attached {
            node,
            tracer,
            scope,
            header,
            protect: !self.no_protect,
            keep_privileges: self.keep_privileges,
        })
    }

    fn live_choice(&self) -> LiveChoice {
        match (self.live, self.no_live) {
            (true, _) => LiveChoice::Required,
            (_, true) => LiveChoice::Off,
            _ => LiveChoice::Auto,
        }
    }

    fn targets(&self) -> anyhow::Result<Vec<Target>> {
        let targets = self.targets.iter().map(|target| target.parse());
        targets
            .collect::<Result<Vec<Target>, _>>()
            .map_err(|error| ExitError::new(Status::Usage, error.to_string()).into())
    }
}

/// Arguments of a command that can sample stacks.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct StackArgs {
    /// Sample the stacks that overhead is charged from, one in each --granularity of an account: which code path grows
    #[arg(long)]
    stacks: bool,
    /// Size of the ring buffer of stacks, a power of two
    #[arg(long, value_name = "SIZE", default_value = "8MiB", hide = true)]
    stack_ring: Bytes,
}

impl StackArgs {
    fn ring_bytes(self) -> anyhow::Result<Option<u32>> {
        self.stacks
            .then(|| ring_bytes("--stack-ring", self.stack_ring))
            .transpose()
    }
}

fn ring_bytes(flag: &str, size: Bytes) -> anyhow::Result<u32> {
    u32::try_from(size.0)
        .ok()
        .filter(|bytes| bytes.is_power_of_two() && *bytes >= 4096)
        .ok_or_else(|| {
            let message = format!("{flag} must be a power of two from 4KiB to 2GiB");
            ExitError::new(Status::Usage, message).into()
        })
}

impl Attached {
    /// Has the header say that forecasts are made on the way: some sink has to make them.
    #[must_use]
    pub const fn foreseeing(mut self) -> Self {
        self.header.forecasts = true;
        self
    }

    /// Protects this process and gives up the privileges that it needs no more, unless it was told not to. Files of
    /// other users are to be open by now, and threads are to be started later.
    ///
    /// # Errors
    /// When privileges cannot be given up.
    pub fn guard(self, children: Children) -> anyhow::Result<Guarded> {
        self.guard_for(children, Attaching::Done)
    }

    /// The same, keeping what it takes to attach another time.
    ///
    /// # Errors
    /// As [`guard`](Self::guard).
    pub fn guard_to_attach_again(self, children: Children) -> anyhow::Result<Guarded> {
        self.guard_for(children, Attaching::Again)
    }

    /// In a process that has been guarded before.
    #[must_use]
    pub const fn guarded_already(self) -> Guarded {
        Guarded(self)
    }

    fn guard_for(self, children: Children, attaching: Attaching) -> anyhow::Result<Guarded> {
        if self.protect {
            protect::from_oom_killer();
        }
        if !self.keep_privileges {
            let code = if self.tracer.samples_stacks() {
                Code::Read
            } else {
                Code::Unread
            };
            give_up(children, attaching, code)
                .context("cannot give up privileges (--keep-privileges leaves them be)")?;
        }
        Ok(Guarded(self))
    }
}

impl Guarded {
    /// Lets events flow into `sink`. Needs the runtime.
    ///
    /// # Errors
    /// When the sink or the kernel side's maps refuse.
    pub fn collect<S: EventSink>(self, sink: S) -> anyhow::Result<Collecting<S>> {
        let attached = self.0;
        let descriptor = attached.tracer.wake_fd()?;
        // SAFETY: the descriptor is owned by the AsyncFd, and nothing else closes it.
        let wake = unsafe { AsyncFd::register(descriptor) }.context("cannot wait for the ring buffer")?;
        let collector = Collector::start(attached.node, attached.tracer, attached.scope, attached.header, sink)?;
        Ok((collector, wake))
    }
}

/// The runtime of a tracing command: one thread, since everything waits for the same ring buffer.
///
/// # Errors
/// When the kernel refuses what it needs.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")
}

/// Listens for marks, or says why not and goes on without: tracing matters more.
#[must_use]
pub fn listen_for_marks() -> Option<Marks> {
    let folder = mark::folder();
    match Marks::listen(&folder) {
        Ok(marks) => Some(marks),
        Err(error) => {
            log::warn!("`headroom mark` does not reach this: {}: {error}", folder.display());
            None
        }
    }
}

/// Puts the marks that wait into the recording.
///
/// # Errors
/// As the collector's.
pub fn put_marks<S: EventSink>(marks: &mut Option<Marks>, collector: &mut Collector<S>) -> anyhow::Result<()> {
    while let Some(asked) = marks.as_mut().and_then(Marks::waiting) {
        let answer = match collector.mark(&asked.request.text, &asked.request.memcgs) {
            Ok(true) => Answer::Marked,
            Ok(false) => Answer::NotWatched,
            Err(error) => {
                asked.answer(Answer::Failed);
                return Err(error.into());
            }
        };
        asked.answer(answer);
    }
    Ok(())
}

/// Signals that end a tracing command cleanly.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches them from now on. Needs the runtime.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one and says what it means.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "terminated",
            _ = self.hangup.recv() => "terminal closed",
        }
    }
}

/// How many pages of overhead there may be: as the budgets of the pods say that are there already.
fn live_room(node: &Node, scope: &Scope) -> u32 {
    let (pods, open) = match scope {
        Scope::Pods(pods) => (pods.clone(), false),
        Scope::Targets(targets) => (node.resolve_present(targets), true),
        Scope::All => (node.pods(), true),
    };
    let budgets = pods.iter().map(|pod| {
        let guest = pod.guest.as_ref().map_or(0, GuestRam::charged_size);
        pod.limit.map(|limit| limit.saturating_sub(guest))
    });
    let budgets: Vec<Option<u64>> = budgets.collect();
    let open = open || budgets.contains(&None);
    let sum = budgets.into_iter().flatten().fold(0_u64, u64::saturating_add);
    room(sum, page_size(), open)
}

/// A name that can be part of a file's name.
fn node_name(text: &str) -> Result<String, String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if text.is_empty() || text.len() > 253 || !text.chars().all(fits) {
        return Err("a name of letters, digits, '.', '_' and '-'".to_owned());
    }
    Ok(text.to_owned())
}

fn host_name() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.nodename().to_string_lossy().into_owned(),
    )
}

fn header(node: &Node, tracer: &Tracer, options: Options, host: String) -> Header {
    let since_epoch = Timestamp::now().as_nanosecond();
    let boot_unix_ns = since_epoch - i128::from(boot_ns());
    Header {
        format: FORMAT.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host,
        kernel: kernel_release(),
        cgroup: node.hierarchy().version.to_string(),
        boot_unix_ns: u64::try_from(boot_unix_ns).unwrap_or(0),
        backends: tracer.backends(),
        granularity: options.granularity.into(),
        page_size: page_size(),
        cpus: std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        forecasts: false,
        live: Some(following(tracer.live())),
    }
}

fn following(live: &LiveState) -> Following {
    match live {
        LiveState::On { pages } => Following {
            on: true,
            room: u64::from(*pages),
            why_not: None,
        },
        LiveState::Off(reason) => Following {
            on: false,
            room: 0,
            why_not: Some(reason.clone()),
        },
    }
}
