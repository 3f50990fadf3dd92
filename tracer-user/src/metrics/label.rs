//! Label values: bounded in length and in number, safe to print. Names come from pods and may be anything.

use std::collections::BTreeSet;

use crate::escape;
use crate::recording::event::Pod;
use crate::role::Role;

/// Longest label value, characters. Names of the field are at most 63.
const LONGEST: usize = 128;
/// What does not get a label of its own is added up under this name.
pub const OTHER: &str = "other";
/// Overhead that was there before its charges were seen.
pub const BEFORE: &str = "before";
/// Roles with labels of their own in a pod.
const MOST_ROLES: usize = 24;
/// Bytes that are worth a label.
const MATTERS: u64 = 1 << 20;

/// A name as a label.
pub fn clean(name: &str) -> String {
    let safe = escape::terminal(name);
    let length = safe.chars().count();
    // The end of a path tells more than its beginning.
    safe.chars().skip(length.saturating_sub(LONGEST)).collect()
}

/// Names of a pod that no other pod has.
pub fn unique(pod: &Pod, taken: &mut BTreeSet<(String, String)>) -> (String, String) {
    let vm = if pod.vm.is_empty() { &pod.cgroup } else { &pod.vm };
    let mut names = (clean(&pod.namespace), clean(vm));
    if taken.contains(&names) {
        // A VM may have two pods for a moment, as when it starts again.
        names.1 = format!("{} ({})", names.1, pod.memcg);
    }
    taken.insert(names.clone());
    names
}

/// A pod's roles that have labels of their own, once they have them.
#[derive(Clone, Debug, Default)]
pub struct Roles(BTreeSet<String>);

impl Roles {
    /// The label of a role that holds or freed so many bytes. vCPUs and iothreads are not told apart. Names of kernel
    /// threads and processes are, once they matter and as far as there is room: whoever on the node frees a page of the
    /// pod has an account in it.
    pub fn label(&mut self, role: &Role, bytes: u64) -> String {
        let name = name(role);
        if self.0.contains(&name) {
            return name;
        }
        let made_up = matches!(role, Role::Kernel(_) | Role::Helper(_) | Role::Other(_));
        if self.0.len() >= MOST_ROLES || (made_up && bytes < MATTERS) {
            return OTHER.to_owned();
        }
        self.0.insert(name.clone());
        name
    }
}

/// A role's label, if it has one of its own.
pub fn name(role: &Role) -> String {
    match role {
        Role::Vcpu(_) => "vcpu".to_owned(),
        Role::IoThread(_) => "iothread".to_owned(),
        role => clean(&role.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_print_safely() {
        assert_eq!(clean("a\nb\u{1b}[2J"), "a\\nb\\x1b[2J");
        let long = clean(&format!("/{}/end", "é".repeat(1000)));
        assert!(long.ends_with("é/end") && long.chars().count() == LONGEST);
    }

    #[test]
    fn made_up_roles_share_one_label() {
        let mut roles = Roles::default();
        let labels: BTreeSet<String> = (0..1000)
            .map(|n| roles.label(&Role::Other(n.to_string()), MATTERS))
            .collect();
        assert_eq!(labels.len(), MOST_ROLES + 1);
        // Who has one keeps it.
        assert_eq!(roles.label(&Role::Other("3".to_owned()), 0), "other 3");
        assert_eq!(roles.label(&Role::Other("999".to_owned()), MATTERS), OTHER);
        let mut roles = Roles::default();
        assert_eq!(roles.label(&Role::Vcpu(7), 0), "vcpu");
        assert_eq!(roles.label(&Role::Helper("x".to_owned()), MATTERS - 1), OTHER);
    }

    #[test]
    fn two_pods_of_a_name_are_told_apart() {
        let mut taken = BTreeSet::new();
        let pod = |memcg| Pod {
            namespace: "n".to_owned(),
            vm: "v".to_owned(),
            memcg,
            ..Pod::default()
        };
        assert_eq!(unique(&pod(1), &mut taken), ("n".to_owned(), "v".to_owned()));
        assert_eq!(unique(&pod(2), &mut taken), ("n".to_owned(), "v (2)".to_owned()));
    }
}
