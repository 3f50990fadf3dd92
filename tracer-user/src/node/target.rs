//! What the user asks to look at.

use std::fmt::Write as _;
use std::path::Path;
use std::str::FromStr;

use super::Node;
use super::pods::VmPod;
use crate::escape;

/// A TARGET of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `NAMESPACE/VM`
    NamespacedVm(String, String),
    /// A VM name or a pod uid.
    Name(String),
    /// `pid:N`
    Pid(u32),
    /// `cgroup:/path`
    Cgroup(String),
}

/// Why a target was not understood or not found. The message lists what there is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// It is no target.
    #[error("'{0}' is no target: write NAMESPACE/VM, a VM name, a pod uid, pid:N or cgroup:/path")]
    Syntax(String),
    /// There is none such.
    #[error("no VM pod '{target}' on this node; {available}")]
    Unknown {
        /// What was asked for.
        target: String,
        /// What there is.
        available: String,
    },
    /// There are several such.
    #[error("'{target}' is ambiguous; {available}")]
    Ambiguous {
        /// What was asked for.
        target: String,
        /// Which it could be.
        available: String,
    },
    /// No such process.
    #[error("no process {0} in any memory cgroup that is visible here")]
    NoProcess(u32),
    /// No such cgroup.
    #[error("no memory cgroup '{path}' below {mount}")]
    NoCgroup {
        /// What was asked for.
        path: String,
        /// Where it was looked for.
        mount: String,
    },
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let syntax = || TargetError::Syntax(escape::terminal(text).into_owned());
        if let Some(pid) = text.strip_prefix("pid:") {
            return pid
                .parse()
                .ok()
                .filter(|pid| *pid > 0)
                .map(Self::Pid)
                .ok_or_else(syntax);
        }
        if let Some(path) = text.strip_prefix("cgroup:") {
            return path
                .starts_with('/')
                .then(|| Self::Cgroup(path.to_owned()))
                .ok_or_else(syntax);
        }
        match text.split_once('/') {
            Some((namespace, vm)) if !namespace.is_empty() && !vm.is_empty() && !vm.contains('/') => {
                Ok(Self::NamespacedVm(namespace.to_owned(), vm.to_owned()))
            }
            None if !text.is_empty() => Ok(Self::Name(text.to_owned())),
            _ => Err(syntax()),
        }
    }
}

impl Node {
    /// The pods that these targets stand for, each once; all VM pods when there is no target.
    ///
    /// # Errors
    /// When a target stands for nothing or for several pods.
    pub fn resolve(&self, targets: &[Target]) -> Result<Vec<VmPod>, TargetError> {
        let pods = self.pods();
        if targets.is_empty() {
            return Ok(pods);
        }
        let mut resolved = Vec::new();
        for target in targets {
            push_new(&mut resolved, self.resolve_one(target, &pods)?);
        }
        Ok(resolved)
    }

    /// The pods that these targets stand for now, each once. A target that stands for nothing, or for several, is left
    /// out: its pod may be about to start, or the old one about to go.
    #[must_use]
    pub fn resolve_present(&self, targets: &[Target]) -> Vec<VmPod> {
        let pods = self.pods();
        let mut resolved = Vec::new();
        for pod in targets.iter().filter_map(|target| self.resolve_one(target, &pods).ok()) {
            push_new(&mut resolved, pod);
        }
        resolved
    }

    fn resolve_one(&self, target: &Target, pods: &[VmPod]) -> Result<VmPod, TargetError> {
        match target {
            Target::Pid(pid) => self.pod_of_process(*pid, pods),
            Target::Cgroup(path) => self.pod_of_cgroup(path),
            Target::NamespacedVm(..) | Target::Name(_) => pod_by_name(target, pods),
        }
    }

    /// The VM pod that the process is in, or else its memcg by itself.
    fn pod_of_process(&self, pid: u32, pods: &[VmPod]) -> Result<VmPod, TargetError> {
        let path = self.memcg_path(pid).ok_or(TargetError::NoProcess(pid))?;
        if let Some(pod) = pods.iter().find(|pod| pod.top.contains(&path)) {
            return Ok(pod.clone());
        }
        self.memcg(&path)
            .and_then(|memcg| self.bare_cgroup(&memcg))
            .ok_or(TargetError::NoProcess(pid))
    }

    /// `path` is below the memory controller's root, or an absolute path of the file system.
    fn pod_of_cgroup(&self, path: &str) -> Result<VmPod, TargetError> {
        let mount = &self.hierarchy().mount;
        let below_mount = Path::new(path).strip_prefix(mount).ok().and_then(Path::to_str);
        self.memcg(below_mount.unwrap_or(path))
            .and_then(|memcg| self.bare_cgroup(&memcg))
            .ok_or_else(|| TargetError::NoCgroup {
                path: escape::terminal(path).into_owned(),
                mount: mount.display().to_string(),
            })
    }
}

fn push_new(resolved: &mut Vec<VmPod>, pod: VmPod) {
    if !resolved.iter().any(|known| known.top.id == pod.top.id) {
        resolved.push(pod);
    }
}

