//! At which level of the cgroup tree a memcg stands, from its path alone.

use serde::Serialize;

/// A memcg and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Level {
    /// What it holds.
    pub kind: LevelKind,
    /// Its path.
    pub path: String,
    /// Pod uid, where the path holds one.
    pub pod_uid: Option<String>,
}

/// What a memcg holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelKind {
    /// One container of a pod.
    Container,
    /// A whole pod.
    Pod,
    /// All pods of a quality-of-service class, or all pods.
    Pods,
    /// A libvirt machine outside of Kubernetes.
    Machine,
    /// The root: the whole node.
    Root,
    /// Something else.
    Other,
}

impl LevelKind {
    /// For people, with its article.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Container => "the container",
            Self::Pod => "the pod",
            Self::Pods => "all pods together",
            Self::Machine => "the libvirt machine",
            Self::Root => "the node",
            Self::Other => "the cgroup",
        }
    }
}

impl Level {
    /// The level of a cgroup path.
    ///
    /// systemd driver: `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice/
    /// cri-containerd-<id>.scope`; cgroupfs driver: `/kubepods/burstable/pod<uid>/<id>`.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let pod = parts.iter().position(|part| is_pod(part));
        let kind = match (parts.as_slice(), pod) {
            ([], _) => LevelKind::Root,
            (_, Some(at)) if at + 1 == parts.len() => LevelKind::Pod,
            (_, Some(_)) => LevelKind::Container,
            ([.., last], None) if is_container(last) => LevelKind::Container,
            ([first, ..], None) if first.starts_with("kubepods") => LevelKind::Pods,
            (_, None) if parts.iter().any(|part| part.starts_with("machine-qemu")) => LevelKind::Machine,
            _ => LevelKind::Other,
        };
        Self {
            kind,
            path: path.to_owned(),
            pod_uid: pod.and_then(|at| pod_uid(parts[at])),
        }
    }
}

fn after_pod(part: &str) -> Option<&str> {
    part.strip_prefix("pod").or_else(|| {
        part.starts_with("kubepods-")
            .then(|| part.split_once("-pod").map(|(_, uid)| uid))
            .flatten()
    })
}

fn is_pod(part: &str) -> bool {
    after_pod(part).is_some_and(|uid| uid.len() >= 8)
}

fn is_container(part: &str) -> bool {
    ["cri-containerd-", "crio-", "docker-", "libpod-"]
        .iter()
        .any(|runtime| part.starts_with(runtime))
}

fn pod_uid(part: &str) -> Option<String> {
    let uid = after_pod(part)?;
    let uid = uid.strip_suffix(".slice").unwrap_or(uid);
    let uid = uid.get(..36).unwrap_or(uid).replace('_', "-");
    uid.bytes()
        .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        .then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_told_by_path_under_either_driver() {
        let pod =
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod968a06fb_9ab9_4819_8caf_0392ddff3d9b.slice";
        let level = Level::of(pod);
        assert_eq!(level.kind, LevelKind::Pod);
        assert_eq!(level.pod_uid.as_deref(), Some("968a06fb-9ab9-4819-8caf-0392ddff3d9b"));
        let container = Level::of(&format!("{pod}/cri-containerd-0f32.scope"));
        assert_eq!(
            (container.kind, container.pod_uid),
            (LevelKind::Container, level.pod_uid)
        );
        for (path, kind) in [
            (
                "/kubepods/burstable/pod968a06fb-9ab9-4819-8caf-0392ddff3d9b",
                LevelKind::Pod,
            ),
            (
                "/kubepods/pod968a06fb-9ab9-4819-8caf-0392ddff3d9b/0f32",
                LevelKind::Container,
            ),
            ("/kubepods.slice/kubepods-burstable.slice", LevelKind::Pods),
            (
                r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt",
                LevelKind::Machine,
            ),
            ("/", LevelKind::Root),
            ("/qemucg", LevelKind::Other),
        ] {
            assert_eq!(Level::of(path).kind, kind, "{path}");
        }
    }
}
