//! What the command of an alert is told, as environment variables.

use jiff::Timestamp;

use crate::recording::event::{Alert, AlertKind, Pod};

/// Longest that a value becomes. Names of the field are shorter.
const LONGEST: usize = 1024;
/// What of a name is kept besides letters and digits: nothing that a shell, a URL or a JSON document would act on.
const HARMLESS: &str = " ._-:/@+,()";

/// The environment of a command.
pub type Variables = Vec<(&'static str, String)>;

/// Every variable, always: one that has nothing to say is empty, so that none is left over from our own environment.
pub fn of(pod: &Pod, alert: &Alert, t: u64, boot_unix_ns: u64, announced: &str) -> Variables {
    let culprit = alert
        .driver
        .as_ref()
        .map_or_else(String::new, |driver| format!("{}, {}", driver.process, driver.role));
    let eta = alert.kill_at.map(|at| in_seconds(at.saturating_sub(t)));
    let measured = |value: u64| match alert.alert {
        AlertKind::Eta => in_seconds(value),
        AlertKind::Headroom | AlertKind::Rate => value.to_string(),
    };
    [
        ("HEADROOM_ALERT", alert.alert.as_str().to_owned()),
        ("HEADROOM_TIME", utc(boot_unix_ns, t)),
        ("HEADROOM_NAMESPACE", pod.namespace.clone()),
        ("HEADROOM_VM", pod.vm.clone()),
        ("HEADROOM_POD", pod.pod_uid.clone()),
        ("HEADROOM_CGROUP", pod.cgroup.clone()),
        ("HEADROOM_CULPRIT", culprit),
        ("HEADROOM_ETA_S", eta.unwrap_or_default()),
        ("HEADROOM_HEADROOM_BYTES", alert.basis.available.max(0).to_string()),
        (
            "HEADROOM_RATE_BYTES_PER_S",
            alert.basis.overhead_rate.max(0).to_string(),
        ),
        (
            "HEADROOM_LIMIT_BYTES",
            pod.limit.map_or_else(String::new, |limit| limit.to_string()),
        ),
        ("HEADROOM_THRESHOLD", measured(alert.threshold)),
        ("HEADROOM_VALUE", alert.value.map(measured).unwrap_or_default()),
        ("HEADROOM_MESSAGE", announced.to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name, harmless(&value)))
    .collect()
}

/// Names come from pods and may be anything.
fn harmless(value: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || HARMLESS.contains(c);
    value
        .chars()
        .map(|c| if keep(c) { c } else { '_' })
        .take(LONGEST)
        .collect()
}

fn in_seconds(nanoseconds: u64) -> String {
    (nanoseconds / 1_000_000_000).to_string()
}

fn utc(boot_unix_ns: u64, t: u64) -> String {
    Timestamp::from_nanosecond(i128::from(boot_unix_ns) + i128::from(t))
        .map_or_else(|_| String::new(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::event::{Basis, Driver};
    use crate::role::Role;

    fn alert(driver: Option<Driver>) -> Alert {
        Alert {
            pod: 1,
            alert: AlertKind::Eta,
            raised: true,
            threshold: 300_000_000_000,
            value: Some(61_900_000_000),
            driver,
            kill_at: Some(100_000_000_000),
            basis: Basis {
                available: -5,
                overhead_rate: 1 << 20,
                ..Basis::default()
            },
        }
    }

    fn value(variables: &Variables, name: &str) -> String {
        let found = variables.iter().find(|(of, _)| *of == name);
        found.map(|(_, value)| value.clone()).expect("every variable is set")
    }

    #[test]
    fn figures_are_in_the_units_of_their_names() {
        let variables = of(&Pod::default(), &alert(None), 38_100_000_000, 0, "");
        for (name, expected) in [
            ("HEADROOM_ALERT", "eta"),
            ("HEADROOM_TIME", "1970-01-01T00:00:38.1Z"),
            ("HEADROOM_ETA_S", "61"),
            ("HEADROOM_THRESHOLD", "300"),
            ("HEADROOM_VALUE", "61"),
            ("HEADROOM_HEADROOM_BYTES", "0"),
            ("HEADROOM_RATE_BYTES_PER_S", "1048576"),
            ("HEADROOM_CULPRIT", ""),
        ] {
            assert_eq!(value(&variables, name), expected, "{name}");
        }
    }

    #[test]
    fn names_that_would_act_are_made_harmless() {
        let pod = Pod {
            namespace: "$(reboot)`x`\"';&|<>*?\\\n\0\u{1b}[2J".to_owned(),
            vm: "é".repeat(5000),
            ..Pod::default()
        };
        let driver = Driver {
            role: Role::Helper("a\nb".to_owned()),
            process: "x=$y".to_owned(),
        };
        let variables = of(&pod, &alert(Some(driver)), 0, 0, "x\ny");
        for (name, value) in &variables {
            let acts = |c: char| c.is_control() || "$`\"';&|<>*?\\!#{}[]~=%".contains(c) || !c.is_ascii();
            assert!(!value.contains(acts) && value.len() <= LONGEST, "{name}: {value:?}");
        }
        assert_eq!(value(&variables, "HEADROOM_CULPRIT"), "x__y, helper a_b");
    }
}