fn pod_by_name(target: &Target, pods: &[VmPod]) -> Result<VmPod, TargetError> {
    let (asked, matches): (String, Vec<&VmPod>) = match target {
        Target::NamespacedVm(namespace, vm) => (
            format!("{namespace}/{vm}"),
            pods.iter()
                .filter(|pod| pod.namespace == *namespace && pod.vm == *vm)
                .collect(),
        ),
        Target::Name(name) => (
            name.clone(),
            pods.iter()
                .filter(|pod| pod.vm == *name || pod.pod_uid == *name)
                .collect(),
        ),
        Target::Pid(_) | Target::Cgroup(_) => (String::new(), Vec::new()),
    };
    let target = escape::terminal(&asked).into_owned();
    match matches.as_slice() {
        [pod] => Ok((*pod).clone()),
        [] => Err(TargetError::Unknown {
            target,
            available: list("there is", &pods.iter().collect::<Vec<_>>()),
        }),
        several => Err(TargetError::Ambiguous {
            target,
            available: list("it could be", several),
        }),
    }
}

/// Names pods in one line, with their uids where names repeat (a VM that migrates within the node's view).
fn list(lead: &str, pods: &[&VmPod]) -> String {
    const SHOWN: usize = 20;
    if pods.is_empty() {
        return format!("{lead} none");
    }
    let mut text = format!("{lead} ");
    for (index, pod) in pods.iter().take(SHOWN).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let label = pod.label();
        let repeated = pods.iter().filter(|other| other.label() == label).count() > 1;
        let _ = write!(text, "{comma}{}", escape::terminal(&label));
        if repeated && !pod.pod_uid.is_empty() {
            let _ = write!(text, " (pod {})", pod.pod_uid);
        }
    }
    if pods.len() > SHOWN {
        let _ = write!(text, " and {} more", pods.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::test_tree::Tree;

    fn vm(tree: &Tree, pid: u32, guest: &str, uid_digit: char) {
        let qemu = "/usr/libexec/qemu-kvm";
        tree.process(
            pid,
            b"qemu-kvm",
            Some(qemu),
            &[qemu, "-name", &format!("guest={guest}")],
        );
        let uid = uid_digit.to_string().repeat(32);
        tree.group(&format!("/kubepods/pod{uid}"), 1, Some(4096), &[pid]);
    }

    fn node() -> (Tree, Node) {
        let tree = Tree::v1();
        vm(&tree, 11, "a_web", 'a');
        vm(&tree, 12, "b_web", 'b');
        vm(&tree, 13, "b_db", 'c');
        tree.process(14, b"x", Some("/x"), &["x"]);
        tree.group("/other", 1, None, &[14]);
        let node = Node::new(tree.root()).unwrap();
        (tree, node)
    }

    fn resolve(node: &Node, target: &str) -> Result<String, String> {
        let target = target.parse().map_err(|error: TargetError| error.to_string())?;
        let pods = node.resolve(&[target]).map_err(|error| error.to_string())?;
        Ok(pods.iter().map(VmPod::label).collect())
    }

    #[test]
    fn every_form_of_a_target_is_found() {
        let (tree, node) = node();
        assert_eq!(resolve(&node, "b/web").as_deref(), Ok("b/web"));
        assert_eq!(resolve(&node, "db").as_deref(), Ok("b/db"));
        assert_eq!(resolve(&node, &"a".repeat(32)).as_deref(), Ok("a/web"));
        assert_eq!(resolve(&node, "pid:12").as_deref(), Ok("b/web"));
        assert_eq!(resolve(&node, "pid:14").as_deref(), Ok("other"));
        assert_eq!(resolve(&node, "cgroup:/other").as_deref(), Ok("other"));
        let absolute = tree.root().join("sys/fs/cgroup/memory/other");
        assert_eq!(
            resolve(&node, &format!("cgroup:{}", absolute.display())).as_deref(),
            Ok("other")
        );
        assert_eq!(node.resolve(&[]).unwrap().len(), 3);
        let twice = [Target::Pid(12), Target::NamespacedVm("b".to_owned(), "web".to_owned())];
        assert_eq!(node.resolve(&twice).unwrap().len(), 1);
    }

    #[test]
    fn errors_list_what_there_is() {
        let (_tree, node) = node();
        let error = |target| resolve(&node, target).unwrap_err();
        assert_eq!(error("web"), "'web' is ambiguous; it could be a/web, b/web");
        assert_eq!(
            error("c/web"),
            "no VM pod 'c/web' on this node; there is a/web, b/web, b/db"
        );
        assert_eq!(
            error("pid:999"),
            "no process 999 in any memory cgroup that is visible here"
        );
        assert!(error("cgroup:/none").starts_with("no memory cgroup '/none' below "));
        for wrong in ["", "/", "a/b/c", "pid:", "pid:0", "pid:x", "cgroup:x", "a/"] {
            assert!(error(wrong).contains("is no target"), "{wrong}");
        }
    }
}
