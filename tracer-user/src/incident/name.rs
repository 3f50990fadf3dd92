//! Names of incident folders: `incident-20261125T052341Z-NAMESPACE-VM`.

use jiff::Timestamp;
use jiff::civil::DateTime;

/// How every incident folder's name begins.
const PREFIX: &str = "incident-";
/// UTC, so that names sort by time.
const TIME: &str = "%Y%m%dT%H%M%SZ";
/// Characters of a time.
const TIME_LENGTH: usize = 16;
/// Longest that a namespace or VM name becomes: three of these and the rest stay below the 255 bytes of a file name.
const PART: usize = 63;
/// How the name of a folder that is not whole ends. It also begins with a dot.
const PARTIAL: &str = ".partial";

/// The name of an incident's folder. Namespace and VM name come from the pod and may be anything; here they become
/// letters, digits, dots, dashes and underscores.
#[must_use]
pub fn folder(at: Timestamp, namespace: &str, vm: &str) -> String {
    let mut name = format!("{PREFIX}{}", at.strftime(TIME));
    for part in [namespace, vm] {
        if !part.is_empty() {
            name.push('-');
            name.push_str(&harmless(part));
        }
    }
    name
}

fn harmless(part: &str) -> String {
    part.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(PART)
        .collect()
}

/// The name under which a folder is made before it is whole.
#[must_use]
pub fn partial(folder: &str) -> String {
    format!(".{folder}{PARTIAL}")
}

/// Whether this could be the name of an incident's folder.
#[must_use]
pub fn is_folder(name: &str) -> bool {
    let time = name.strip_prefix(PREFIX).and_then(|rest| rest.get(..TIME_LENGTH));
    time.is_some_and(|time| DateTime::strptime(TIME, time).is_ok())
}

/// Whether this could be the name of a folder that was never finished.
#[must_use]
pub fn is_partial(name: &str) -> bool {
    name.strip_prefix('.')
        .and_then(|rest| rest.strip_suffix(PARTIAL))
        .is_some_and(is_folder)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at() -> Timestamp {
        "2026-11-25T05:23:41.9Z".parse().unwrap()
    }

    #[test]
    fn names_are_what_they_say() {
        let name = folder(at(), "default", "vm1");
        assert_eq!(name, "incident-20261125T052341Z-default-vm1");
        assert_eq!(folder(at(), "", "vm1"), "incident-20261125T052341Z-vm1");
        assert_eq!(partial(&name), ".incident-20261125T052341Z-default-vm1.partial");
        assert!(is_folder(&name) && !is_partial(&name));
        assert!(is_partial(&partial(&name)) && !is_folder(&partial(&name)));
    }

    #[test]
    fn other_names_are_none_of_ours() {
        for name in [
            "incident-",
            "incident-report",
            "incident-20261325T052341Z-a",
            "notes",
            "incident-2026ä125T052341Z",
        ] {
            assert!(!is_folder(name) && !is_partial(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn hostile_names_stay_within_the_folder(namespace in ".*", vm in "\\PC{0,300}") {
            let name = folder(at(), &namespace, &vm);
            prop_assert!(is_folder(&name));
            prop_assert!(partial(&name).len() <= 255 - 4);
            prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)));
        }
    }
}
