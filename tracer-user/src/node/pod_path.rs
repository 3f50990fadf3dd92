//! What the name of a cgroup says: kubelet, container runtimes and libvirt put identities into it.
//!
//! kubernetes: pkg/kubelet/cm/cgroup_manager_linux.go, pod_container_manager_linux.go (1.20 to 1.35);
//! libvirt: src/util/vircgroup.c virSystemdMakeScopeName (6.0 to 11).

/// What kind of pod a cgroup is the top of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Top {
    /// A pod of Kubernetes, by its uid.
    Pod(String),
    /// A libvirt machine, by its name as far as the cgroup tells it.
    Machine(String),
}

/// What the cgroup at this path is the top of, if anything. Works at any depth: nodes made of containers (kind, k3d)
/// have kubelet's hierarchy below a prefix.
#[must_use]
pub fn top_of(path: &str) -> Option<Top> {
    let (above, name) = path.rsplit_once('/')?;
    let uid = systemd_uid(name).or_else(|| cgroupfs_uid(above, name));
    if let Some(uid) = uid {
        return Some(Top::Pod(uid));
    }
    machine_name(name).map(Top::Machine)
}

/// `kubepods-burstable-pod1234_5678.slice`, `kubelet-kubepods-pod....slice`
fn systemd_uid(name: &str) -> Option<String> {
    let (prefix, uid) = name.strip_suffix(".slice")?.rsplit_once("-pod")?;
    let uid = uid.replace('_', "-");
    (prefix.contains("kubepods") && is_uid(&uid)).then_some(uid)
}

/// `kubepods/burstable/pod1234-5678`
fn cgroupfs_uid(above: &str, name: &str) -> Option<String> {
    let uid = name.strip_prefix("pod")?;
    let kubelet = above.split('/').any(|part| part == "kubepods");
    (kubelet && is_uid(uid)).then(|| uid.to_owned())
}

/// A UUID, or the MD5 sum that a static pod has.
fn is_uid(text: &str) -> bool {
    matches!(text.len(), 32 | 36) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// `machine-qemu\x2d3\x2dname.scope`, `machine-qemu-3-name.scope`
fn machine_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("machine-")?.strip_suffix(".scope")?;
    let name = unescape(name);
    let (_number, name) = name.strip_prefix("qemu-")?.split_once('-')?;
    Some(name.to_owned())
}

/// Undoes systemd's `\x2d`. A name cut inside an escape keeps it as it is.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = rest
            .strip_prefix(b"\\x")
            .and_then(|digits| std::str::from_utf8(digits.get(..2)?).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = escaped {
            bytes.push(byte);
            rest = &rest[4..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The id of the container whose cgroup this is: `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`, or
/// the bare ID of the cgroupfs driver.
#[must_use]
pub fn container_id(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = name.rsplit('-').next()?;
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "0a1b2c3d-1111-2222-3333-444455556666";

    #[test]
    fn pods_of_every_driver_at_any_depth() {
        let pod = Some(Top::Pod(UID.to_owned()));
        let underscored = UID.replace('-', "_");
        for path in [
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscored}.slice"),
            format!("/kubepods.slice/kubepods-pod{underscored}.slice"),
            format!("/docker/abc/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{underscored}.slice"),
            format!("/kubepods/burstable/pod{UID}"),
            format!("/a/b/kubepods/pod{UID}"),
        ] {
            assert_eq!(top_of(&path), pod, "{path}");
        }
        for path in [
            "/kubepods.slice",
            "/kubepods/burstable",
            "/system.slice/podman.service",
            "",
            "/user/podracer",
        ] {
            assert_eq!(top_of(path), None, "{path}");
        }
    }

    #[test]
    fn machines_with_and_without_escapes() {
        let machine = |name: &str| Some(Top::Machine(name.to_owned()));
        assert_eq!(
            top_of("/machine.slice/machine-qemu\\x2d3\\x2dweb\\x2d1.scope"),
            machine("web-1")
        );
        assert_eq!(top_of("/machine.slice/machine-qemu-3-web.scope"), machine("web"));
        assert_eq!(top_of("/machine.slice/machine-lxc\\x2d3\\x2dweb.scope"), None);
    }

    #[test]
    fn containers_by_their_id() {
        let id = "0123456789abcdef".repeat(4);
        for prefix in ["cri-containerd-", "crio-", "docker-"] {
            assert_eq!(container_id(&format!("/x/{prefix}{id}.scope")), Some(id.as_str()));
        }
        assert_eq!(container_id(&format!("/kubepods/pod1/{id}")), Some(id.as_str()));
        assert_eq!(container_id("/x/container"), None);
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "[/a-z\\\\x0-9é.-]{0,80}|\\PC*") {
            let _ = (top_of(&path), container_id(&path), unescape(&path));
        }
    }
}
